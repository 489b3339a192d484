"""One streamed answer on its way to its client: what is written, what ends it, and whether anybody is there."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Literal, Protocol

import aiohttp

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.eventstream import EventStreamError, FrameParser
from llmgw_gateway.streams.heads import Framing
from llmgw_gateway.streams.limits import Timers
from llmgw_gateway.streams.presence import gone
from llmgw_gateway.streams.refusals import FAILED_AT_WORK, StreamRefused, error_type, status_of
from llmgw_gateway.streams.sse import EventParser
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aiohttp import web

    from llmgw_gateway.call import Outcome
    from llmgw_gateway.streams.body import Body
    from llmgw_gateway.streams.frames import Frame
    from llmgw_gateway.streams.limits import Limits
    from llmgw_gateway.streams.meter import Meter

log: Final = logging.getLogger("llmgw.relay")
Parser = FrameParser | EventParser
"""What cuts the provider's bytes into frames."""
_now: Final = time.monotonic
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
        inner: Callable[[Frame], bytes | None],
        headers: Mapping[str, str],
        meter: Meter,
        outcome: Outcome,
        session: str,
        limits: Limits,
        dispatched_at: float,
        leaves: Callable[[Answer], None],
        opens: Callable[[], None],
        parser: Parser,
    ) -> None:
        self.outcome = outcome
        self.session = session
        self.gone = False
        self.framing = Framing(request, {**headers, "content-type": writer.content_type, "cache-control": "no-cache"})
        self.timers = Timers(limits, dispatched_at, _now(), pings=writer.keepalive is not None)
        self.stopped: Stop | None = None
        self._request = request
        self._protocol = request.protocol
        self._writer = writer
        self._inner = inner
        self._meter = meter
        self._limits = limits
        self._leaves = leaves
        self._opens = opens
        self._parser = parser
        self._loop = asyncio.get_running_loop()
        self._read: asyncio.Future[None] = self._loop.create_future()
        """Done when the provider is not read any further."""
        self._body: Body | None = None
        self._drained = 0
        """Bytes read without the client."""
        self._over = False
        """Whether the provider has ended its answer with an error event."""
        self._ended = False
        self._watching: asyncio.TimerHandle | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._stalled: asyncio.Task[None] | None = None
        """Waits for a client that takes nothing at the moment."""

    async def read(self, body: Body) -> None:
        """Read the provider to the end of its body, or to a reason not to; everything is passed on meanwhile.

        Bytes are taken where they arrive, without a task or a future for each: see `_take`. EventStreamError,
        TimeoutError (`stopped` says why), ClientError, and StreamRefused when the first event is a failure.
        """
        self._body = body
        body.deliver(self._take, self._no_more)
        self._watch()
        await self._read

    def close(self) -> None:
        """Stop every timer, and let go of what knows this answer: nothing is left for a collector to find."""
        for timer in (self._watching, self._giving_up):
            if timer is not None:
                timer.cancel()
        self._watching = self._giving_up = None
        self._finish(None)
        if self._body is not None:
            self._body.forget()
            self._body = None
        if self._stalled is not None:
            self._stalled.cancel()

    async def flushed(self) -> None:
        """Wait until what was written last has been taken, or the client is given up."""
        if self._stalled is not None:
            await self._stalled

    def _take(self, data: bytes) -> None:
        """Everything that happens to the bytes of one read: one look at their frames, one write."""
        if self._read.done():
            return
        now = _now()
        try:
            frames = self._parser.feed(data)
            if frames:
                self._pass_on(self._parser.taken, frames, now)
        except Exception as error:  # noqa: BLE001 -- told to whoever waits in `read`
            self._finish(error)
            return
        if self._over:
            self._finish(None)
        elif self.gone:
            self._drained += len(data)
            if self._drained > self._limits.drain_bytes:
                self.outcome.note = "drain_capped"
                self.stopped = "drain"
                self._finish(None)
        if self._stalled is None:
            self.timers.waiting_since = now

    def _no_more(self, error: BaseException | None) -> None:
        """The provider's body has ended, or broken off."""
        if error is None:
            try:
                self._parser.finish()
            except EventStreamError as fault:
                error = fault
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        if self._read.done():
            return
        if error is None:
            self._read.set_result(None)
        else:
            self._read.set_exception(error)

    def _pass_on(self, raw: bytes, frames: list[Frame], now: float) -> None:
        """Meter the frames of one read and write them in the client's dialect.

        StreamRefused when the first of them is a failure and nothing was sent yet.
        """
        events: list[tuple[str, bytes]] = []
        # Nothing comes after an exception.
        broken = frames[-1] if self._parser.ended and frames[-1].exception else None
        error: bytes | None = None
        inner, meter, outcome = self._inner, self._meter, self.outcome
        only_pieces = True
        for frame in frames:
            data = inner(frame) if frame is not broken else None
            if data is not None:
                kind = meter.event(data)
                events.append((kind, data))
                only_pieces = only_pieces and kind == "content_block_delta"
                if kind == "error":
                    error = data
        # At once: the hold of a running attempt is topped up by what was seen of it.
        outcome.pieces = meter.pieces
        if not only_pieces:
            outcome.usage, outcome.completeness = meter.usage, meter.completeness
        if broken is not None or error is not None:
            self._over = True
            self._failed(broken, error, alone=len(frames) == 1)
        self.timers.begun = True
        data = self._writer.write(raw, events, broken)
        if not self.timers.opened:
            self.open(data)
        elif data and not self._ended:
            self._send(self.framing.framed(data), now)

    def _failed(self, broken: Frame | None, error: bytes | None, *, alone: bool) -> None:
        """The provider has ended the answer with an error."""
        name = error_type(error) if error is not None else (broken.exception if broken is not None else "")
        self.outcome.note = f"upstream_{name}"
        # Refused before it began: nothing is charged, whether or not the head had to leave meanwhile.
        worked = self._meter.started or self._meter.pieces or status_of(name or "") in FAILED_AT_WORK
        self.outcome.refused_upstream = not worked
        if alone and not self.timers.begun and not self.framing.opened:
            raise StreamRefused.by_frame(broken) if broken is not None else StreamRefused.by_event(error or b"")

    def end(self) -> None:
        """The upstream ended its body: properly, or before the last event."""
        if not self._meter.stopped and self.outcome.note in {"ok", "client_gone"}:
            self.outcome.note = "upstream_truncated"
            self.fail("api_error", "The provider ended the stream before the answer was complete.")
        else:
            self._end()

    async def revoke(self) -> None:
        """End the client's part, also before the head; the upstream is drained like after a client that left."""
        if self._ended or self.gone:
            return
        self.outcome.note = "revoked"
        self.open()
        self._end(self._writer.failure("authentication_error", "This session was ended. Run: llmgw login"))
        await self.flushed()
        self._leave()
        if self._request.transport is not None:
            self._request.transport.close()  # what is written leaves first

    def fail(self, kind: str, message: str) -> None:
        """Tell the client, in its dialect: as a status while the head is unsent, as a terminal event afterwards."""
        if not self.framing.opened:
            code = ErrorCode.UPSTREAM_TIMEOUT if kind == "overloaded_error" else ErrorCode.UPSTREAM_INVALID
            raise GatewayError(code, message)
        self._end(self._writer.failure(kind, message))

    def stop(self, why: Stop, seconds: float = 0) -> None:
        """Read no more of the provider after so many seconds."""
        if self._read.done():
            return
        self.stopped = why
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._giving_up = self._loop.call_later(seconds, self._finish, TimeoutError())

    def _watch(self) -> None:
        """Do what is due while the provider is silent: open the head, send pings, give up; notice a client that left.

        One timer for each answer, set from one thing that is due to the next.
        """
        if gone(self._request):
            self._lost()
        wait = self._limits.ping_seconds
        while not self.gone and (due := self.timers.next()) is not None:
            left = due[0] - _now()
            if left > 0:
                wait = min(left, wait)
                break
            if due[1] == "open":
                self.open()
            elif due[1] == "ping":
                self._ping()
            else:
                self.stop(due[1])
                return
        if not self.gone:
            self._watching = self._loop.call_later(wait, self._watch)

    def _ping(self) -> None:
        """Tell the client that its answer is still waited for."""
        now = self.timers.written_at = _now()
        if not self._ended and self._writer.keepalive is not None:
            self._send(self.framing.framed(self._writer.keepalive), now)

    def open(self, first: bytes = b"") -> None:
        """Send the head, once, with what comes first in the same write."""
        if self.timers.opened:
            return
        self.timers.opened = True
        self._opens()
        if not self.gone:
            head = self.framing.opening()
            self._request.writer.output_size += len(head)  # aiohttp's own answers come only before it
            self._send(head + self.framing.framed(first), _now())

    def _end(self, last: bytes = b"") -> None:
        """Write what ends the answer. Whoever comes first ends it, and nothing is written after that."""
        if not self._ended and self.framing.opened:
            self._ended = True
            self._send(self.framing.framed(last, last=True), _now())

    def _send(self, data: bytes, now: float) -> None:
        """Write bytes. A client that does not take them in time is gone; meanwhile nothing more is read for it."""
        if self.gone:
            return
        protocol = self._protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            self._lost()
            return
        transport.write(data)
        self.timers.written_at = now
        # Not its property `writing_paused`: that is a call into the interpreter, for each piece.
        if protocol._paused and self._stalled is None:  # noqa: SLF001
            self.timers.waiting_since = None
            if self._body is not None:
                self._body.hold()
            self._stalled = self._loop.create_task(self._until_taken(), name="stalled")

    async def _until_taken(self) -> None:
        """Wait for a client that has to catch up."""
        try:
            async with asyncio.timeout(self._limits.stall_seconds):
                await self._request.writer.drain()
        except (ConnectionError, aiohttp.ClientError, TimeoutError):
            self._lost()
        finally:
            self._stalled = None
        self.timers.waiting_since = _now()
        if self._body is not None:
            self._body.go_on()

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
