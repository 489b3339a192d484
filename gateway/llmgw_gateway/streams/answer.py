"""One streamed answer on its way to its client: what is written, what ends it, and whether anybody is there."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Literal, Protocol

import aiohttp
from aiohttp import web

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.limits import Timers
from llmgw_gateway.streams.presence import gone
from llmgw_gateway.streams.refusals import FAILED_AT_WORK, STATUS_OF_EXCEPTION, StreamRefused, error_type
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmgw_gateway.call import Outcome
    from llmgw_gateway.streams.eventstream import Frame
    from llmgw_gateway.streams.limits import Limits
    from llmgw_gateway.streams.meter import Meter

ROOM = 32 * 1024
"""Half of what a transport takes before writers have to wait (asyncio's and uvloop's high-water mark)."""
log = logging.getLogger("llmgw.relay")
Stop = Literal["first_content", "idle", "drain", "cancel"]
"""Why the provider is not read any further: it is silent, or what it says is for nobody."""


class Writer(Protocol):
    """How a dialect writes a stream: server-sent events, or Bedrock's own frames passed through."""

    content_type: str
    keepalive: bytes | None

    def write(self, raw: bytes, events: Sequence[tuple[str, bytes]], broken: Frame | None, /) -> bytes:
        """The client's bytes for the whole frames of one read; `broken` is the exception that ends the stream."""

    def failure(self, kind: str, message: str) -> bytes:
        """The terminal event for a failure after the head."""


class Answer:
    """One answer. `leaves` is told once when its client is gone, `opens` once when its head is out."""

    def __init__(
        self,
        request: web.BaseRequest,
        writer: Writer,
        headers: Mapping[str, str],
        meter: Meter,
        outcome: Outcome,
        session: str,
        limits: Limits,
        dispatched_at: float,
        leaves: Callable[[Answer], None],
        opens: Callable[[], None],
    ) -> None:
        self.outcome = outcome
        self.session = session
        self.gone = False
        self.drained = 0
        """Bytes read without the client."""
        self.over = False
        """Whether the provider has ended its answer with an error event."""
        self.response = web.StreamResponse(
            headers={**headers, "content-type": writer.content_type, "cache-control": "no-cache"}
        )
        self.timers = Timers(limits, dispatched_at, time.monotonic(), pings=writer.keepalive is not None)
        self.clock: asyncio.Timeout | None = None
        """Ends the reading of the provider; None while it is not read."""
        self.stopped: Stop | None = None
        self._request = request
        self._writer = writer
        self._meter = meter
        self._limits = limits
        self._leaves = leaves
        self._opens = opens
        self._opened = False
        self._opening = asyncio.Lock()
        self._ending = asyncio.Lock()
        self._ended = False

    async def take(self, raw: bytes, frames: list[Frame], inner: Callable[[Frame], bytes | None]) -> None:
        """Meter the frames of one read and write them in the client's dialect.

        StreamRefused when the first of them is a failure and nothing was sent yet.
        """
        if not frames:
            return
        events: list[tuple[str, bytes]] = []
        broken = frames[-1] if frames[-1].exception else None  # nothing comes after an exception
        error: bytes | None = None
        for frame in frames:
            data = inner(frame) if frame is not broken else None
            if data is not None:
                kind = self._meter.event(data)
                events.append((kind, data))
                if kind == "error":
                    error = data
        self.outcome.usage, self.outcome.completeness = self._meter.usage, self._meter.completeness
        self.outcome.pieces = self._meter.pieces
        if broken is not None or error is not None:
            self.over = True
            self._failed(broken, error, alone=len(frames) == 1)
        self.timers.begun = True
        if not self._opened:
            await self.open()
        await self._write(self._writer.write(raw, events, broken))

    def _failed(self, broken: Frame | None, error: bytes | None, *, alone: bool) -> None:
        """The provider has ended the answer with an error."""
        name = error_type(error) if error is not None else (broken.exception if broken is not None else "")
        self.outcome.note = f"upstream_{name}"
        # Refused before it began: nothing is charged, whether or not the head had to leave meanwhile.
        worked = self._meter.started or self._meter.pieces or STATUS_OF_EXCEPTION.get(name or "", 0) in FAILED_AT_WORK
        self.outcome.refused_upstream = not worked
        if alone and not self.timers.begun and not self.response.prepared:
            raise StreamRefused.by_frame(broken) if broken is not None else StreamRefused.by_event(error or b"")

    async def end(self) -> None:
        """The upstream ended its body: properly, or before the last event."""
        if not self._meter.stopped and self.outcome.note in {"ok", "client_gone"}:
            self.outcome.note = "upstream_truncated"
            await self.fail("api_error", "The provider ended the stream before the answer was complete.")
        else:
            await self._end()

    async def revoke(self) -> None:
        """End the client's part, also before the head; the upstream is drained like after a client that left."""
        if self._ended or self.gone:
            return
        self.outcome.note = "revoked"
        await self.open()
        await self._end(self._writer.failure("authentication_error", "This session was ended. Run: llmgw login"))
        self._leave()
        if self._request.transport is not None:
            self._request.transport.close()  # what is written leaves first

    async def fail(self, kind: str, message: str) -> None:
        """Tell the client, in its dialect: as a status while the head is unsent, as a terminal event afterwards."""
        if not self.response.prepared:
            code = ErrorCode.UPSTREAM_TIMEOUT if kind == "overloaded_error" else ErrorCode.UPSTREAM_INVALID
            raise GatewayError(code, message)
        await self._end(self._writer.failure(kind, message))

    def stop(self, why: Stop, seconds: float = 0) -> None:
        """Read no more of the provider after so many seconds."""
        if self.clock is not None and not self.clock.expired():
            self.stopped = why
            self.clock.reschedule(asyncio.get_running_loop().time() + seconds)

    async def watch(self) -> None:
        """Do what is due while the provider is silent: open the head, send pings, give up; notice a client that left.

        One task for each answer; it sleeps from one thing that is due to the next.
        """
        while not self.gone:
            now = time.monotonic()
            due = self.timers.next()
            if due is None or due[0] > now:
                wait = self._limits.ping_seconds if due is None else min(due[0] - now, self._limits.ping_seconds)
                await asyncio.sleep(wait)
                if gone(self._request):
                    self._lost()
            elif due[1] == "open":
                await self.open()
            elif due[1] == "ping":
                await self._write(self._writer.keepalive or b"")
            else:
                self.stop(due[1])
                return

    async def open(self) -> None:
        """Send the head, once."""
        async with self._opening:
            if self.timers.opened:
                return
            self.timers.opened = True
            self._opens()
            if self.gone:
                return
            try:
                await self.response.prepare(self._request)
                self._opened = True
            except (ConnectionError, aiohttp.ClientError):
                self._lost()

    async def _write(self, data: bytes) -> None:
        if data and not self._ended:
            await self._send(data)

    async def _end(self, last: bytes = b"") -> None:
        """Write what ends the answer. Whoever comes first ends it, and nothing is written after that."""
        async with self._ending:
            if self._ended or not self.response.prepared:
                return
            self._ended = True
            if last:
                await self._send(last)
            await self._send(None)

    async def _send(self, data: bytes | None) -> None:
        """Write bytes, or the end of the body. A client that does not take them in time is gone."""
        if self.gone:
            return
        try:
            if data is not None and self._has_room(len(data)):
                await self.response.write(data)
            else:
                async with asyncio.timeout(self._limits.stall_seconds):
                    await (self.response.write_eof() if data is None else self.response.write(data))
            self.timers.written_at = time.monotonic()
        except (ConnectionError, aiohttp.ClientError, TimeoutError):
            self._lost()

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes are taken at once, and nobody has to wait. Then a timer would cost more than they."""
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() + size < ROOM

    def _leave(self) -> None:
        """From now on the upstream is read for its usage alone: others may have the slot."""
        if self.gone:
            return
        self.gone = True
        if self.outcome.client_left is not None:
            self.outcome.client_left()
        self._leaves(self)

    def _lost(self) -> None:
        self._leave()
        if self._request.transport is not None:
            self._request.transport.abort()  # a stalled client must not hold the connection while the upstream drains
        if self.outcome.note == "ok":
            self.outcome.note = "client_gone"
        log.debug("the client is gone; draining the upstream to its usage event")
