"""One connection of a client: aiohttp's parser and server, with our limits, our words, and less around a request.

docs/decisions/0017-requests-in-one-task.md says what is taken over from aiohttp and why; a test fails when that
changes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web
from aiohttp.http import StreamWriter
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import ERROR, PayloadAccessError, _ErrInfo

from llmgw_gateway.observe.audit import new_request_id
from llmgw_gateway.streams import heads
from llmgw_gateway.streams.responses import Whole
from llmgw_wire import headers
from llmgw_wire.errors import ErrorCode, anthropic_body

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

    from llmgw_gateway.listener import Doorkeeper, Handler

MOST_JOINED = 64 * 1024
"""Bytes of a body that are copied to leave with their head in one write."""
TOO_LARGE: Final = "Too many headers received"
"""How aiohttp names the one limit that has no exception of its own."""
_READ_TOO_LATE: Final = PayloadAccessError()
log = logging.getLogger("llmgw.http")


class Connection(web.RequestHandler):
    """One connection. What cannot be parsed gets our envelope, and neither its bytes nor our software are told."""

    __slots__ = ("_admitted", "_answered", "_clock", "_doorkeeper", "address")

    def __init__(self, manager: Doorkeeper, **more: object) -> None:
        super().__init__(manager, **more)  # type: ignore[arg-type]  # what they are is aiohttp's business
        self._doorkeeper = manager
        self._admitted = False
        self._answered = 0
        """Requests, of those whose heads are here. aiohttp counts these, in what follows an upgrade, too."""
        self._clock: asyncio.TimerHandle | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a client in, or close at once when there are too many."""
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._admitted = self._doorkeeper.admit(self.address)
        super().connection_made(transport)
        if self._admitted:
            self._start_clock()
        else:
            cast("asyncio.Transport", transport).abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it out."""
        self._stop_clock()
        if self._admitted:
            self._admitted = False
            self._doorkeeper.leave(self.address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read; a head that has begun has to be whole in time, dripping or not."""
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            self._stop_clock()
        elif data and self._request_count == self._answered and self._clock is None:
            self._start_clock()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 -- aiohttp's own
        """Read on after a pause. aiohttp asks for it after each read, too, when nothing was paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def start(self) -> None:
        """Serve requests, one after another, all in this task: aiohttp makes a task of each for its context variables.

        Otherwise it does what aiohttp's does, without access logs.
        """
        server, loop = self._doorkeeper, self._loop
        while not self._force_close:
            if not self._messages:
                self._waiter = loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, payload = self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            server.requests_count += 1
            handler = server.request_handler
            if isinstance(message, _ErrInfo):
                handler, message = self._make_error_handler(message), ERROR
            task = self._task_handler or asyncio.current_task(loop)
            request = web.BaseRequest(message, payload, self, StreamWriter(self, loop), task, loop)  # type: ignore[arg-type]  # runs in one
            if not await self._served(request, payload, handler):
                break
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _served(self, request: web.BaseRequest, payload: StreamReader, handler: Handler) -> bool:
        """Serve one request; whether another one may come."""
        try:
            response, lost = await self._handle_request(request, None, handler)
            if lost:
                return False
            self._keepalive = bool(response.keep_alive)
            if not payload.is_eof():
                await self._linger(payload)
            payload.set_exception(_READ_TOO_LATE)
        except ConnectionError:
            return False
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as error:  # noqa: BLE001 -- whatever it is ends this connection, and no other
            self.log_exception("Unhandled exception", exc_info=error)
            self.force_close()
        except BaseException:
            self.force_close()
            raise
        finally:
            request._task = None  # type: ignore[assignment]  # noqa: SLF001 -- the two know each other
        if not self._keepalive or self._close or self._force_close:
            return False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        return True

    async def _linger(self, payload: StreamReader) -> None:
        """Read the rest of a body that was not wanted for a while, so that its client reads the answer first."""
        if not self._force_close and self._lingering_time:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lingering_time):
                    while not payload.is_eof():
                        await payload.readany()
        if not payload.is_eof() and not self._force_close:
            self.close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer; what comes from now on is another head. ConnectionError when another answer has begun."""
        try:
            if request.writer.output_size > 0 and not resp.prepared:
                raise ConnectionError("the head of another answer has left already")
            if type(resp) is Whole or type(resp) is web.Response:
                if not self._upgraded and isinstance(resp.body, bytes):
                    return resp, not await self._answer(request, resp, resp.body)
                if type(resp) is Whole:
                    resp = resp.usual()
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1

    async def _answer(self, request: web.BaseRequest, response: web.StreamResponse, body: bytes) -> bool:
        """Write an answer that is whole, head and body at once; whether somebody is there to take it.

        aiohttp would do the same in steps, which cost four times as much.
        """
        if response.keep_alive is None and not request.keep_alive:
            response.force_close()
        stays = response.keep_alive is not False
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        head = heads.head(request, response.status, response.headers, len(body), keep_alive=stays)
        if request.method == "HEAD":
            transport.write(head)
        elif len(body) <= MOST_JOINED:
            transport.write(head + body)
        else:
            transport.writelines([head, body])
        response._keep_alive = stays  # noqa: SLF001 -- what aiohttp's own answer sets
        return await self._taken(request, len(body)) if self.writing_paused else True

    async def _taken(self, request: web.BaseRequest, size: int) -> bool:
        """Wait for a client that reads slowly; False when it took too long, or too much memory with others."""
        bounds = self._doorkeeper.bounds
        self._doorkeeper.keep(self, size)
        try:
            async with asyncio.timeout(bounds.stall_seconds() + size / bounds.least_pace):
                await request.writer.drain()
        except (TimeoutError, ConnectionError):
            self.abort()
            return False
        finally:
            self._doorkeeper.let_go(self)
        return True

    def abort(self) -> None:
        """Close at once, and drop what was not taken."""
        if self.transport is not None:
            self.transport.abort()

    def _start_clock(self) -> None:
        self._clock = self._loop.call_later(self._doorkeeper.bounds.head_seconds, self._too_slow)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_slow(self) -> None:
        self._clock = None
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- it quotes the client's bytes
    ) -> web.StreamResponse:
        """Answer a request that is no HTTP (RFC 9112 section 2.2), or one whose handler failed."""
        if request.writer.output_size > 0:
            raise ConnectionError("the head of another answer has left already")
        if isinstance(exc, LineTooLong) or (isinstance(exc, BadHttpMessage) and TOO_LARGE in exc.message):
            code, text = ErrorCode.HEADERS_TOO_LARGE, "A line of the request's head is too long, or it has too many."
        elif isinstance(exc, BadHttpMessage):
            code, text = ErrorCode.REQUEST_MALFORMED, "The request is not well-formed HTTP/1.1."
        else:
            log.error("a request failed (%s): %s", status, type(exc).__name__)
            code, text = ErrorCode.INTERNAL, "The gateway failed, not your request."
        if code is not ErrorCode.INTERNAL:
            log.info("a malformed request was refused: %s", type(exc).__name__)
        request_id = new_request_id()
        response = web.Response(
            status=code.wire.status,
            body=anthropic_body(code, text, request_id),
            content_type="application/json",
            headers={
                headers.REQUEST_ID: request_id,
                headers.LLMGW_REQUEST_ID: request_id,
                headers.SHOULD_RETRY: "false",
                "server": "llmgw",
            },
        )
        response.force_close()
        return response
