"""Which guardrail a call needs, and which targets can apply it. Pure.

A guardrail that is required and cannot be applied is a refusal, never a call without it: so a target whose upstream
does not know the guardrail is not asked, not as a fallback either. Anthropic's own API knows none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmgw_gateway.call import UNGUARDED
from llmgw_gateway.policy.residency import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmgw_gateway.call import Target
    from llmgw_gateway.sections.guarding import Guardrail
    from llmgw_gateway.sections.permitting import Permission


class Guards:
    """The configured guardrails. `everywhere` is the organisation's own; empty: it has none."""

    def __init__(self, rows: Sequence[Guardrail] = (), everywhere: str = "") -> None:
        self._known = {(row.name, row.upstream): row.guard for row in rows}
        self._everywhere = everywhere

    def wanted(self, entry: Permission | None) -> str:
        """The guardrail of calls that an entry has allowed; "" for none."""
        named = entry.guardrail if entry is not None else ""
        return "" if named == UNGUARDED else named or self._everywhere

    def applied(self, name: str, targets: Iterable[Target]) -> tuple[Target, ...]:
        """Those of the targets that can apply a guardrail, each with what it is there."""
        found = []
        for target in targets:
            guard = self._known.get((name, target.upstream or OWN)) if target.provider == "bedrock" else None
            if guard is not None:
                found.append(replace(target, guard=guard))
        return tuple(found)
