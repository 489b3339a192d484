"""Connections to one upstream: kept, reused, and read without an HTTP library in between.

docs/decisions/0009-own-upstream-connections.md says why. A request is sent once: a connection that fails under it is
never tried again from here, because the prompt may have been billed. Redirects are answers like any other, proxies are
not asked, nothing is inflated.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from llmgw_gateway.providers.failures import BrokenError, UnreachableError
from llmgw_gateway.streams.body import Body
from llmgw_gateway.streams.http1 import AnswerError, AnswerParser

if TYPE_CHECKING:
    from llmgw_gateway.streams.http1 import Head

REST_SECONDS: Final = 15.0
"""How long a connection may rest between two requests: shorter than any server or balancer keeps one."""
PIECE: Final = 256 * 1024
"""Bytes of a request that are handed over at once: more would stall the loop while they are copied or encrypted."""
OTHER_FAMILY_SECONDS: Final = 0.25
"""After which the next address is tried beside the first (RFC 8305 section 5)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an upstream is waited for, in seconds."""

    connect: float
    total: float
    """From the request to the last byte of its answer."""
    idle: float | None = None
    """Between two pieces of a body; None: whoever reads it looks after that."""


class Connections:
    """Connections to the host of one base URL. Close it when nothing is asked any more."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self.host = parts.hostname or ""
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        usual = 443 if self._context is not None else 80
        self._port = parts.port or usual
        literal = f"[{self.host}]" if ":" in self.host else self.host
        self.host_header = literal if self._port == usual else f"{literal}:{self._port}"
        self._resting: list[_Connection] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._all: set[_Connection] = set()
        self._loop = asyncio.get_running_loop()

    async def ask(self, head: bytes, body: bytes, patience: Patience, head_by: float) -> Answer:
        """Send a request and wait for the head of its answer until `head_by`, on the loop's clock.

        UnreachableError when nothing was sent, BrokenError for what is no answer, TimeoutError when none came in time.
        """
        connection = self._rested()
        if connection is None:
            connection = await self._connect(min(patience.connect, head_by - self._loop.time()))
            if not connection.usable:  # closed with the last bytes of its handshake
                raise UnreachableError("the upstream hung up")
        return await connection.ask(head, body, patience, head_by)

    @property
    def resting(self) -> int:
        """How many connections wait for their next request."""
        return len(self._resting)

    def close(self) -> None:
        """Close every connection, in use or not."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._all):
            connection.fail(BrokenError("the gateway has closed it"))

    def _rested(self) -> _Connection | None:
        """The connection that was used last and is still good."""
        oldest = self._loop.time() - REST_SECONDS
        while self._resting:
            connection = self._resting.pop()
            if connection.rested_since >= oldest and connection.usable:
                return connection
            connection.abort()
        return None

    async def _connect(self, seconds: float) -> _Connection:
        try:
            async with asyncio.timeout(seconds):
                found = await self._loop.getaddrinfo(self.host, self._port, type=socket.SOCK_STREAM)
                sock = await start_connection(
                    found, happy_eyeballs_delay=OTHER_FAMILY_SECONDS, interleave=1, loop=self._loop
                )
                try:
                    _, made = await self._loop.create_connection(
                        lambda: cast("asyncio.Protocol", _Connection(self, self._loop)),
                        sock=sock,
                        ssl=self._context,
                        server_hostname=self.host if self._context is not None else None,
                    )
                except BaseException:
                    sock.close()
                    raise
        except OSError as error:  # refused, unknown, not trusted, too late
            raise UnreachableError(type(error).__name__) from error
        return cast("_Connection", made)

    def rest(self, connection: _Connection) -> None:
        """Take back a connection whose answer has ended well."""
        self._resting.append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(REST_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has rested for too long."""
        self._sweeping = None
        oldest = self._loop.time() - REST_SECONDS
        for connection in [each for each in self._resting if each.rested_since <= oldest]:
            connection.abort()
        self._resting = [each for each in self._resting if each.rested_since > oldest]
        if self._resting:
            wait = self._resting[0].rested_since - oldest
            self._sweeping = self._loop.call_later(wait, self._sweep)

    def opened(self, connection: _Connection) -> None:
        """Count a connection in."""
        self._all.add(connection)

    def closed(self, connection: _Connection) -> None:
        """Count it out."""
        self._all.discard(connection)
        with contextlib.suppress(ValueError):
            self._resting.remove(connection)


class Answer:
    """An answer whose head is here, and whose body is on its way. Leave it with `release`, read to its end or not."""

    __slots__ = ("_connection", "body", "headers", "status")

    def __init__(self, connection: _Connection, head: Head, body: Body) -> None:
        self._connection = connection
        self.status = head.status
        self.headers = head.headers
        """By lower-case name."""
        self.body = body

    def release(self) -> None:
        """Read no more: a connection in the middle of an answer is of no use."""
        self._connection.leave(self.body)


class _Connection:
    """One connection, an asyncio.Protocol: one request at a time. It is its body's source, and pauses with it."""

    __slots__ = (
        "_began",
        "_body",
        "_drained",
        "_head",
        "_head_by",
        "_last",
        "_loop",
        "_parser",
        "_patience",
        "_pool",
        "_timer",
        "_timer_at",
        "_transport",
        "_whole",
        "rested_since",
    )

    def __init__(self, pool: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: AnswerParser | None = None
        """None while nothing is asked."""
        self._body: Body | None = None
        self._head: asyncio.Future[Head] | None = None
        self._drained: asyncio.Future[None] | None = None
        """Set while the upstream takes no more of a request."""
        self._timer: asyncio.TimerHandle | None = None
        """Looks at the clock. It outlives answers: to move it for each would cost more than to let it look in vain."""
        self._timer_at = 0.0
        self._patience: Patience | None = None
        self._whole = False
        """Whether all of the request was handed over."""
        self._began = self._head_by = self._last = self.rested_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def _sent(self) -> bool:
        """Whether that is so and nothing waits to leave: an upstream that answers early may not read on."""
        return self._transport is not None and self.usable and not self._transport.get_write_buffer_size()

    async def ask(self, head: bytes, body: bytes, patience: Patience, head_by: float) -> Answer:
        """Send a request and wait for the head of the answer; the errors are those of `Connections.ask`."""
        self._patience = patience
        self._parser = AnswerParser()
        answer = self._body = Body(self)
        waiting = self._head = self._loop.create_future()
        self._whole = False
        self._began = self._loop.time()
        self._head_by = head_by
        self._watch(head_by)
        try:
            if len(body) <= PIECE:
                self._write(head + body)
                self._whole = True
            else:
                self._whole = await self._write_in_pieces(head, body)
            return Answer(self, await waiting, answer)
        except BaseException:
            self.leave(answer)  # it may have been answered whole meanwhile, and be another request's connection
            raise

    def leave(self, body: Body) -> None:
        """Give up an answer that has not ended; one that has is none of this connection's business any more."""
        if self._body is body:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._stop_timer()
        self._parser = self._body = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer."""
        parser, body = self._parser, self._body
        if parser is None or body is None:
            self.abort()  # nothing was asked
            return
        try:
            found = parser.feed(data)
        except AnswerError as error:
            self.fail(BrokenError(str(error)))
            return
        if self._patience is not None and self._patience.idle is not None:
            self._last = self._loop.time()
        if self._head is not None and parser.head is not None:
            self._opened(parser.head)
        if found:
            body.feed(found)
        if parser.ended:
            self._end(body, reusable=parser.reusable)

    def eof_received(self) -> bool:
        """Nothing more comes: the end of some answers, and the middle of others."""
        parser, body = self._parser, self._body
        if parser is not None and body is not None:
            try:
                parser.finish()
            except AnswerError as error:
                self.fail(BrokenError(str(error)))
            else:
                self._end(body, reusable=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, with what was asked on it."""
        self._pool.closed(self)
        self._transport = None
        self._stop_timer()
        self.resume_writing()
        if self._parser is not None:
            self.fail(BrokenError(type(exc).__name__ if exc is not None else "the upstream hung up"))

    def pause_writing(self) -> None:
        """The upstream takes no more of the request for now."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """It does again."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None:  # who has lost it hears of it through the head
            self._transport.write(data)

    async def _write_in_pieces(self, head: bytes, body: bytes) -> bool:
        """A large request; one that is answered meanwhile is not sent to its end. Whether all of it has left."""
        self._write(head)
        view = memoryview(body)
        for start in range(0, len(body), PIECE):
            self._write(view[start : start + PIECE])
            if self._drained is not None:
                await self._drained
            else:
                await asyncio.sleep(0)
            if self._head is None:
                return False
        return True

    def _opened(self, head: Head) -> None:
        """The head is here: from now on the body is waited for."""
        waiting, self._head = self._head, None
        if waiting is None or waiting.done():
            return
        self._watch(self._due())
        waiting.set_result(head)

    def _due(self) -> float:
        """When the time is up for what is waited for now: the head, or the rest of the body."""
        patience = self._patience
        if self._head is not None or patience is None:
            return self._head_by
        due = self._began + patience.total
        return due if patience.idle is None else min(due, self._last + patience.idle)

    def _watch(self, due: float) -> None:
        """Look at the clock then, or before."""
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(due, self._look), due

    def _look(self) -> None:
        self._timer = None
        if self._body is None:
            return
        due = self._due()
        if self._loop.time() >= due:
            self.fail(TimeoutError())
        else:
            self._watch(due)

    def _end(self, body: Body, *, reusable: bool) -> None:
        """The answer is whole."""
        self._parser = self._body = None
        body.finish()
        if reusable and self._whole and self._sent:
            self.rested_since = self._loop.time()
            self._pool.rest(self)
        elif self._transport is not None:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, and close."""
        body, waiting = self._body, self._head
        self._head = None
        self.abort()
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        elif body is not None:
            body.fail(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
