"""An aiohttp application on a loopback port, served by a thread with an event loop of its own.

So that the same double serves plain and asyncio tests, and answers while the test itself blocks on a subprocess.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from tests.lab.loopback import HOST

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine
    from types import TracebackType

START_SECONDS = 10
STOP_SECONDS = 10


class ThreadedServer:
    """Subclasses give the application; `url` is known once it is entered."""

    def __init__(self) -> None:
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._run_loop, name=type(self).__name__, daemon=True)

    async def application(self) -> web.Application:
        """Build the application; runs on the server's loop."""
        raise NotImplementedError

    def call_soon(self, function: Callable[[], object]) -> None:
        """Run something on the server's loop (its events are not safe to touch from another thread)."""
        self._loop.call_soon_threadsafe(function)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _on_loop(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        future: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(seconds)

    async def _start(self) -> None:
        self._runner = web.AppRunner(await self.application(), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def __enter__(self) -> Self:
        self._thread.start()
        self._on_loop(self._start(), START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._on_loop(self._stop(), STOP_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_SECONDS)
            self._loop.close()
