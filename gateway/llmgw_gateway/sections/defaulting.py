"""The section `[[defaults]]` of the configuration: what counts for somebody where their request says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from llmgw_gateway.call import LEAST_THINKING
from llmgw_gateway.sections.permitting import Cap  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.sections.reading import Section, Text

if TYPE_CHECKING:
    from pathlib import Path


class Default(Section, frozen=True, kw_only=True):
    """One entry. They are read from the top, and the first that concerns the caller counts, alone."""

    name: str = ""
    """How `policy explain` calls it; empty: by its place."""
    groups: tuple[Text, ...] = ()
    """It concerns who is in one of these groups of the identity provider, ..."""
    teams: tuple[Text, ...] = ()
    """... or is paid for by one of these teams, ..."""
    members: tuple[Text, ...] = ()
    """... or has one of these e-mail addresses. Without all three: everyone."""
    model: str = ""
    """Which of `[[models]]` is meant by the name `default`; empty: none."""
    substitute: bool = False
    """Whether it answers in the place of a model that is served and not allowed, unless it is dearer. False: such a
    request is refused."""
    max_tokens: Cap | None = None
    """The output cap of requests that name none; the model's own where that is less."""
    thinking_tokens: Annotated[int, Meta(ge=LEAST_THINKING, le=10_000_000)] | None = None
    """The thinking budget of requests that say nothing of thinking, for models that take a budget."""

    @property
    def everyone(self) -> bool:
        """Whether it concerns all callers."""
        return not (self.groups or self.teams or self.members)

    @property
    def identity(self) -> str | None:
        """No two may have the same name."""
        return self.name or None

    def faults(self, _base: Path) -> list[str]:
        """An entry that says nothing, or what cannot be."""
        found = []
        if not (self.model or self.max_tokens or self.thinking_tokens):
            found.append("model: one of model, max_tokens and thinking_tokens is needed")
        if self.substitute and not self.model:
            found.append("substitute: needs a model")
        if not self.name.isprintable():
            found.append("name: must be printable text on one line")
        if self.max_tokens is not None and self.thinking_tokens is not None and self.thinking_tokens >= self.max_tokens:
            found.append("thinking_tokens: must be less than max_tokens: an answer has to fit after the thinking")
        return found
