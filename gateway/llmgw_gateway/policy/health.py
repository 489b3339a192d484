"""Which targets are worth asking now: one that has refused or failed rests for a while, if there is another. Pure.

Each replica knows what it has seen itself. When the rest is over, one call tries the target; the others follow when
that one was answered. Times are in seconds on the caller's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.call import Target

PROBE_SECONDS: Final = 30
"""How long the one call may take that tries a target: a call that was never sent must not keep it out."""
MOST_DOUBLINGS: Final = 10


class _Rest(Struct):
    failures: int
    """In a row."""
    until: float
    probe_until: float = 0.0
    """Until when another call's try is waited for."""


class Health:
    """What is known of the targets of one process.

    `rest`: how long after one failure; 0: nothing is remembered. `most`: at most.
    """

    def __init__(self, rest: float, most: float) -> None:
        self._rest = rest
        self._most = most
        self._resting: dict[str, _Rest] = {}

    def follow(self, rest: float, most: float) -> None:
        """Take other times into use, for the next failures."""
        self._rest, self._most = rest, most

    def order(self, targets: Sequence[Target], now: float) -> tuple[Target, ...]:
        """In which order to ask: as they stand, those that rest last. The first of them may be a try."""
        if not self._resting or len(targets) == 1:
            return tuple(targets)
        fit = [target for target in targets if not self._rests(target, now)]
        if fit and (rest := self._resting.get(fit[0].title)) is not None:
            rest.probe_until = now + PROBE_SECONDS
        return (*fit, *(target for target in targets if target not in fit))

    def failed(self, target: Target, now: float, wait: float = 0) -> bool:
        """It refused or failed; `wait` is what it asked for itself. Whether its rest begins with this."""
        if not self._rest:
            return False
        known = self._resting.get(target.title)
        if known is not None and known.until > now:
            return False  # asked all the same, as the last one: no news
        failures = 1 if known is None else known.failures + 1
        seconds = self._rest * 2 ** min(failures - 1, MOST_DOUBLINGS)
        self._resting[target.title] = _Rest(failures, now + min(max(seconds, wait), self._most))
        return True

    def answered(self, target: Target) -> None:
        """It has begun to answer."""
        self._resting.pop(target.title, None)

    def resting(self, now: float) -> dict[str, float]:
        """The targets that rest, and for how many seconds."""
        return {title: rest.until - now for title, rest in self._resting.items() if rest.until > now}

    def _rests(self, target: Target, now: float) -> bool:
        rest = self._resting.get(target.title)
        return rest is not None and (rest.until > now or rest.probe_until > now)
