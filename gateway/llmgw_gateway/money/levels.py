"""What a decision is made from and what comes of it: budgets, their counters, an admission or a denial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from llmgw_gateway.money.amounts import Amounts, Unit

Reason = Literal["limit", "exposure", "pace"]
MINUTE = 60_000
"""Milliseconds."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """From a share of the limit on, admissions are spaced out."""

    percent: int
    per_minute: int

    @property
    def pause(self) -> int:
        """Milliseconds between two admissions."""
        return MINUTE // self.per_minute


@dataclass(frozen=True, slots=True)
class BudgetRef:
    """One budget that concerns an attempt, in the period of its admission. Amounts in the budget's unit."""

    budget: str
    """The key: level, subject, model, period, unit."""
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
    unit: Unit = "usd"
    clamp: bool = False
    """Whether a call that does not fit may be admitted with a smaller max_tokens."""
    thresholds: tuple[int, ...] = ()
    """Percent of the limit whose crossing is announced, ascending."""
    throttle: Throttle | None = None
    allowance: int = 0
    """What a replica sets aside for the time in which the store is away; 0: nothing, calls are refused then."""


class Counter(Struct, gc=False):
    """The sums of one budget in one period, as locked in the store; changed in memory while a batch is decided."""

    counter_id: int
    unit: int
    """Index into an attempt's amounts."""
    spent: int
    held: int
    exposure: int
    """Sum over open attempts of ceiling - hold: what they may still cost beyond what is held."""
    limit: int = 0
    thresholds: tuple[int, ...] = ()
    crossed: int = 0
    paced_at: int = 0

    def room(self, budget: BudgetRef) -> tuple[int, int]:
        """What a hold may be (I4), and what a ceiling may be (I5)."""
        counted = self.spent + self.held
        return budget.limit - counted, budget.limit + budget.overshoot - counted - self.exposure


Level = tuple[BudgetRef, Counter]


class Decision(Struct, frozen=True, gc=False):
    """Admitted, with so much output; `clamped_by` names the budget for which that is less than was asked for."""

    max_tokens: int
    hold: Amounts
    ceiling: Amounts
    clamped_by: str = ""


class Denial(Struct, frozen=True, gc=False):
    """The first budget that refuses, its sums at that moment, and why."""

    budget: BudgetRef
    spent: int
    held: int
    reason: Reason
    """limit: spent + held would pass it. exposure: it fits, but the worst case of all running attempts would not (I5).
    pace: the budget is nearly used up and admits only so many attempts a minute."""
    retry_after: int = 0
    """Seconds until the pace admits another."""
