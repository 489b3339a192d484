"""What the sections `[[policies]]` and `[[defaults]]` have in common: whom an entry concerns."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from llmgw_gateway.call import LEAST_THINKING
from llmgw_gateway.sections.reading import Section, Text

Cap = Annotated[int, Meta(ge=1, le=10_000_000)]
ThinkingCap = Annotated[int, Meta(ge=LEAST_THINKING, le=10_000_000)]


class Concerning(Section, frozen=True, kw_only=True):
    """An entry about some people, or about everyone."""

    name: str = ""
    """How `policy explain`, refusals and the audit trail call it; empty: by its place."""
    groups: tuple[Text, ...] = ()
    """It concerns who is in one of these groups of the identity provider, ..."""
    teams: tuple[Text, ...] = ()
    """... or is paid for by one of these teams, ..."""
    members: tuple[Text, ...] = ()
    """... or has one of these e-mail addresses. Without all three: everyone."""

    @property
    def everyone(self) -> bool:
        """Whether it concerns all callers."""
        return not (self.groups or self.teams or self.members)

    @property
    def identity(self) -> str | None:
        """No two may have the same name."""
        return self.name or None

    def faults_of(self, max_tokens: int | None, thinking_tokens: int | None) -> list[str]:
        """A name that breaks lines; thinking that leaves no room for an answer."""
        found = []
        if not self.name.isprintable():
            found.append("name: must be printable text on one line")
        if max_tokens is not None and thinking_tokens is not None and thinking_tokens >= max_tokens:
            found.append("thinking_tokens: must be less than max_tokens: an answer has to fit after the thinking")
        return found
