"""The one decision on rates and slots, and the store of a gateway that has them to itself. Pure: time is an argument.

A rate is a bucket that holds `limit` and leaks `limit` a minute, evenly; what a call takes is poured in, and a call is
admitted when it fits. So no instant lets more than `limit` through, W seconds at most `limit * (1 + W/60)`, and the
long run `limit` a minute. A fixed window lets `2 * limit` through in one instant, at its edge. A call that is larger
than the whole limit is admitted when the bucket is empty, and paid off before the next: it would never fit otherwise.

What is given back (money refused, or a call took less than was expected) is poured out, and never below empty; what
was taken too little is poured in even over the brim: debt. The bounds above are on what stays taken: a long call that
took less than was expected pours out what others poured in after it, when its own share has leaked out already, and so
much more is let through then. To give back less would bound calls by what was expected of them.

A slot is a lease, by id and time: who does not renew it has lost it. Every number is an integer: `rates.lua` computes
the same in Valkey, digit by digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmgw_gateway.money.limits import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmgw_gateway.money.limits import LimitRef, Takes

MINUTE = 60_000
"""Milliseconds. Contents are counted in this fraction of a unit: so each millisecond leaks a whole number."""


class AwayError(Exception):
    """The shared store cannot be asked. Whether the operation happened all the same is not known."""


@dataclass(frozen=True, slots=True)
class Full:
    """Of the limits that refuse the one that does so longest: who comes back then is not sent away by the next."""

    index: int
    """Its place among those that were asked."""
    used: int
    """Units in use, rounded up."""
    wait: int
    """Milliseconds until the call would fit if nobody else came; 0: nobody knows when a slot is freed."""

    @classmethod
    def read(cls, answer: list[int]) -> Full | None:
        """What `rates.lua` answers to an admission: {0}, or place from one, used, wait."""
        return cls(answer[0] - 1, answer[1], answer[2]) if answer[0] else None


class Windows:
    """All buckets and slots of one store. Times are milliseconds of any clock that only this store reads."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[int, int, int]] = {}
        """Content in 1/MINUTE of a unit, when it was that, and the limit it leaks by."""
        self._slots: dict[str, dict[str, int]] = {}
        """Until when each lease runs."""

    def admit(self, attempt: str, limits: Sequence[LimitRef], amounts: Takes, now: int, until: int) -> Full | None:
        """Take from all limits, or from none and say which is full for longest."""
        refusing = [full for place, ref in enumerate(limits) if (full := self._full(place, ref, attempt, amounts, now))]
        if refusing:
            return max(refusing, key=lambda full: full.wait)
        for ref in limits:
            if ref.amount == SLOT:
                self._slots.setdefault(ref.key, {})[attempt] = until
            else:
                content = self._content(ref.key, ref.limit, now) + amounts[ref.amount] * MINUTE
                self._buckets[ref.key] = (content, self._leaks_from(ref.key, now), ref.limit)
        return None

    def _full(self, place: int, ref: LimitRef, attempt: str, amounts: Takes, now: int) -> Full | None:
        """Whether and how long one limit refuses."""
        if ref.amount == SLOT:
            running = self._running(ref.key, now)
            return Full(place, len(running), 0) if len(running) >= ref.limit and attempt not in running else None
        content, poured, brim = self._content(ref.key, ref.limit, now), amounts[ref.amount] * MINUTE, ref.limit * MINUTE
        if not content or content + poured <= brim:
            return None
        return Full(place, -(-content // MINUTE), -(-(content + min(poured, brim) - brim) // ref.limit))

    def correct(self, key: str, limit: int, difference: int, now: int) -> None:
        """Pour `difference` units more into a bucket, or out of it."""
        content = self._content(key, limit, now) + difference * MINUTE
        if content > 0:
            self._buckets[key] = (content, self._leaks_from(key, now), limit)
        else:
            self._buckets.pop(key, None)

    def renew(self, attempt: str, keys: Iterable[str], until: int) -> None:
        """Extend an attempt's slots; one that was lost is taken again, because the call does run."""
        for key in keys:
            self._slots.setdefault(key, {})[attempt] = until

    def release(self, attempt: str, keys: Iterable[str]) -> None:
        """Free an attempt's slots."""
        for key in keys:
            running = self._slots.get(key)
            if running is not None:
                running.pop(attempt, None)
                if not running:
                    del self._slots[key]

    def used(self, limits: Sequence[LimitRef], now: int) -> list[int]:
        """What is in use of each limit, rounded up to whole units."""
        return [
            len(self._running(ref.key, now))
            if ref.amount == SLOT
            else -(-self._content(ref.key, ref.limit, now) // MINUTE)
            for ref in limits
        ]

    def forget(self, now: int) -> None:
        """Drop what has run empty."""
        for key, (_, _, limit) in list(self._buckets.items()):
            if not self._content(key, limit, now):
                del self._buckets[key]
        for key in list(self._slots):
            self._running(key, now)

    def __len__(self) -> int:
        return len(self._buckets) + len(self._slots)

    def _content(self, key: str, limit: int, now: int) -> int:
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0
        content, at, kept = bucket
        if at > now + MINUTE:
            self._buckets[key] = (content, now + MINUTE, kept)
        if now > at:
            content -= limit * (now - at)
        return max(content, 0)

    def _leaks_from(self, key: str, now: int) -> int:
        """Until when a bucket has leaked.

        A clock that was set back leaks nothing twice, and freezes for a minute at most: then a full bucket is empty.
        """
        bucket = self._buckets.get(key)
        return now if bucket is None else max(now, min(bucket[1], now + MINUTE))

    def _running(self, key: str, now: int) -> dict[str, int]:
        running = self._slots.get(key)
        if running is None:
            return {}
        for attempt in [attempt for attempt, until in running.items() if until <= now]:
            del running[attempt]
        if not running:
            del self._slots[key]
        return running
