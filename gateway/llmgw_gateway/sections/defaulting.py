"""The section `[[defaults]]` of the configuration: what counts for somebody where their request says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_gateway.sections.concerning import Cap, Concerning, ThinkingCap

if TYPE_CHECKING:
    from pathlib import Path


class Default(Concerning, frozen=True, kw_only=True):
    """One entry. They are read from the top, and the first that concerns the caller counts, alone."""

    model: str = ""
    """Which of `[[models]]` is meant by the name `default`; empty: none."""
    substitute: bool = False
    """Whether it answers in the place of a model that is served and not allowed, unless it is dearer. False: such a
    request is refused."""
    max_tokens: Cap | None = None
    """The output cap of requests that name none; the model's own where that is less."""
    thinking_tokens: ThinkingCap | None = None
    """The thinking budget of requests that say nothing of thinking, for models that take a budget."""

    def faults(self, _base: Path) -> list[str]:
        """An entry that says nothing, or what cannot be."""
        found = []
        if not (self.model or self.max_tokens or self.thinking_tokens):
            found.append("model: one of model, max_tokens and thinking_tokens is needed")
        if self.substitute and not self.model:
            found.append("substitute: needs a model")
        return found + self.faults_of(self.max_tokens, self.thinking_tokens)
