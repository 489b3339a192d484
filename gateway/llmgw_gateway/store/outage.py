"""Remembers that a server is away, so that it is said once and callers are not kept waiting for nothing."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_SECONDS = 1.0
"""While the server is away it is tried this often; in between, work is refused at once."""
log = logging.getLogger("llmgw.store")


class Outage:
    """Whether the server is away: logged when it goes and when it returns, not in between. For several threads."""

    def __init__(self, name: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._since: float | None = None
        self._again = 0.0

    @property
    def lasts(self) -> bool:
        """Whether it was away when it was last tried."""
        return self._since is not None

    @property
    def hopeless(self) -> bool:
        """Whether it was tried a moment ago, so that trying again now would only keep callers waiting."""
        return self._since is not None and self._monotonic() < self._again

    def failed(self, why: str) -> None:
        """It could not be reached, or did not answer."""
        with self._lock:
            now = self._monotonic()
            self._again = now + RETRY_SECONDS
            if self._since is None:
                self._since = now
                log.error("the store at %s is away: %s", self._name, why)

    def over(self) -> None:
        """It answered."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                log.warning("the store at %s is back after %.1f s", self._name, self._monotonic() - self._since)
                self._since = None
