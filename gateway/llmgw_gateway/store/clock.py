"""The clock of a store on another machine, read without asking it each time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_TRIP_SECONDS = 1.0
"""A measurement that took longer says too little; the one before it stays in force."""


class ServerClock:
    """Seconds since the epoch by a server's clock, anchored on this machine's monotonic one.

    A step of this machine's wall clock therefore changes nothing. The error is at most half of a round trip, and what
    the monotonic clock drifts until the next measurement.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None

    def measure(self, ask: Callable[[], float]) -> None:
        """Ask the server for its time. The first measurement counts however long it took."""
        before = self._monotonic()
        answer = ask()
        after = self._monotonic()
        if self._offset is None or after - before <= LONGEST_TRIP_SECONDS:
            self._offset = answer - (before + after) / 2

    def now(self) -> float:
        """The server's time; RuntimeError when it was never measured."""
        if self._offset is None:
            raise RuntimeError("the store's clock was not measured: the store was not opened")
        return self._monotonic() + self._offset
