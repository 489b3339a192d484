"""Between upstream and client: the first-chunk gate, metering, keep-alive, and what happens when either side goes away.

The answer is read to its end even when the client is gone: Bedrock bills it anyway, and only its last event tells the
cost. A client that hangs up is the ordinary case for a coding agent, not an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from aiohttp import web

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.eventstream import EventStreamError, Frame, FrameParser
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmgw_gateway.call import Outcome
    from llmgw_gateway.streams.meter import Meter

MOST_ANSWER: Final = 64 * 1024 * 1024
FOLLOW_SECONDS: Final = 1
"""How long a relay may go on after this replica has learned that its session was ended."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much; each is there because somebody does not go on."""

    gate_seconds: float = 15
    """How long the status line waits for the first event: a failure before it can still be an HTTP status."""
    ping_seconds: float = 15
    stall_seconds: float = 60
    """A client that takes no byte for so long is gone."""
    drain_seconds: float = 300
    drain_bytes: int = MOST_ANSWER
    most_drains: int = 256
    """Drains that run without a client: beyond it, and beyond the other two, an answer is charged as unknown."""


log = logging.getLogger("llmgw.relay")

STATUS_OF_EXCEPTION: Final = {
    "throttlingException": 429,
    "validationException": 400,
    "modelTimeoutException": 408,
    "modelStreamErrorException": 424,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
}
"""The statuses that Bedrock gives the same errors outside a stream (API reference, InvokeModelWithResponseStream)."""


class Writer(Protocol):
    """How a dialect writes a stream. Two exist: server-sent events, and Bedrock's own frames passed through."""

    content_type: str
    keepalive: bytes | None

    def write(self, raw: bytes, events: Sequence[tuple[str, bytes]], broken: Frame | None, /) -> bytes:
        """The client's bytes for the whole frames of one read; `broken` is the exception that ends the stream."""

    def failure(self, kind: str, message: str) -> bytes:
        """The terminal event for a failure after the head."""


class StreamRefused(Exception):  # noqa: N818 -- no failure of ours: the provider's answer, before any head was sent
    """The provider reported an error as the first event: it can still be told as an HTTP status."""

    def __init__(self, exception: str, payload: bytes) -> None:
        super().__init__(exception)
        self.status = STATUS_OF_EXCEPTION.get(exception, 500)
        self.exception = exception
        self.payload = payload


class Relay:
    """Relays streams of one process; counts the drains that run without a client.

    `has_ended` says of which sessions the relays have to stop; the drains that settle them go on.
    """

    def __init__(self, has_ended: Callable[[str], bool], limits: Limits | None = None) -> None:
        self.drains = 0
        self._has_ended = has_ended
        self._limits = limits or Limits()
        self._open: set[_Stream] = set()
        self._follower: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow which sessions end."""
        self._follower = asyncio.create_task(self._follow(), name="relays")

    def stop(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.cancel()

    def unready(self) -> str:
        """Why this replica should get no requests; empty when there is no reason."""
        gone = self._follower is not None and self._follower.done()
        return "answers of ended sessions are not cut off any more" if gone else ""

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            await self.end_revoked()

    async def end_revoked(self) -> None:
        """End the relays of ended sessions, each with a terminal event."""
        revoked = [stream.revoke() for stream in self._open if self._has_ended(stream.session)]
        for failure in await asyncio.gather(*revoked, return_exceptions=True):
            if isinstance(failure, Exception):
                log.error("a relay of an ended session could not be ended in words: %s", type(failure).__name__)

    async def run(
        self,
        request: web.BaseRequest,
        content: aiohttp.StreamReader,
        writer: Writer,
        inner: Callable[[Frame], bytes | None],
        headers: Mapping[str, str],
        meter: Meter,
        outcome: Outcome,
        session: str,
    ) -> web.StreamResponse:
        """Relay one stream to its end. `outcome` holds the usage and how it ended, on every way out.

        StreamRefused before the head, when the provider's first event is an error.
        """
        stream = _Stream(request, writer, headers, meter, outcome, session, self._limits)
        self._open.add(stream)
        keepalive = asyncio.create_task(stream.keep_alive(), name="keepalive")
        try:
            await self._pump(stream, content, inner)
        except asyncio.CancelledError:
            outcome.note = "shutdown"
            if not stream.response.prepared:
                raise
            await stream.fail("overloaded_error", "The gateway is shutting down; the answer was cut off. Try again.")
        finally:
            keepalive.cancel()
            self._open.discard(stream)
            if stream.draining_since:
                self.drains -= 1
        return stream.response

    async def _pump(
        self, stream: _Stream, content: aiohttp.StreamReader, inner: Callable[[Frame], bytes | None]
    ) -> None:
        parser = FrameParser()
        try:
            while chunk := await content.readany():
                frames = parser.feed(chunk)
                await stream.take(parser.taken, frames, inner)
                if stream.gone and not self._may_drain(stream, len(chunk)):
                    stream.outcome.note = "drain_capped"
                    return
            parser.finish()
        except EventStreamError as error:
            stream.outcome.note = "upstream_corrupt"
            await stream.fail("api_error", f"The provider's stream is corrupt: {error}.")
        except TimeoutError:
            stream.outcome.note = "upstream_idle"
            await stream.fail("overloaded_error", "The provider went silent in the middle of the answer.")
        except aiohttp.ClientError:
            stream.outcome.note = "upstream_broken"
            await stream.fail("api_error", "The connection to the provider broke in the middle of the answer.")
        except (GatewayError, StreamRefused):
            raise
        except Exception:
            # A fault of ours: once the head is out, no error response can follow it.
            stream.outcome.note = "internal"
            if not stream.response.prepared:
                raise
            log.exception("a relay failed")
            await stream.fail("api_error", "The gateway failed in the middle of the answer.")
        else:
            await stream.end()

    def _may_drain(self, stream: _Stream, size: int) -> bool:
        if not stream.draining_since:
            stream.draining_since = time.monotonic()
            self.drains += 1
        stream.drained += size
        return (
            self.drains <= self._limits.most_drains
            and stream.drained <= self._limits.drain_bytes
            and time.monotonic() - stream.draining_since < self._limits.drain_seconds
        )


class _Stream:
    """One answer on its way: the client's response, the meter, and whether the client is still there."""

    def __init__(
        self,
        request: web.BaseRequest,
        writer: Writer,
        headers: Mapping[str, str],
        meter: Meter,
        outcome: Outcome,
        session: str,
        limits: Limits,
    ) -> None:
        self.outcome = outcome
        self.session = session
        self.gone = False
        self.draining_since = 0.0
        self.drained = 0
        self.response = web.StreamResponse(
            headers={**headers, "content-type": writer.content_type, "cache-control": "no-cache"}
        )
        self._request = request
        self._writer = writer
        self._meter = meter
        self._limits = limits
        self._opening = asyncio.Lock()
        self._ending = asyncio.Lock()
        self._ended = False
        self._last_write = time.monotonic()

    async def take(self, raw: bytes, frames: list[Frame], inner: Callable[[Frame], bytes | None]) -> None:
        """Meter the frames of one read and write them in the client's dialect."""
        events: list[tuple[str, bytes]] = []
        broken: Frame | None = None
        for frame in frames:
            if frame.exception:
                broken = frame
                break
            data = inner(frame)
            if data is not None:
                events.append((self._meter.event(data), data))
        self.outcome.usage, self.outcome.completeness = self._meter.usage, self._meter.completeness
        self.outcome.pieces = self._meter.pieces
        if broken is not None:
            self.outcome.note = f"upstream_{broken.exception}"
            # Refused before it began: nothing is charged, whether or not the head had to leave meanwhile.
            self.outcome.refused_upstream = not (self._meter.started or self._meter.pieces)
            if not self.response.prepared:
                raise StreamRefused(broken.exception or "", broken.payload)
        if frames:
            await self._open()
            await self._write(self._writer.write(raw, events, broken))

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
        await self._open()
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

    async def keep_alive(self) -> None:
        """Open the response when the gate's time is up, then fill silence with pings where the dialect has one."""
        await asyncio.sleep(self._limits.gate_seconds)
        await self._open()
        while self._writer.keepalive is not None and not self.gone:
            silent = time.monotonic() - self._last_write
            if silent >= self._limits.ping_seconds:
                await self._write(self._writer.keepalive)
                silent = 0.0
            await asyncio.sleep(self._limits.ping_seconds - silent)

    async def _open(self) -> None:
        async with self._opening:
            if not self.response.prepared and not self.gone:
                try:
                    await self.response.prepare(self._request)
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
            async with asyncio.timeout(self._limits.stall_seconds):
                await (self.response.write_eof() if data is None else self.response.write(data))
            self._last_write = time.monotonic()
        except (ConnectionError, aiohttp.ClientError, TimeoutError):
            self._lost()

    def _leave(self) -> None:
        """From now on the upstream is read for its usage alone: others may have the slot."""
        self.gone = True
        if self.outcome.client_left is not None:
            self.outcome.client_left()

    def _lost(self) -> None:
        self._leave()
        if self._request.transport is not None:
            self._request.transport.abort()  # a stalled client must not hold the connection while the upstream drains
        if self.outcome.note == "ok":
            self.outcome.note = "client_gone"
        log.debug("the client is gone; draining the upstream to its usage event")
