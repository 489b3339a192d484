"""Connections to an upstream, against a server that says what the test says, byte for byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiohappyeyeballs import start_connection

from llmgw_gateway.providers import connections
from llmgw_gateway.providers.connections import Connections, Patience
from llmgw_gateway.providers.failures import BrokenError, UnreachableError
from llmgw_gateway.streams.body import MOST_WAITING
from tests.lab.certificates import issue
from tests.lab.loopback import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmgw_gateway.providers.connections import Answer

WATCHDOG = 30
ONE = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none"
ASKED = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
PATIENT = Patience(connect=WATCHDOG, total=WATCHDOG, idle=WATCHDOG)


class Upstream:
    """Answers each read on a connection with the next of `script`; what it has read counts by connection."""

    def __init__(self, *script: bytes, hangs_up: bool = False, once: bool = False) -> None:
        self._script = list(script)
        self._hangs_up = hangs_up
        self._once = once
        """Whether only the first read of a connection is answered."""
        self.read: list[int] = []
        self.open: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = len(self.read)
        self.read.append(0)
        self.open.append(writer)
        try:
            while data := await reader.read(1024 * 1024):
                self.read[place] += len(data)
                if self._script and not (self._once and self.read[place] > len(data)):
                    writer.write(self._script.pop(0))
                    await writer.drain()
                if not self._script and self._hangs_up:
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()


class Asking:
    """An upstream and what asks it."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections

    async def ask(self, body: bytes = b"", patience: Patience = PATIENT, seconds: float = WATCHDOG) -> Answer:
        head_by = asyncio.get_running_loop().time() + seconds
        return await self.connections.ask(ASKED, body, patience, head_by)

    async def whole(self) -> bytes:
        return await rest(await self.ask())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connections.close()


async def rest(answer: Answer) -> bytes:
    body = b""
    async with asyncio.timeout(WATCHDOG):
        while more := await answer.body.readany():
            body += more
    answer.release()
    return body


@asynccontextmanager
async def asking(upstream: Upstream) -> AsyncIterator[Asking]:
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    with Asking(Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as asks:
        yield asks
    for writer in upstream.open:
        writer.transport.abort()
    server.close()
    await server.wait_closed()


async def test_a_connection_is_used_for_one_request_after_the_other() -> None:
    upstream = Upstream(ONE, ONE, ONE)
    async with asking(upstream) as asks:
        for _ in range(3):
            assert await asks.whole() == b"one"
    assert len(upstream.read) == 1


async def test_requests_at_the_same_time_have_a_connection_each() -> None:
    upstream = Upstream(BEGUN, BEGUN)
    async with asking(upstream) as asks:
        answers = [await asks.ask(), await asks.ask()]
        assert [await answer.body.readany() for answer in answers] == [b"one", b"one"]
    assert len(upstream.read) == 2


@pytest.mark.parametrize(
    "first",
    [
        BEGUN,
        ONE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        ONE + b"more",
        ONE + ONE,
    ],
    ids=["left in the middle", "said so", "more than was said", "two answers"],
)
async def test_a_connection_whose_answer_did_not_end_as_it_should_is_not_used_again(first: bytes) -> None:
    upstream = Upstream(first, ONE)
    async with asking(upstream) as asks:
        answer = await asks.ask()
        assert await answer.body.readany() == b"one"
        answer.release()
        assert await asks.whole() == b"one"
    assert len(upstream.read) == 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n"], ids=["nothing", "a line", "lines"])
async def test_what_breaks_before_the_head_is_not_asked_again(said: bytes) -> None:
    upstream = Upstream(said, hangs_up=True)
    async with asking(upstream) as asks:
        with pytest.raises(BrokenError):
            await asks.ask()
    assert len(upstream.read) == 1


async def test_a_kept_connection_that_breaks_under_a_request_is_not_replaced() -> None:
    upstream = Upstream(ONE, b"", hangs_up=True)
    async with asking(upstream) as asks:
        assert await asks.whole() == b"one"
        with pytest.raises(BrokenError):
            await asks.ask()
    assert len(upstream.read) == 1


async def test_a_connection_that_was_closed_while_it_rested_is_not_used() -> None:
    upstream = Upstream(ONE, hangs_up=True)
    async with asking(upstream) as asks:
        assert await asks.whole() == b"one"
        async with asyncio.timeout(WATCHDOG):
            while asks.connections.resting:  # noqa: ASYNC110 -- what sockets do has no event
                await asyncio.sleep(0)
        upstream._script = [ONE]
        assert await asks.whole() == b"one"
    assert len(upstream.read) == 2


async def test_a_body_that_breaks_off_is_read_as_far_as_it_came() -> None:
    async with asking(Upstream(BEGUN, hangs_up=True)) as asks:
        answer = await asks.ask()
        assert await answer.body.readany() == b"one"
        with pytest.raises(BrokenError):
            await answer.body.readany()


async def test_no_head_in_time() -> None:
    async with asking(Upstream()) as asks:
        with pytest.raises(TimeoutError):
            await asks.ask(seconds=0.05)


@pytest.mark.parametrize(
    "patience",
    [Patience(WATCHDOG, total=0.05), Patience(WATCHDOG, total=WATCHDOG, idle=0.05)],
    ids=["in all", "silence"],
)
async def test_a_body_that_does_not_go_on(patience: Patience) -> None:
    async with asking(Upstream(BEGUN)) as asks:
        answer = await asks.ask(patience=patience)
        assert await answer.body.readany() == b"one"
        with pytest.raises(TimeoutError):
            await answer.body.readany()


async def test_where_nobody_listens_nothing_is_sent() -> None:
    with Asking(Connections(f"http://127.0.0.1:{free_port()}")) as asks, pytest.raises(UnreachableError):
        await asks.ask()


async def test_where_a_connection_ends_as_soon_as_it_is_made_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(ONE)
    async with asking(upstream) as asks:
        connect = asks.connections._connect

        async def lost(seconds: float) -> Any:
            connection = await connect(seconds)
            connection.abort()
            return connection

        monkeypatch.setattr(asks.connections, "_connect", lost)
        with pytest.raises(UnreachableError):
            await asks.ask()


async def test_a_large_request_whose_answer_comes_first_is_not_sent_to_its_end() -> None:
    size = 16 * 1024 * 1024
    upstream = Upstream(ONE, ONE, once=True)
    async with asking(upstream) as asks:
        assert await rest(await asks.ask(b"x" * size)) == b"one"
        assert await asks.whole() == b"one"
    assert len(upstream.read) == 2, "a connection with half a request in it was used again"
    assert upstream.read[0] < size


async def test_a_reader_that_does_not_keep_up_pauses_the_upstream() -> None:
    size = 16 * 1024 * 1024
    upstream = Upstream(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    async with asking(upstream) as asks:
        answer = await asks.ask()
        async with asyncio.timeout(WATCHDOG):
            while not answer.body.paused:  # noqa: ASYNC110 -- the same
                await asyncio.sleep(0)
        assert len(await answer.body.readany()) < size
        assert await rest(answer)
        assert not answer.body.paused


async def test_whoever_reads_slowly_keeps_nobody_else_from_the_connection() -> None:
    """The last byte is what makes the upstream pause: the answer has ended, and nobody has read it."""
    size = MOST_WAITING + 1
    upstream = Upstream(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size, ONE)
    async with asking(upstream) as asks:
        slow = await asks.ask()
        async with asyncio.timeout(WATCHDOG):
            while not asks.connections.resting:  # noqa: ASYNC110 -- what sockets do has no event
                await asyncio.sleep(0)
        assert slow.body.paused
        assert await asks.whole() == b"one"
        assert len(await rest(slow)) == size
    assert len(upstream.read) == 1


async def test_who_is_cancelled_once_the_answer_is_whole_takes_no_connection_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upstream = Upstream(ONE, ONE)
    async with asking(upstream) as asks:
        task = asyncio.create_task(asks.ask())
        rests = asks.connections.rest

        def cancelled(connection: Any) -> None:
            rests(connection)
            task.cancel()

        monkeypatch.setattr(asks.connections, "rest", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.undo()
        assert await asks.whole() == b"one"
    assert len(upstream.read) == 1


async def test_what_came_unasked_closes_a_resting_connection() -> None:
    upstream = Upstream(ONE, ONE)
    async with asking(upstream) as asks:
        assert await asks.whole() == b"one"
        upstream.open[0].write(ONE)
        async with asyncio.timeout(WATCHDOG):
            while asks.connections.resting:  # noqa: ASYNC110 -- the same
                await asyncio.sleep(0)
        assert await asks.whole() == b"one"
    assert len(upstream.read) == 2


@pytest.mark.parametrize("known", [True, False])
async def test_the_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool) -> None:
    files = issue(tmp_path)
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    upstream = Upstream(ONE)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    with Asking(Connections(f"https://localhost:{port}")) as asks:
        if known:
            assert await asks.whole() == b"one"
        else:
            with pytest.raises(UnreachableError):
                await asks.ask()
    assert upstream.read == ([len(ASKED)] if known else [])
    for writer in upstream.open:
        writer.transport.abort()
    server.close()
    await server.wait_closed()


async def test_a_connection_that_still_has_to_send_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer came before the upstream had read the request: it may hang up, and the next prompt would break."""

    async def small(*given: Any, **named: Any) -> socket.socket:
        sock = await start_connection(*given, **named)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sock

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(ONE)
        await over.wait()
        writer.transport.abort()

    over = asyncio.Event()
    monkeypatch.setattr(connections, "start_connection", small)
    server = await asyncio.start_server(hasty, "127.0.0.1", 0, limit=1024)
    with Asking(Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as asks:
        assert await rest(await asks.ask(b"x" * connections.PIECE)) == b"one"
        assert asks.connections.resting == 0
    over.set()
    server.close()
    await server.wait_closed()


async def test_whoever_waits_when_all_is_closed_hears_of_it() -> None:
    upstream = Upstream(BEGUN)
    async with asking(upstream) as asks, asyncio.timeout(WATCHDOG):
        answer = await asks.ask()
        assert await answer.body.readany() == b"one"
        reading = asyncio.create_task(answer.body.readany())
        waiting = asyncio.create_task(asks.ask())
        while len(upstream.read) < 2 or not upstream.read[1]:  # noqa: ASYNC110 -- it counts, and tells nobody
            await asyncio.sleep(0)
        asks.connections.close()
        done = await asyncio.gather(reading, waiting, return_exceptions=True)
    assert [type(each) for each in done] == [BrokenError, BrokenError]


async def test_connections_that_have_rested_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmgw_gateway.providers.connections.REST_SECONDS", 0.05)
    upstream = Upstream(ONE)
    async with asking(upstream) as asks:
        assert await asks.whole() == b"one"
        async with asyncio.timeout(WATCHDOG):
            while asks.connections.resting:  # noqa: ASYNC110 -- the same
                await asyncio.sleep(0)
