"""Listens: aiohttp's server with our limits, and our own words for what is no HTTP at all."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.faults import listen_address
from llmgw_gateway.observe.audit import new_request_id
from llmgw_wire import headers
from llmgw_wire.errors import ErrorCode, anthropic_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

KEEPALIVE_SECONDS = 75
LINGER_SECONDS = 2
"""How long a refused body may go on before the connection is closed."""
SHUTDOWN_SECONDS = 5
TOO_LARGE: Final = "Too many headers received"
"""How aiohttp names the one limit that has no exception of its own."""
log = logging.getLogger("llmgw.http")


async def listen(address: str, handler: Handler) -> web.ServerRunner:
    """Serve `handler` at host:port; ConfigurationError when the address cannot be had."""
    host, port = listen_address(address)
    server = _Server(
        handler,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE_SECONDS,
        lingering_time=LINGER_SECONDS,
        logger=_quiet(log),
    )
    runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError("server", [listen_fault(address, error)]) from error
    return runner


def listen_fault(address: str, error: OSError) -> str:
    """Why an address cannot be had, and what to do."""
    # asyncio puts a sentence of its own into strerror; a name that cannot be resolved has no errno of the system.
    is_plain = isinstance(error, socket.gaierror) or not error.errno
    why = (str(error.strerror) if is_plain else os.strerror(error.errno or 0)).lower()
    return f"cannot listen on {address}: {why}; stop what listens there, or configure another address"


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """One connection. What cannot be parsed gets our envelope, and neither its bytes nor our software are told."""

    __slots__ = ()

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
