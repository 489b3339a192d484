"""The door: a unix socket that only its owner can reach, checked twice, and that no browser is let through.

The folder is 0700 and the socket 0600; the kernel also tells who connected. A web page cannot open a unix socket, but
programs that forward ports can, so whatever smells of a browser is refused, as is any Host but ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llmgw_agent import system
from llmgw_agent.errors import ConfigurationError, DaemonError
from llmgw_agent.token_stub import PATH_LIMIT

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

    from aiohttp.typedefs import Handler

HOST: Final = "llmgw.local"
"""The only Host served: a name that no page can have."""
UNIX: Final[int] = getattr(socket, "AF_UNIX", 0)
"""Absent on Windows, where a named pipe is listened at (windows/door.py)."""
FIRST_HANDED: Final = 3
"""SD_LISTEN_FDS_START."""
BROWSER_HEADERS: Final = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest")


class DaemonLock:
    """The flock that makes the owner of a vault the only one. The kernel releases it however the process ends."""

    def __init__(self, path: Path, handle: int = -1) -> None:
        """`handle`: the open file that holds it already."""
        self._path = path
        self._handle = handle

    @property
    def handle(self) -> int:
        """The open file that holds it."""
        return self._handle

    def acquire(self) -> bool:
        """Take the lock; False if another daemon has it."""
        system.private_folder(self._path.parent)
        self._handle = system.open_lock(self._path)
        try:
            system.lock(self._handle)
        except BlockingIOError:
            os.close(self._handle)
            return False
        return True

    def release(self) -> None:
        """Give it back. The file stays: removing it would let two daemons lock two files of one name."""
        os.close(self._handle)


def listen(path: Path) -> socket.socket:
    """Bind the socket at `path`. The caller holds the daemon's lock, so whatever lies there is left over."""
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise ConfigurationError(f"the path of the socket is too long ({path})", "Set XDG_RUNTIME_DIR to a shorter one")
    system.private_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigurationError(f"{path} is in the way and is no socket", "Move it away and try again")
        if _answers(path):
            raise DaemonError(f"another program already listens at {path}", "Run: llmgw daemon stop")
    # Bound beside its place and moved there: a command never finds a socket that is not listening yet.
    temporary = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    listener = socket.socket(UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(temporary))
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"{path} cannot be created ({error.strerror})", "Choose another LLMGW_HOME") from None
    finally:
        os.umask(mask)
    listener.listen(128)
    temporary.replace(path)
    return listener


def identity(path: Path) -> tuple[int, int]:
    """Which file this is, whatever lies there later."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def remove(path: Path, bound: tuple[int, int]) -> None:
    """Remove the socket that was bound there; not one that somebody else, a service manager, has put there since."""
    with contextlib.suppress(FileNotFoundError):
        if identity(path) == bound:
            path.unlink()


def inherited(path: Path, environ: MutableMapping[str, str]) -> socket.socket | None:
    """The socket that a service manager listens on for us (sd_listen_fds(3)); None if it has none for this process.

    ConfigurationError if it is another than the one that commands look for.
    """
    is_ours = environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "0").isdecimal()
    count = int(environ["LISTEN_FDS"]) if is_ours else 0
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)  # not for what we start
    if not count:
        return None
    handed = socket.socket(fileno=FIRST_HANDED)
    handed.set_inheritable(False)
    if count != 1 or handed.family != UNIX or handed.getsockname() != str(path):
        handed.close()
        raise ConfigurationError(
            f"the service manager listens elsewhere than at {path}", "Run: llmgw service uninstall, then install"
        )
    if not system.is_private(path.parent):
        system.private_folder(path.parent)
    return handed


class Served:
    """A listening socket and the server behind it, which can fall silent while the socket goes on to listen."""

    def __init__(self, runner: web.BaseRunner, listener: socket.socket) -> None:
        self._runner = runner
        self.listener = listener
        self._site: web.SockSite | None = None

    async def start(self) -> None:
        """Serve."""
        if self._runner.server is None:
            await self._runner.setup()
        self._site = web.SockSite(self._runner, self.listener.dup())
        await self._site.start()

    async def pause(self) -> None:
        """Let nobody in: whoever connects waits in the kernel's queue until `start`. Those who are in stay."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    @property
    def has_guests(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._server.connections)

    @property
    def requests(self) -> int:
        """How many there have been."""
        return self._server.requests_count

    @property
    def _server(self) -> web.Server:
        if self._runner.server is None:
            raise RuntimeError("not started")
        return self._runner.server

    async def close(self) -> None:
        """Let those who are in finish, for a while, and listen no more."""
        await self._runner.cleanup()
        self.listener.close()


def _answers(path: Path) -> bool:
    with socket.socket(UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        with contextlib.suppress(OSError):
            probe.connect(str(path))
            return True
    return False


def peer(request: web.Request) -> tuple[int, bool]:
    """Process id of whoever sent this request, as the kernel recorded it, and whether it is this user's."""
    found = system.peer(request.transport)
    if found is None:
        raise web.HTTPForbidden(text="who is asking?\n")
    return found


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in this user, and never a browser. Refusals say nothing that helps whoever should not be here."""
    if not peer(request)[1]:
        return web.Response(status=403, text="not yours\n")
    if request.host != HOST or any(name in request.headers for name in BROWSER_HEADERS):
        return web.Response(status=403, text="not for browsers\n")
    return await handler(request)
