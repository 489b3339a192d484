"""The section `[[policies]]` of the configuration: who may use which models, and with which caps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from llmgw_gateway.call import GEOGRAPHIES
from llmgw_gateway.sections.concerning import Cap, Concerning, ThinkingCap
from llmgw_gateway.sections.reading import Text  # noqa: TC001 -- msgspec reads the annotations

if TYPE_CHECKING:
    from pathlib import Path

_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


class Permission(Concerning, frozen=True, kw_only=True):
    """One entry. They are read from the top, and the first that concerns both the caller and the model decides.

    Without any entry everyone may use every model; as soon as there is one, what none of them allows is refused.
    """

    action: Literal["allow", "refuse"] = "allow"
    models: tuple[Text, ...] = ()
    """Names of `[[models]]`; empty: all."""
    max_tokens: Cap | None = None
    """The most output of one call."""
    thinking_tokens: ThinkingCap | None = None
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
        return found + self.faults_of(self.max_tokens, self.thinking_tokens)
