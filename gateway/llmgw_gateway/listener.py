"""Listens: aiohttp's server with our limits, and our own words for what is no HTTP at all."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.observe.audit import new_request_id
from llmgw_gateway.sections.faults import listen_address
from llmgw_gateway.streams import heads
from llmgw_wire import headers
from llmgw_wire.errors import ErrorCode, anthropic_body

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from llmgw_gateway.peers import Peers

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

LINGER_SECONDS = 2
"""How long a refused body may go on before the connection is closed."""
SHUTDOWN_SECONDS = 5
BACKLOG = 1024
MOST_JOINED = 64 * 1024
"""Bytes of a body that are copied to leave with their head in one write."""
TELL_SECONDS = 60.0
"""How often the log says that connections are refused, at most."""
TOO_LARGE: Final = "Too many headers received"
"""How aiohttp names the one limit that has no exception of its own."""
log = logging.getLogger("llmgw.http")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a listener bears from its clients."""

    head_seconds: float = 15
    """For a TLS handshake, and for the head of a request."""
    idle_seconds: float = 75
    """Between two requests."""
    most_connections: int = 1_000
    most_per_address: int = 1_000
    stall_seconds: Callable[[], float] = lambda: 60.0
    """For a client that is slow to take an answer, besides what its size allows at `least_pace`."""
    least_pace: int = 16 * 1024
    """Bytes a second that a client has to take: slower than any link that people work over."""
    most_untaken: int = 256 * 1024 * 1024
    """Bytes of answers that wait for slow clients; beyond it, who has kept one waiting longest is gone."""
    peers: Peers | None = None
    """Who may have more connections than one client: the proxies in front."""
    refused: Callable[[], None] = lambda: None
    """Called for each connection that was one too many."""


async def listen(
    address: str, handler: Handler, bounds: Bounds | None = None, context: ssl.SSLContext | None = None
) -> web.ServerRunner:
    """Serve `handler` at host:port; ConfigurationError when the address cannot be had. `context`: over TLS."""
    host, port = listen_address(address)
    bounds = bounds or Bounds()
    server = _Server(
        handler,
        bounds,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=bounds.idle_seconds,
        lingering_time=LINGER_SECONDS,
        logger=_quiet(log),
    )
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await _Site(runner, host, port, ssl_context=context, backlog=BACKLOG).open(bounds.head_seconds)
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError("server", [listen_fault(address, error)]) from error
    return runner


def redirecting(public_url: str) -> Handler:
    """Send whoever asks over http to the same path over https. What came with a body or a credential came in clear."""

    async def redirect(request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        secret = "authorization" in request.headers or "x-api-key" in request.headers
        if request.method in {"GET", "HEAD"} and target.startswith("/") and not secret:
            headers = {"location": public_url + target, "server": "llmgw"}
            return web.Response(status=308, headers=headers)
        text = f"This is not encrypted. Use {public_url}"
        text += ", and replace the credential that came with this request.\n" if secret else ".\n"
        response = web.Response(status=400, text=text, headers={"server": "llmgw"})
        response.force_close()
        return response

    return redirect


def address_of(request: web.BaseRequest) -> str:
    """The other end of the connection: a client or a proxy; "" when it is not known."""
    return request.protocol.address if isinstance(request.protocol, _Connection) else ""


def listen_fault(address: str, error: OSError) -> str:
    """Why an address cannot be had, and what to do."""
    # asyncio puts a sentence of its own into strerror; a name that cannot be resolved has no errno of the system.
    is_plain = isinstance(error, socket.gaierror) or not error.errno
    why = (str(error.strerror) if is_plain else os.strerror(error.errno or 0)).lower()
    return f"cannot listen on {address}: {why}; stop what listens there, or configure another address"


class _Site(web.TCPSite):
    """A site with a deadline for TLS handshakes; aiohttp's leaves them a minute."""

    async def open(self, handshake_seconds: float) -> None:
        """Begin to listen. OSError when the address cannot be had."""
        await web.BaseSite.start(self)
        self._server = await asyncio.get_running_loop().create_server(
            cast("web.Server", self._runner.server),
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=handshake_seconds if self._ssl_context is not None else None,
        )


class _Server(web.Server):
    """Counts connections."""

    def __init__(self, handler: Handler, bounds: Bounds, **more: object) -> None:
        super().__init__(handler, **more)  # type: ignore[arg-type]  # what they are is aiohttp's business
        self.bounds = bounds
        self.open: Counter[str] = Counter()
        """Connections by address."""
        self._slow: dict[_Connection, int] = {}
        """Who is slow to take an answer, and its size; longest first."""
        self._untaken = 0
        self._told_at = float("-inf")

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def admit(self, address: str) -> bool:
        """Count a connection in; False when it is one too many."""
        bounds = self.bounds
        proxied = bounds.peers is not None and bounds.peers.trusts(address)
        if self.open.total() < bounds.most_connections and (proxied or self.open[address] < bounds.most_per_address):
            self.open[address] += 1
            return True
        bounds.refused()
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            log.warning(
                "connections are refused: %d are open, %d of them by one client", self.open.total(), self.open[address]
            )
        return False

    def keep(self, connection: _Connection, size: int) -> None:
        """Keep an answer for a slow client."""
        self._slow[connection] = size
        self._untaken += size
        while self._untaken > self.bounds.most_untaken and len(self._slow) > 1:
            longest = next(iter(self._slow))
            self.let_go(longest)
            longest.abort()

    def let_go(self, connection: _Connection) -> None:
        """It was taken, or is not kept any more."""
        self._untaken -= self._slow.pop(connection, 0)

    def leave(self, address: str) -> None:
        """Count a connection out."""
        self.open[address] -= 1
        if not self.open[address]:
            del self.open[address]


class _Connection(web.RequestHandler):
    """One connection. What cannot be parsed gets our envelope, and neither its bytes nor our software are told."""

    __slots__ = ("_admitted", "_clock", "_doorkeeper", "_serving", "address")

    def __init__(self, manager: _Server, **more: object) -> None:
        super().__init__(manager, **more)  # type: ignore[arg-type]  # the same
        self._doorkeeper = manager
        self._admitted = False
        self._serving = 0
        """Requests whose heads are here and that are not answered."""
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
            self._serving += self._request_count - heads
            self._stop_clock()
        elif data and not self._serving and self._clock is None:
            self._start_clock()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Answer; what comes from now on is another head."""
        try:
            if type(resp) is web.Response and not self._upgraded and isinstance(resp.body, bytes):
                return resp, not await self._answer(request, resp, resp.body)
            return await super().finish_response(request, resp, start_time)
        finally:
            self._serving -= 1

    async def _answer(self, request: web.BaseRequest, response: web.Response, body: bytes) -> bool:
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


def _quiet(logger: logging.Logger) -> logging.Logger:
    """What aiohttp logs of its own accord may quote a client's line, which may be an Authorization header."""
    logger.filters.clear()
    logger.addFilter(_without_details)
    return logger


def _without_details(record: logging.LogRecord) -> bool:
    if record.exc_info:
        kind = record.exc_info[0]
        record.msg, record.args = "%s: %s", (record.msg, kind.__name__ if kind else "no exception")
    record.exc_info, record.exc_text = None, None
    return True
