"""What one replica has set aside of each budget for the time in which the store is away, and what is left of it. Pure.

An allowance is held in the store beforehand (it counts like a running call), so whatever is drawn on it fits the limit.
A draw takes a call's ceiling, the most that it can cost, and gives back what it did not cost once it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmgw_gateway.money.levels import BudgetRef

PREFIX: Final = "alw_"
"""Of the id of an allowance among the attempts; those of calls begin with att_."""
FAR: Final = 253_402_300_799_000
"""The end of its lease (the year 9999): no sweep ever settles it."""
MOST_KEPT: Final = 1_000
"""Allowances of one replica at a time: of those budgets that were used last."""
IDLE_SECONDS: Final = 3600
"""An allowance that was not used for so long is given back."""
FRESH_SECONDS: Final = 10
"""An allowance is taken within so long after a use: what is known about the budget's limit is as fresh."""
AGAIN_SECONDS: Final = 60
"""A budget that had no room for an allowance is asked again after this."""


@dataclass(slots=True)
class Allowance:
    """What is set aside of one budget in one period. Micro-USD."""

    attempt_id: str
    budget: str
    period_key: str
    amount: int
    """As it was taken."""
    left: int = 0
    running: int = 0
    """Draws that have not been replayed yet."""

    def __post_init__(self) -> None:
        self.left = self.amount


@dataclass(slots=True)
class _Use:
    """A budget that was used here."""

    ref: BudgetRef
    at: float
    not_before: float = 0.0


@dataclass(slots=True)
class Allowances:
    """Of one replica. Times in seconds of any clock that does not go back."""

    _uses: dict[str, _Use] = field(default_factory=dict)
    """By budget, the one that was used last at the end."""
    _kept: dict[str, Allowance] = field(default_factory=dict)
    """By budget."""
    _drawn: dict[str, tuple[Allowance, ...]] = field(default_factory=dict)
    """By attempt."""

    def used(self, budgets: Iterable[BudgetRef], now: float) -> None:
        """Remember that a call was admitted by these: their allowances are worth keeping."""
        for ref in budgets:
            if ref.allowance:
                before = self._uses.pop(ref.budget, None)
                self._uses[ref.budget] = _Use(ref, now, before.not_before if before else 0.0)
        while len(self._uses) > MOST_KEPT:
            del self._uses[next(iter(self._uses))]

    def missing(self, now: float) -> list[BudgetRef]:
        """Of which budgets an allowance should be taken."""
        return [
            use.ref
            for use in self._uses.values()
            if use.ref.budget not in self._kept and use.at > now - FRESH_SECONDS and use.not_before <= now
        ]

    def refused(self, ref: BudgetRef, now: float) -> None:
        """There is no room for one at the moment."""
        if use := self._uses.get(ref.budget):
            use.not_before = now + AGAIN_SECONDS

    def take(self, allowance: Allowance) -> None:
        """It is held in the store now."""
        self._kept[allowance.budget] = allowance

    def surplus(self, now: float) -> list[Allowance]:
        """Those to be given back: unused, of a past period, or partly spent (a whole one follows). No running draw."""
        return [each for each in self._kept.values() if not each.running and not self._wanted(each, now)]

    def _wanted(self, allowance: Allowance, now: float) -> bool:
        use = self._uses.get(allowance.budget)
        return (
            use is not None
            and use.at > now - IDLE_SECONDS
            and use.ref.period_key == allowance.period_key
            and use.ref.allowance == allowance.amount == allowance.left
        )

    def give_back(self, allowance: Allowance) -> None:
        """Nothing can be drawn on it any more."""
        if self._kept.get(allowance.budget) is allowance:
            del self._kept[allowance.budget]

    def kept(self) -> list[Allowance]:
        """All of them."""
        return list(self._kept.values())

    def draw(self, attempt_id: str, budgets: Sequence[BudgetRef], ceiling: int) -> tuple[Allowance, ...]:
        """Take the ceiling of a call from the allowance of every budget that concerns it, or nothing: an empty tuple.

        A call that no budget concerns is not covered by any.
        """
        found = []
        for ref in budgets:
            allowance = self._kept.get(ref.budget)
            if (
                not ref.allowance
                or allowance is None
                or allowance.period_key != ref.period_key
                or allowance.left < ceiling
            ):
                return ()
            found.append(allowance)
        for allowance in found:
            allowance.left -= ceiling
            allowance.running += 1
        if found:
            self._drawn[attempt_id] = tuple(found)
        return tuple(found)

    def end(self, attempt_id: str, unused: int) -> None:
        """The call has ended, and so much of its ceiling can be drawn on again. Call once."""
        for allowance in self._drawn[attempt_id]:
            allowance.left += unused

    def replayed(self, attempt_id: str) -> None:
        """The store has it."""
        for allowance in self._drawn.pop(attempt_id):
            allowance.running -= 1
