"""The one decision: may this attempt be admitted, and with how much output? The same for SQLite and PostgreSQL. Pure.

All levels decide together: an attempt is admitted by every budget that concerns it, or by none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_gateway.money.levels import Decision, Denial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.money.amounts import Amounts
    from llmgw_gateway.money.estimate import Terms
    from llmgw_gateway.money.levels import Level


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
