"""The body of an upstream's answer while it arrives: whoever receives it feeds, one reader takes.

Two kinds of readers: `readany` waits for what comes next, and costs a future and a turn of the event loop each time;
`deliver` has it handed over at once, which is what a stream of small pieces wants.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_WAITING: Final = 256 * 1024
"""Bytes that wait for their reader before the upstream is asked to pause."""


class Source(Protocol):
    """Where the bytes come from."""

    def pause(self) -> None:
        """Send nothing more for now."""

    def resume(self) -> None:
        """Go on."""


class Body:
    """Bytes in order. `feed` and `finish` or `fail` come from the connection; all else is for the one reader."""

    __slots__ = ("_end", "_ended", "_error", "_size", "_source", "_take", "_waiter", "_waiting", "paused")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._waiting: list[bytes] = []
        self._size = 0
        self.paused = False
        """Whether the source was asked to wait."""
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], None] | None = None
        self._end: Callable[[BaseException | None], None] | None = None

    def feed(self, data: bytes) -> None:
        """Take what came."""
        if self._take is not None and not self.paused:
            self._take(data)
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MOST_WAITING:
            self.hold()
        self._wake()

    def finish(self) -> None:
        """Say that this was all: from now on the source is another one's, and goes on whether this was read or not."""
        self._ended = True
        if self.paused:
            self._source.resume()
        self._wake()
        self._tell()

    def fail(self, error: BaseException) -> None:
        """Say that the rest will not come; the reader gets this error once it has read what came."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()
            self._tell()

    def at_once(self) -> bytes | None:
        """All of it, when all has come already; else None, and nothing was read."""
        return self._collected() if self._ended and not self.paused else None

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
        found = self._collected()
        self.go_on()
        return found

    def deliver(self, take: Callable[[bytes], None], end: Callable[[BaseException | None], None]) -> None:
        """Hand over what has come and what comes, and in the end what `fail` was given, or None. Neither may raise."""
        self._take, self._end = take, end
        self.go_on()

    def forget(self) -> None:
        """Deliver to nobody any more. A reader and its body know each other: only a collector would part them."""
        self._take = self._end = None

    def hold(self) -> None:
        """Deliver nothing more for now; the upstream is asked to pause."""
        if not self.paused:
            self.paused = True
            if not self._ended:
                self._source.pause()

    def go_on(self) -> None:
        """Deliver again."""
        if self.paused:
            self.paused = False
            if not self._ended:
                self._source.resume()
        if self._take is not None and self._waiting:
            self._take(self._collected())
        self._tell()

    def _collected(self) -> bytes:
        found, self._waiting, self._size = self._waiting, [], 0
        return found[0] if len(found) == 1 else b"".join(found)

    def _tell(self) -> None:
        """Tell a reader who is handed things over that nothing comes any more, after all that has come."""
        if self._end is not None and not self.paused and not self._waiting and (self._ended or self._error is not None):
            end, self._end = self._end, None
            end(self._error)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
