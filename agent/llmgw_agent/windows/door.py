"""The agent's end of its named pipe: only this user, only this machine, and nobody before us.

Every instance of the pipe is made with the same security descriptor, which names its owner and lets in nobody else.
The first one is made with FILE_FLAG_FIRST_PIPE_INSTANCE, which fails if the name is taken: a program that sat there
before us would otherwise share the name with us. There is always one instance that waits, so the name is never free.

asyncio can serve pipes, but not with a security descriptor. So instances are made here; two methods of its proactor
loop, which its own `start_serving_pipe` uses, do the rest (docs/decisions/0016-windows.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from ctypes import byref, c_uint32, sizeof
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from llmgw_agent.errors import DaemonError
from llmgw_agent.windows import api as win
from llmgw_agent.windows.api import WINDOWS, Api, wide

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("llmgw_agent.windows.door")

DUPLEX: Final = 0x3
OVERLAPPED: Final = 0x40000000
FIRST_INSTANCE: Final = 0x00080000
BYTES_LOCAL_ONLY: Final = 0x8
"""PIPE_TYPE_BYTE, PIPE_READMODE_BYTE, PIPE_WAIT (all 0) and PIPE_REJECT_REMOTE_CLIENTS."""
UNLIMITED: Final = 255
BUFFER: Final = 65536
FULL: Final = "FA"
"""File all access, for the owner. SYSTEM and administrators need no entry: they can take what they want."""


def descriptor_of(sid: str) -> str:
    """Owner and DACL of every instance: the user, all; who comes over the network (NU), nothing; nobody else."""
    return f"O:{sid}D:P(D;;{FULL};;;NU)(A;;{FULL};;;{sid})"


class Instances:
    """Makes the pipe's instances, all alike."""

    def __init__(self, path: str, api: Api = WINDOWS) -> None:
        """DaemonError if somebody else has the name."""
        self.path = path
        self._api = api
        self._own = api.own_sid()
        self._attributes = win.SecurityAttributes(
            length=sizeof(win.SecurityAttributes), descriptor=api.descriptor(descriptor_of(self._own)), inherit=0
        )
        try:
            self.waiting = self._made(FIRST_INSTANCE)
        except PermissionError:
            raise DaemonError(f"another program already listens at {path}", "Run: llmgw daemon stop") from None

    def next(self) -> int:
        """Another instance, for whoever connects next."""
        self.waiting = self._made(0)
        return self.waiting

    def client(self, handle: int) -> tuple[int, bool]:
        """The process at the other end of an instance, and whether it is this user's; (0, False) if it is not known."""
        pid = c_uint32()
        try:
            self._api.must("kernel32", "GetNamedPipeClientProcessId", handle, byref(pid))
            return pid.value, self._api.sid_of(pid.value) == self._own
        except OSError:  # it is gone, or does not let us look
            return pid.value, False

    def _made(self, first: int) -> int:
        return self._api.must(
            *("kernel32", "CreateNamedPipeW", wide(self.path), DUPLEX | OVERLAPPED | first),
            *(BYTES_LOCAL_ONLY, UNLIMITED, BUFFER, BUFFER, 0, byref(self._attributes)),
        )


class Server:
    """Accepts connections and gives each to a protocol, as asyncio's servers do."""

    def __init__(
        self,
        instances: Instances,
        factory: Callable[[], asyncio.Protocol],
        loop: Any,  # noqa: ANN401 -- asyncio.ProactorEventLoop, with its undocumented methods
        pipe: Callable[[int], Any],
        failed: Callable[[], None],
    ) -> None:
        """Begin to accept.

        Args:
            instances: Of the pipe.
            factory: Makes a protocol for a connection.
            loop: What accepts.
            pipe: Makes what the loop takes of a handle: asyncio.windows_utils.PipeHandle.
            failed: Called when nobody can be accepted any more: a new agent can do better than a deaf one.
        """
        self._instances = instances
        self._factory = factory
        self._loop = loop
        self._pipe = pipe
        self._waiting: Any = pipe(instances.waiting)
        self._failed = failed
        self._task = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        try:
            await self._accept()
        except OSError as error:
            log.error("the pipe is not served any more: %s", error)  # noqa: TRY400 -- expected, if rare
            self._failed()

    async def _accept(self) -> None:
        while True:
            try:
                connected = await self._loop._proactor.accept_pipe(self._waiting)  # noqa: SLF001 -- see the top
            except OSError as error:  # whoever connected has gone again already
                log.info("a connection that was none: %s", error)
                self._waiting.close()
                self._waiting = self._pipe(self._instances.next())
                continue
            self._waiting = self._pipe(self._instances.next())
            pid, is_ours = self._instances.client(connected.handle)
            if not is_ours:  # it cannot have come past the descriptor; it is not let in all the same
                log.warning("process %d is not this user's", pid)
                connected.close()
                continue
            self._loop._make_duplex_pipe_transport(  # noqa: SLF001 -- the same
                connected, self._factory(), extra={"llmgw_peer": (pid, is_ours)}
            )

    def close(self) -> None:
        """Accept nobody any more."""
        self._task.cancel()
        self._waiting.close()

    async def wait_closed(self) -> None:
        """Return when that is so."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class Site(web.BaseSite):
    """The pipe as a place that aiohttp serves at."""

    def __init__(self, runner: web.BaseRunner, instances: Instances, failed: Callable[[], None]) -> None:
        super().__init__(runner)
        self._instances = instances
        self._failed = failed

    @property
    def name(self) -> str:
        """The pipe."""
        return self._instances.path

    async def start(self) -> None:
        """Begin to accept."""
        await super().start()
        factory: Any = self._runner.server
        handles = importlib.import_module("asyncio.windows_utils")
        server: Any = Server(self._instances, factory, asyncio.get_running_loop(), handles.PipeHandle, self._failed)
        self._server = server


def peer(transport: asyncio.BaseTransport | None) -> tuple[int, bool] | None:
    """Process id at the other end of a connection, and whether it is this user's; None if it is no pipe of ours."""
    found: tuple[int, bool] | None = transport.get_extra_info("llmgw_peer") if transport is not None else None
    return found
