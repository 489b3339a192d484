"""Listens: aiohttp's server with our limits on connections, time and addresses."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from aiohttp import web

from llmgw_gateway.connection import Connection
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.sections.faults import listen_address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from llmgw_gateway.peers import Peers

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

LINGER_SECONDS = 2
"""How long a refused body may go on before the connection is closed."""
SHUTDOWN_SECONDS = 5
BACKLOG = 1024
TELL_SECONDS = 60.0
"""How often the log says that connections are refused, at most."""
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
    server = Doorkeeper(
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
    return request.protocol.address if isinstance(request.protocol, Connection) else ""


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


class Doorkeeper(web.Server):
    """Counts connections."""

    def __init__(self, handler: Handler, bounds: Bounds, **more: object) -> None:
        super().__init__(handler, **more)  # type: ignore[arg-type]  # what they are is aiohttp's business
        self.bounds = bounds
        self.open: Counter[str] = Counter()
        """Connections by address."""
        self._slow: dict[Connection, int] = {}
        """Who is slow to take an answer, and its size; longest first."""
        self._untaken = 0
        self._told_at = float("-inf")

    def __call__(self) -> web.RequestHandler:
        """One more connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

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

    def keep(self, connection: Connection, size: int) -> None:
        """Keep an answer for a slow client."""
        self._slow[connection] = size
        self._untaken += size
        while self._untaken > self.bounds.most_untaken and len(self._slow) > 1:
            longest = next(iter(self._slow))
            self.let_go(longest)
            longest.abort()

    def let_go(self, connection: Connection) -> None:
        """It was taken, or is not kept any more."""
        self._untaken -= self._slow.pop(connection, 0)

    def leave(self, address: str) -> None:
        """Count a connection out."""
        self.open[address] -= 1
        if not self.open[address]:
            del self.open[address]


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
