"""The one decision: may this attempt be admitted, and with how much output? The same for SQLite and PostgreSQL. Pure.

All levels decide together: an attempt is admitted by every budget that concerns it, or by none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.money.amounts import Amounts, Unit
    from llmgw_gateway.money.estimate import Terms

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


def decide(levels: Sequence[Level], terms: Terms, now: int) -> Decision | Denial:
    """Admit with the max_tokens asked for, or with less where all budgets that refuse that allow a clamp.

    I4: spent + held <= limit. I5: spent + held + exposure <= limit + overshoot, so the most that can ever be
    overspent is the published bound. `now` in milliseconds since the epoch.
    """
    hold, ceiling = terms.amounts(terms.max_tokens)
    for budget, counter in levels:
        # Nearly every call fits and is not spaced out: that is found out here, all else below.
        counted, unit = counter.spent + counter.held, counter.unit
        if (
            counted + hold[unit] > budget.limit
            or counted + counter.exposure + ceiling[unit] > budget.limit + budget.overshoot
            or budget.throttle is not None
        ):
            return _negotiate(levels, terms, now)
    return Decision(terms.max_tokens, hold, ceiling)


def _negotiate(levels: Sequence[Level], terms: Terms, now: int) -> Decision | Denial:
    """The same decision where a budget may refuse: who does, and whether a smaller max_tokens helps."""
    hold, ceiling = terms.amounts(terms.max_tokens)
    refused = [denial for level in levels if (denial := _refusal(level, hold, ceiling, now)) is not None]
    if not refused:
        return Decision(terms.max_tokens, hold, ceiling)
    # A call that does not fit must not get round the pace by being clamped.
    if all(denial.budget.clamp for denial in refused) and not any(_wait(level, now) > 0 for level in levels):
        fitting = min(terms.most_output(counter.unit, *counter.room(budget)) for budget, counter in levels)
        if fitting >= max(1, terms.least_tokens):
            return Decision(fitting, *terms.amounts(fitting), refused[0].budget.name)
    return refused[0]


def _refusal(level: Level, hold: Amounts, ceiling: Amounts, now: int) -> Denial | None:
    budget, counter = level
    for_hold, for_ceiling = counter.room(budget)
    if hold[counter.unit] > for_hold:
        return Denial(budget, counter.spent, counter.held, "limit")
    if ceiling[counter.unit] > for_ceiling:
        return Denial(budget, counter.spent, counter.held, "exposure")
    if budget.throttle is not None and (wait := _wait(level, now)) > 0:
        return Denial(budget, counter.spent, counter.held, "pace", retry_after=-(-wait // 1000))
    return None


def _wait(level: Level, now: int) -> int:
    """Milliseconds until a throttled budget admits another."""
    budget, counter = level
    if budget.throttle is None or not throttled(level):
        return 0
    return counter.paced_at + budget.throttle.pause - now


def throttled(level: Level) -> bool:
    """Whether so much of the budget is used or held that its admissions are spaced out."""
    budget, counter = level
    throttle = budget.throttle
    return throttle is not None and (counter.spent + counter.held) * 100 >= throttle.percent * budget.limit
