"""What `connection.py` takes over from aiohttp's server is what aiohttp's does, and does as much."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.web_protocol import RequestHandler

from llmgw_gateway.connection import Connection
from llmgw_gateway.listener import listen
from llmgw_gateway.streams.responses import Whole
from tests.lab.loopback import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llmgw_gateway.listener import Handler

READ: dict[Callable[..., Any], str] = {
    RequestHandler.start: "2e565fd40c8e",
    RequestHandler._handle_request: "a88a34ee65a2",
    RequestHandler.data_received: "1ee57ebe052e",
    RequestHandler.finish_response: "b7eb53db8f4b",
    RequestHandler.connection_lost: "df2fe6e95fd0",
    RequestHandler.shutdown: "5eb4bd473db6",
    RequestHandler._process_keepalive: "b472e0fb8445",
    BaseProtocol.resume_reading: "21dee847a31a",
}
"""The digests of what was read when `Connection` was written. On another one: read what has changed, and follow."""
HEAD = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{}\r\n"
ASK = HEAD.format(2, "").encode() + b"{}"


@contextlib.asynccontextmanager
async def client(handler: Handler) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a listener of its own."""
    port = free_port()
    runner = await listen(f"{HOST}:{port}", handler)
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await runner.cleanup()


async def answer(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """The status line and the body of one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
    return head.partition("\r\n")[0], await reader.readexactly(length)


def test_aiohttp_is_the_one_that_was_read() -> None:
    found = {each: hashlib.sha256(inspect.getsource(each).encode()).hexdigest()[:12] for each in READ}
    assert found == READ


async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    numbers = iter(range(100))

    async def count(_request: web.BaseRequest) -> web.StreamResponse:
        number = next(numbers)
        await asyncio.sleep(0)
        return Whole(200, f"{number}".encode(), {}) if number % 2 else web.Response(text=f"{number}")

    async with client(count) as (reader, writer):
        writer.write(ASK * 50)  # more than aiohttp parses ahead
        assert [(await answer(reader))[1] for _ in range(50)] == [f"{number}".encode() for number in range(50)]
        writer.write(ASK)
        assert (await answer(reader))[1] == b"50"


async def test_an_offer_to_speak_something_else_is_declined_and_what_follows_is_served() -> None:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return Whole(200, await request.read() if request.method == "POST" else b"got", {"x-a": "b"})

    async with client(serve) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + ASK)
        assert await answer(reader) == ("HTTP/1.1 200 OK", b"got")
        assert await answer(reader) == ("HTTP/1.1 200 OK", b"{}")


async def test_a_body_that_nobody_reads_is_read_before_the_next_request() -> None:
    async def ignore(_request: web.BaseRequest) -> web.StreamResponse:
        return Whole(200, b"read on", {})

    async with client(ignore) as (reader, writer):
        writer.write(HEAD.format(100_000, "").encode() + b"x" * 50_000)
        assert (await answer(reader))[1] == b"read on"
        writer.write(b"x" * 50_000 + ASK)
        assert (await answer(reader))[1] == b"read on"


async def test_a_body_larger_than_what_is_buffered_is_read_whole() -> None:
    async def measure(request: web.BaseRequest) -> web.StreamResponse:
        size = 0
        while chunk := await request.content.readany():
            size += len(chunk)
        return Whole(200, f"{size}".encode(), {})

    async with client(measure) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD.format(5_000_000, "").encode() + b"x" * 5_000_000)
            assert (await answer(reader))[1] == b"5000000"


async def test_a_handler_that_fails_is_answered_for_and_the_connection_closed() -> None:
    async def fail(_request: web.BaseRequest) -> web.StreamResponse:
        raise ValueError

    async with client(fail) as (reader, writer):
        writer.write(ASK + ASK)
        status, body = await answer(reader)
        assert status == "HTTP/1.1 500 Internal Server Error"
        assert b"not your request" in body
        assert await reader.read() == b""


async def test_no_answer_follows_on_the_head_of_another() -> None:
    async def streams(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        request.writer.output_size += 1
        return Whole(500, b"the gateway failed", {})

    async with client(streams) as (reader, writer), asyncio.timeout(30):
        writer.write(ASK + ASK)
        assert await reader.read() == b"HTTP/1.1 200 OK\r\n\r\n"


async def test_a_head_has_its_time_after_requests_that_came_behind_an_offer() -> None:
    serving: list[Connection] = []

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request.protocol, Connection)
        serving.append(request.protocol)
        return Whole(200, b"got", {})

    async with client(serve) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + ASK * 2)
        for _ in range(3):
            assert (await answer(reader))[1] == b"got"
        assert serving[0]._clock is None
        serving[0].data_received(b"GET / HTTP/1.1\r\nHost")
        assert serving[0]._clock is not None


async def test_a_request_that_is_cancelled_ends_its_connection_alone() -> None:
    entered: asyncio.Queue[asyncio.Task[None] | None] = asyncio.Queue()

    async def wait(_request: web.BaseRequest) -> web.StreamResponse:
        await entered.put(asyncio.current_task())
        await asyncio.Event().wait()
        raise AssertionError

    port = free_port()
    runner = await listen(f"{HOST}:{port}", wait)
    one, other = [await asyncio.open_connection(HOST, port) for _ in range(2)]
    for _, writer in (one, other):
        writer.write(ASK)
    first, second = await entered.get(), await entered.get()
    assert first is not None
    assert second is not None
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert not second.done()
    for reader, writer in (one, other):
        del reader
        writer.close()
    second.cancel()
    await runner.cleanup()


async def test_a_task_is_made_for_a_connection_and_none_for_a_request() -> None:
    seen = set()

    async def note(_request: web.BaseRequest) -> web.StreamResponse:
        seen.add(asyncio.current_task())
        return Whole(200, b"", {})

    async with client(note) as (reader, writer):
        for _ in range(3):
            writer.write(ASK)
            await answer(reader)
    assert len(seen) == 1
