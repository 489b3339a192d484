"""The daemon behind a named pipe: the parts are those of daemon.py, how it begins and ends is that of Windows."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llmgw_agent import __version__
from llmgw_agent.daemon import DRAIN_SECONDS, Daemon
from llmgw_agent.listener import Served
from llmgw_agent.windows.door import Instances, Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_agent.handover import Handover

log = logging.getLogger("llmgw_agent.windows.daemon")

ENDING: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGBREAK") if hasattr(signal, name))
"""Ctrl+C and Ctrl+Break of a console. There is no SIGTERM: whoever ends a task ends it at once."""


class PipeDaemon(Daemon):
    """One running agent on Windows."""

    async def run(self, _left: Handover | None = None) -> None:
        """Start, serve until told to stop, drain. Nothing is ever left: this agent does not rest (rest.py)."""
        loop = asyncio.get_running_loop()
        for number in ENDING:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.stop))
        await self._vault.open()
        self._session.restore()
        instances = Instances(str(self._settings.places.socket))
        runner = web.AppRunner(
            self._api.application(), access_log=None, handle_signals=False, shutdown_timeout=DRAIN_SECONDS
        )
        served = ServedPipe(runner, instances, self.stop)
        await self._entrance.start()
        await served.start()
        log.info("serving, version %s, gateway %s", __version__, self._settings.gateway_url)
        watch = asyncio.create_task(self._watch(served))
        try:
            await self._stopping.wait()
        finally:
            await self._drain(served, watch, None)


class ServedPipe(Served):
    """The pipe and the server behind it."""

    def __init__(self, runner: web.BaseRunner, instances: Instances, failed: Callable[[], None]) -> None:
        self._runner = runner
        self._instances = instances
        self._failed = failed

    async def start(self) -> None:
        """Serve."""
        await self._runner.setup()
        await Site(self._runner, self._instances, self._failed).start()

    async def close(self) -> None:
        """Let those who are in finish, for a while, and listen no more."""
        await self._runner.cleanup()
