"""The body of an upstream's answer while it arrives: whoever receives it feeds, one reader takes."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

MOST_WAITING: Final = 256 * 1024
"""Bytes that wait for their reader before the upstream is asked to pause."""


class Source(Protocol):
    """Where the bytes come from."""

    def pause(self) -> None:
        """Send nothing more for now."""

    def resume(self) -> None:
        """Go on."""


class Body:
    """Bytes in order. `feed` and `finish` or `fail` come from the connection; `readany` is for one reader."""

    __slots__ = ("_ended", "_error", "_size", "_source", "_waiter", "_waiting", "paused")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._waiting: list[bytes] = []
        self._size = 0
        self.paused = False
        """Whether the source was asked to wait."""
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MOST_WAITING and not self.paused:
            self.paused = True
            self._source.pause()
        self._wake()

    def finish(self) -> None:
        """Say that this was all."""
        self._ended = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Say that the rest will not come; the reader gets this error once it has read what came."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    async def readany(self) -> bytes:
        """What has come since the last call, at least a byte; nothing at the end. Raises what `fail` was given."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        found, self._waiting, self._size = self._waiting, [], 0
        if self.paused:
            self.paused = False
            self._source.resume()
        return found[0] if len(found) == 1 else b"".join(found)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
