"""The one decision: may this attempt be admitted? The same function for SQLite and PostgreSQL. Pure.

All levels decide together: an attempt is admitted by every budget that concerns it, or by none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class BudgetRef:
    """One budget that concerns an attempt, in the period of its admission. Amounts in micro-USD."""

    budget: str
    """The key: level, subject, model, period."""
    name: str
    """What a person calls it."""
    period_key: str
    limit: int
    overshoot: int
    resets_at: str
    level: str = "user"
    period: str = "month"
    model: str = ""
    """Only calls of this model count; empty: all."""


@dataclass(slots=True)
class Counter:
    """The sums of one budget in one period, as locked in the store; changed in memory while a batch is decided."""

    counter_id: int
    spent: int
    held: int
    exposure: int
    """Sum over open holds of ceiling - hold: what they may still cost beyond what is held."""

    def take(self, hold: int, ceiling: int) -> None:
        """Count an admitted attempt."""
        self.held += hold
        self.exposure += ceiling - hold


@dataclass(frozen=True, slots=True)
class Denial:
    """The first budget that refuses, and its sums at that moment."""

    budget: BudgetRef
    spent: int
    held: int
    exposed: bool
    """True when the budget itself would fit but the worst case of all running attempts would not (I5)."""


def decide(levels: Sequence[tuple[BudgetRef, Counter]], hold: int, ceiling: int) -> Denial | None:
    """None admits. Levels are asked in the given order; the first that refuses is named.

    I4: spent + held <= limit. I5: spent + held + exposure <= limit + overshoot, so the most that can ever be
    overspent is the published bound.
    """
    for budget, counter in levels:
        if counter.spent + counter.held + hold > budget.limit:
            return Denial(budget, counter.spent, counter.held, exposed=False)
        if counter.spent + counter.held + counter.exposure + ceiling > budget.limit + budget.overshoot:
            return Denial(budget, counter.spent, counter.held, exposed=True)
    return None
