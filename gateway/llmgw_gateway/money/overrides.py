"""The limits in force: what is configured, a new limit in its place, and increases with an end. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One change of one limit. Times in milliseconds since the epoch, the amount in the budget's unit."""

    adjustment_id: str
    kind: Literal["limit", "grant"]
    """limit replaces the configured one, a grant adds to it."""
    budget: str
    """The budget's key."""
    amount: int
    starts_at: int
    ends_at: int | None
    reason: str
    made_by: str
    made_at: int
    withdrawn_by: str | None = None
    withdrawn_at: int | None = None

    def in_force(self, now: int) -> bool:
        """Whether it counts at a moment."""
        if self.withdrawn_at is not None and self.withdrawn_at <= now:
            return False
        return self.starts_at <= now and (self.ends_at is None or now < self.ends_at)


def limit_of(configured: int, mine: Iterable[Adjustment], now: int) -> int:
    """The limit at a moment: the newest replacement, or else the configured one, and all grants on top. Pure."""
    current = [each for each in mine if each.in_force(now)]
    replaced = [each for each in current if each.kind == "limit"]
    base = max(replaced, key=lambda each: (each.made_at, each.adjustment_id)).amount if replaced else configured
    return base + sum(each.amount for each in current if each.kind == "grant")


class Overrides:
    """The limits in force: those of the configuration, with the adjustments that are known."""

    def __init__(self, known: Iterable[Adjustment] = ()) -> None:
        self._mine: dict[str, list[Adjustment]] = {}
        self.version = 0
        """Another number whenever something was made or withdrawn."""
        self.replace(known)

    def replace(self, known: Iterable[Adjustment]) -> None:
        """Take these for all there are."""
        found: defaultdict[str, list[Adjustment]] = defaultdict(list)
        for each in known:
            found[each.budget].append(each)
        if found != self._mine:
            self._mine = dict(found)
            self.version += 1

    def limit(self, budget: str, configured: int, now: int) -> int:
        """The limit of a budget at a moment (milliseconds since the epoch)."""
        mine = self._mine.get(budget)
        return limit_of(configured, mine, now) if mine else configured

    def changes_at(self, now: float) -> float:
        """When the next one begins or ends, in seconds since the epoch; infinite when none does."""
        times = (time for mine in self._mine.values() for each in mine for time in (each.starts_at, each.ends_at))
        return min((time / 1000 for time in times if time is not None and time > now * 1000), default=math.inf)
