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
from typing import TYPE_CHECKING, Final

from llmgw_gateway.money.limits import SLOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmgw_gateway.money.limits import LimitRef, Takes

MINUTE: Final = 60_000
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
        self._ends: dict[str, int] = {}
        """Before when none of a key's leases ends: until then nobody has to look."""

    def admit(self, attempt: str, limits: Sequence[LimitRef], amounts: Takes, now: int, until: int) -> Full | None:
        """Take from all limits, or from none and say which is full for longest."""
        refusing: Full | None = None
        contents: list[tuple[int, int]] = []
        for place, ref in enumerate(limits):
            found = _EMPTY
            if ref.amount == SLOT:
                full = self._occupied(place, ref, attempt, now)
            else:
                found = self._leaked(ref.key, ref.limit, now)
                full = _brimful(place, ref, found[0], amounts[ref.amount]) if found[0] else None
            contents.append(found)
            if full is not None and (refusing is None or full.wait > refusing.wait):
                refusing = full
        if refusing is not None:
            return refusing
        for ref, (content, at) in zip(limits, contents, strict=True):
            if ref.amount == SLOT:
                self._lease(ref.key, attempt, until)
            else:
                self._keep(ref.key, content + amounts[ref.amount] * MINUTE, at, ref.limit)
        return None

    def _occupied(self, place: int, ref: LimitRef, attempt: str, now: int) -> Full | None:
        """Whether all slots are taken."""
        running = self._running(ref.key, now)
        return Full(place, len(running), 0) if len(running) >= ref.limit and attempt not in running else None

    def correct(self, key: str, limit: int, difference: int, now: int) -> None:
        """Pour `difference` units more into a bucket, or out of it."""
        content, at = self._leaked(key, limit, now)
        self._keep(key, content + difference * MINUTE, at, limit)

    def renew(self, attempt: str, keys: Iterable[str], until: int) -> None:
        """Extend an attempt's slots; one that was lost is taken again, because the call does run."""
        for key in keys:
            self._lease(key, attempt, until)

    def release(self, attempt: str, keys: Iterable[str]) -> None:
        """Free an attempt's slots."""
        for key in keys:
            running = self._slots.get(key)
            if running is not None:
                running.pop(attempt, None)
                if not running:
                    del self._slots[key], self._ends[key]

    def used(self, limits: Sequence[LimitRef], now: int) -> list[int]:
        """What is in use of each limit, rounded up to whole units."""
        return [
            len(self._running(ref.key, now))
            if ref.amount == SLOT
            else -(-self._leaked(ref.key, ref.limit, now)[0] // MINUTE)
            for ref in limits
        ]

    def forget(self, now: int) -> None:
        """Drop what has run empty."""
        for key, (_, _, limit) in list(self._buckets.items()):
            if not self._leaked(key, limit, now)[0]:
                del self._buckets[key]
        for key in list(self._slots):
            self._running(key, now)

    def __len__(self) -> int:
        return len(self._buckets) + len(self._slots)

    def _leaked(self, key: str, limit: int, now: int) -> tuple[int, int]:
        """What is left in a bucket, and until when it has leaked.

        A clock that was set back leaks nothing twice, and freezes for a minute at most: then a full bucket is empty.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0, now
        content, at, kept = bucket
        if now >= at:
            content -= limit * (now - at)
            return (content, now) if content > 0 else (0, now)
        if at > now + MINUTE:
            at = now + MINUTE
            self._buckets[key] = (content, at, kept)
        return content, at

    def _keep(self, key: str, content: int, at: int, limit: int) -> None:
        """What is empty is not kept: it has no moment from which it leaks."""
        if content > 0:
            self._buckets[key] = (content, at, limit)
        else:
            self._buckets.pop(key, None)

    def _running(self, key: str, now: int) -> dict[str, int]:
        running = self._slots.get(key)
        if running is None:
            return {}
        if now >= self._ends[key]:
            for attempt in [attempt for attempt, until in running.items() if until <= now]:
                del running[attempt]
            if running:
                self._ends[key] = min(running.values())
            else:
                del self._slots[key], self._ends[key]
        return running

    def _lease(self, key: str, attempt: str, until: int) -> None:
        running = self._slots.get(key)
        if running is None:
            self._slots[key], self._ends[key] = {attempt: until}, until
        else:
            running[attempt] = until
            self._ends[key] = min(self._ends[key], until)


_EMPTY: Final = (0, 0)


def _brimful(place: int, ref: LimitRef, content: int, amount: int) -> Full | None:
    """Whether and how long a bucket with this content, which is not empty, refuses an amount."""
    poured, brim = amount * MINUTE, ref.limit * MINUTE
    if content + poured <= brim:
        return None
    return Full(place, -(-content // MINUTE), -(-(content + min(poured, brim) - brim) // ref.limit))
