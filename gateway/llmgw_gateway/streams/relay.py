"""Between upstream and client: the first-chunk gate, metering, keep-alive, and what happens when either side goes away.

The answer is read to its end even when the client is gone: Bedrock bills it anyway, and only its last event tells the
cost. A client that hangs up is the ordinary case for a coding agent, not an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
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

GATE_SECONDS: Final = 15
"""How long the status line waits for the first event, so that a failure in the stream can still be an HTTP status."""
PING_SECONDS: Final = 15
STALL_SECONDS: Final = 60
"""A client that takes no byte for so long is gone."""
DRAIN_SECONDS: Final = 300
MOST_DRAINS: Final = 256
MOST_ANSWER: Final = 64 * 1024 * 1024
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
    """Relays streams of one process; counts the drains that run without a client."""

    def __init__(self) -> None:
        self.drains = 0

    async def run(
        self,
        request: web.BaseRequest,
        content: aiohttp.StreamReader,
        writer: Writer,
        inner: Callable[[Frame], bytes | None],
        headers: Mapping[str, str],
        meter: Meter,
        outcome: Outcome,
    ) -> web.StreamResponse:
        """Relay one stream to its end. `outcome` holds the usage and how it ended, on every way out.

        StreamRefused before the head, when the provider's first event is an error.
        """
        stream = _Stream(request, writer, headers, meter, outcome)
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
                if stream.gone and not self._may_drain(stream):
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

    def _may_drain(self, stream: _Stream) -> bool:
        if not stream.draining_since:
            stream.draining_since = time.monotonic()
            self.drains += 1
        return self.drains <= MOST_DRAINS and time.monotonic() - stream.draining_since < DRAIN_SECONDS


class _Stream:
    """One answer on its way: the client's response, the meter, and whether the client is still there."""

    def __init__(
        self, request: web.BaseRequest, writer: Writer, headers: Mapping[str, str], meter: Meter, outcome: Outcome
    ) -> None:
        self.outcome = outcome
        self.gone = False
        self.draining_since = 0.0
        self.response = web.StreamResponse(
            headers={**headers, "content-type": writer.content_type, "cache-control": "no-cache"}
        )
        self._request = request
        self._writer = writer
        self._meter = meter
        self._opening = asyncio.Lock()
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
            self.outcome.refused_upstream = not self._meter.started
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
            await self._close()

    async def fail(self, kind: str, message: str) -> None:
        """Tell the client, in its dialect: as a status while the head is unsent, as a terminal event afterwards."""
        if not self.response.prepared:
            code = ErrorCode.UPSTREAM_TIMEOUT if kind == "overloaded_error" else ErrorCode.UPSTREAM_INVALID
            raise GatewayError(code, message)
        await self._write(self._writer.failure(kind, message))
        await self._close()

    async def keep_alive(self) -> None:
        """Open the response when the gate's time is up, then fill silence with pings where the dialect has one."""
        await asyncio.sleep(GATE_SECONDS)
        await self._open()
        while self._writer.keepalive is not None and not self.gone:
            silent = time.monotonic() - self._last_write
            if silent >= PING_SECONDS:
                await self._write(self._writer.keepalive)
                silent = 0.0
            await asyncio.sleep(PING_SECONDS - silent)

    async def _open(self) -> None:
        async with self._opening:
            if not self.response.prepared and not self.gone:
                try:
                    await self.response.prepare(self._request)
                except (ConnectionError, aiohttp.ClientError):
                    self._lost()

    async def _write(self, data: bytes) -> None:
        if self.gone or not data:
            return
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self.response.write(data)
            self._last_write = time.monotonic()
        except (ConnectionError, aiohttp.ClientError, TimeoutError):
            self._lost()

    async def _close(self) -> None:
        if self.response.prepared and not self.gone:
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self.response.write_eof()
            except (ConnectionError, aiohttp.ClientError, TimeoutError):
                self._lost()

    def _lost(self) -> None:
        self.gone = True
        if self.outcome.client_left is not None:
            self.outcome.client_left()
        if self._request.transport is not None:
            self._request.transport.abort()  # a stalled client must not hold the connection while the upstream drains
        if self.outcome.note == "ok":
            self.outcome.note = "client_gone"
        log.debug("the client is gone; draining the upstream to its usage event")
