"""Reads something from the store again and again, and knows whether it still does: readiness hangs on it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

POLL_SECONDS = 2.0
"""How long a replica may take to learn what another has written."""
MOST_SECONDS = 15.0
"""After so long without a round that went well this replica should get no requests."""
log = logging.getLogger("llmgw.store")


def until_next(period: float) -> float:
    """Seconds until what is done every `period` seconds is due again: all of it at once, so that a process wakes once.

    Half a period at least: a timer that is up a little early must not be set for the same moment again.
    """
    left = period - time.monotonic() % period
    return left if left > period / 2 else left + period


class Poller:
    """One task of one process. `name` is what it reads, in the plural, as messages say it."""

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[None]],
        pause: Callable[[], float] = lambda: until_next(POLL_SECONDS),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._read = read
        self._pause = pause
        """Seconds until the next round."""
        self._monotonic = monotonic
        self._task: asyncio.Task[None] | None = None
        self._good = 0.0
        """When a round last went well, or found that the store is away."""
        self._said: type[Exception] | None = None

    def start(self) -> None:
        """Begin with a pause: the caller has read just now."""
        self._good = self._monotonic()
        self._task = asyncio.create_task(self._run(), name=f"poller of {self._name}")

    def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()

    def unready(self) -> str:
        """Why this replica should get no requests; empty when there is no reason.

        A store that is away is none: it would take out all replicas at once, and what is known stays in force.
        """
        if self._task is None:
            return ""
        if self._task.done():
            return f"{self._name} are not followed any more"
        late = self._monotonic() - self._good
        return f"{self._name} could not be read for {late:.0f} s" if late > MOST_SECONDS else ""

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            await self.round()

    async def round(self) -> None:
        """Read once. What goes wrong is said once, and tried again."""
        try:
            await self._read()
        except Exception as error:
            away = isinstance(error, GatewayError) and error.code is ErrorCode.STORE_UNAVAILABLE
            if self._said is not type(error):
                why = None if away else error
                log.warning("%s could not be read; the last known stay in force", self._name, exc_info=why)
            self._said = type(error)
            if not away:
                return
        else:
            self._said = None
        self._good = self._monotonic()
