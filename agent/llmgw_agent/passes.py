"""Sockets for elsewhere: a host reached by SSH, or a container. Each serves one verb, gives tokens, and ends.

What is handed to another machine is a unix socket, never a credential: whoever can reach it gets gateway tokens of this
session, for this gateway, until the pass ends or is revoked, and can do nothing else here. Passes are kept in memory;
with the agent they end as well.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llmgw_agent import system
from llmgw_agent.errors import RefusedError, UsageError
from llmgw_agent.listener import listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

MOST_SECONDS: Final = 24 * 3600
MOST_PASSES: Final = 16
MOST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Pass:
    """One socket for elsewhere."""

    name: str
    """Random: its id."""
    meant_for: str
    """What its user called it: a host or a container."""
    socket: Path
    expires_at: float
    """Seconds since the epoch."""

    def seconds_left(self) -> int:
        """0: it has ended."""
        return max(0, int(self.expires_at - time.time()))


class Passes:
    """Makes them, and ends them."""

    def __init__(self, folder: Path, application: Callable[[Pass], web.Application]) -> None:
        """Keep what it takes.

        Args:
            folder: Where their folders are made: that of the agent's own socket.
            application: What is served on one.
        """
        self._folder = folder
        self._application = application
        self._open: dict[str, tuple[Pass, web.AppRunner]] = {}

    async def open(self, meant_for: str, seconds: int) -> Pass:
        """A new one; UsageError if it would be of no use, RefusedError if there are too many."""
        await self.end_expired()
        if not 0 < seconds <= MOST_SECONDS:
            raise UsageError(f"a pass lasts up to {MOST_SECONDS // 3600} hours", "Ask for less: --ttl 8h")
        if not meant_for or len(meant_for) > MOST_NAME or not meant_for.isprintable():
            raise UsageError("a pass needs a name", "Name a host or a container")
        if len(self._open) >= MOST_PASSES:
            raise RefusedError(f"{MOST_PASSES} passes are open", "End one: llmgw forward list")
        name = secrets.token_hex(4)
        # A folder of its own: a container gets the folder, and with it nothing else.
        folder = self._folder / f"pass-{name}"
        system.private_folder(folder)
        made = Pass(name, meant_for, folder / "agent.sock", time.time() + seconds)
        runner = web.AppRunner(self._application(made), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, listen(made.socket)).start()
        self._open[name] = made, runner
        log.info("pass %s for %s, %d s", name, meant_for, seconds)
        return made

    def listed(self) -> list[Pass]:
        """Those that have not ended."""
        return [each for each, _ in self._open.values() if each.seconds_left()]

    async def revoke(self, name: str) -> Pass:
        """End one now; UsageError if there is none of that name."""
        if name not in self._open:
            raise UsageError("there is no such pass", "See: llmgw forward list")
        ended, runner = self._open.pop(name)
        await runner.cleanup()
        with contextlib.suppress(OSError):
            ended.socket.unlink(missing_ok=True)
            ended.socket.parent.rmdir()
        log.info("pass %s for %s has ended", name, ended.meant_for)
        return ended

    async def end_expired(self) -> None:
        """End those whose time is up. They give no tokens any more in any case."""
        for each in [each for each, _ in self._open.values() if not each.seconds_left()]:
            await self.revoke(each.name)

    async def close(self) -> None:
        """End all."""
        for name in list(self._open):
            await self.revoke(name)
