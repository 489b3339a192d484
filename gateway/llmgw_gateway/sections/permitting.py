"""The section `[[policies]]` of the configuration: who may use which models, and with which caps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

from msgspec import Meta

from llmgw_gateway.call import GEOGRAPHIES, LEAST_THINKING
from llmgw_gateway.sections.reading import Section, Text

if TYPE_CHECKING:
    from pathlib import Path

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
Cap = Annotated[int, Meta(ge=1, le=10_000_000)]


class Permission(Section, frozen=True, kw_only=True):
    """One entry. They are read from the top, and the first that concerns both the caller and the model decides.

    Without any entry everyone may use every model; as soon as there is one, what none of them allows is refused.
    """

    name: str = ""
    """How `policy explain`, refusals and the audit trail call it; empty: by its place."""
    action: Literal["allow", "refuse"] = "allow"
    models: tuple[Text, ...] = ()
    """Names of `[[models]]`; empty: all."""
    groups: tuple[Text, ...] = ()
    """It concerns who is in one of these groups of the identity provider, ..."""
    teams: tuple[Text, ...] = ()
    """... or is paid for by one of these teams, ..."""
    members: tuple[Text, ...] = ()
    """... or has one of these e-mail addresses. Without all three: everyone."""
    max_tokens: Cap | None = None
    """The most output of one call."""
    thinking_tokens: Annotated[int, Meta(ge=LEAST_THINKING, le=10_000_000)] | None = None
    """The largest thinking budget (`thinking.budget_tokens`). Adaptive thinking has none: `max_tokens` bounds it."""
    context_tokens: Cap | None = None
    """The longest prompt, reckoned as a quarter of its bytes."""
    over_cap: Literal["clamp", "refuse"] = "clamp"
    """What becomes of a call that asks for more output or thinking: sent with the cap, or refused. A prompt that is too
    long is always refused: clients compact it then."""

    geographies: tuple[Text, ...] = ()
    """Where prompts may be processed: `eu`, `us`, `global` and others, or one region such as `eu-central-1`; empty:
    anywhere."""
    upstreams: tuple[Text, ...] = ()
    """Where they may be sent: names of `[[regions]]` and `[[anthropic]]`, and `bedrock`; empty: to all."""
    guardrail: str = ""
    """Under which of `[[guardrails]]` they are asked; empty: the organisation's, `none`: under none."""

    @property
    def everyone(self) -> bool:
        """Whether it concerns all callers."""
        return not (self.groups or self.teams or self.members)

    @property
    def identity(self) -> str | None:
        """No two may have the same name."""
        return self.name or None

    def faults(self, _base: Path) -> list[str]:
        """A combination that means nothing."""
        caps = [name for name in ("max_tokens", "thinking_tokens", "context_tokens") if getattr(self, name) is not None]
        caps += [name for name in ("geographies", "upstreams", "guardrail") if getattr(self, name)]
        found = [f'{name}: does not go with action = "refuse"' for name in caps if self.action == "refuse"]
        found += [
            f"geographies: {name!r} is none of {', '.join(GEOGRAPHIES)}, and no region such as eu-central-1"
            for name in self.geographies
            if name not in GEOGRAPHIES and not _REGION.fullmatch(name)
        ]
        if not self.name.isprintable():
            found.append("name: must be printable text on one line")
        if self.max_tokens is not None and self.thinking_tokens is not None and self.thinking_tokens >= self.max_tokens:
            found.append("thinking_tokens: must be less than max_tokens: an answer has to fit after the thinking")
        return found
