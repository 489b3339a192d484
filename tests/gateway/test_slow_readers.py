"""Answers in one piece to clients that are slow to take them: neither for ever, nor more than fits into memory."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from llmgw_gateway.listener import Bounds, listen
from tests.lab.loopback import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WATCHDOG = 30
SIZE = 16 * 1024 * 1024
"""More than the system takes of it for a client that does not read."""
FAST = 1 << 40
PATIENT = 1 << 20
"""A pace for which time is no matter: 16 seconds on top of WATCHDOG."""


async def large(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=bytes(SIZE))


class Server:
    """A listener, and clients that do not read further than to the status of an answer."""

    def __init__(self, runner: web.ServerRunner, port: int) -> None:
        self._runner = runner
        self._port = port
        self.asked: list[socket.socket] = []

    async def ask(self, client: socket.socket | None = None) -> socket.socket:
        """Ask for the answer, and wait until it has begun."""
        if client is None:
            client = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", self._port), WATCHDOG)
            self.asked.append(client)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.to_thread(client.recv, 12)) == b"HTTP/1.1 200"
        return client

    async def left(self, count: int) -> None:
        """Wait until so many connections are open."""
        async with asyncio.timeout(WATCHDOG):
            while self._runner.server is None or len(self._runner.server.connections) != count:  # noqa: ASYNC110 -- no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(bounds: Bounds) -> AsyncIterator[Server]:
    port = free_port()
    runner = await listen(f"127.0.0.1:{port}", large, bounds)
    server = Server(runner, port)
    try:
        yield server
    finally:
        for client in server.asked:
            client.close()
        await runner.cleanup()


def read(client: socket.socket) -> int:
    """How many bytes there are, to the end or until SIZE of them are here."""
    count = 0
    while count < SIZE and (found := client.recv(1 << 20)):
        count += len(found)
    return count


async def test_who_takes_nothing_is_cut_off() -> None:
    async with serving(Bounds(stall_seconds=lambda: 0, least_pace=FAST)) as server:
        client = await server.ask()
        await server.left(0)
        assert await asyncio.to_thread(read, client) < SIZE


async def test_who_is_slow_and_within_the_pace_gets_all() -> None:
    async with serving(Bounds(stall_seconds=lambda: WATCHDOG, least_pace=PATIENT)) as server:
        assert await asyncio.to_thread(read, await server.ask()) >= SIZE


async def test_beyond_the_memory_for_slow_clients_the_one_that_waits_longest_goes() -> None:
    bounds = Bounds(stall_seconds=lambda: WATCHDOG, least_pace=PATIENT, most_untaken=SIZE * 5 // 2)
    async with serving(bounds) as server:
        first, second, third = [await server.ask() for _ in range(3)]
        await server.left(2)
        assert await asyncio.to_thread(read, first) < SIZE
        for client in (second, third):
            assert await asyncio.to_thread(read, client) >= SIZE


async def test_what_was_taken_counts_no_more() -> None:
    bounds = Bounds(stall_seconds=lambda: WATCHDOG, least_pace=PATIENT, most_untaken=SIZE * 3 // 2)
    async with serving(bounds) as server:
        first, second = await server.ask(), None
        for _ in range(2):
            assert await asyncio.to_thread(read, first) >= SIZE
            second = await server.ask(second)
            assert await asyncio.to_thread(read, second) >= SIZE
            await server.ask(first)
