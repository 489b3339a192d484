from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from llmgw_agent import listener
from llmgw_agent.errors import ConfigurationError, DaemonError
from llmgw_agent.listener import DaemonLock, listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

OTHER_UID = 54321
needs_root = pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
ASK = "GET /token HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n"


@pytest.fixture
async def door(socket_path: Path) -> AsyncIterator[Path]:
    """A guarded socket that hands out a canary."""

    async def token(_request: web.Request) -> web.Response:
        return web.Response(text="canary\n")

    app = web.Application(middlewares=[listener.guard])
    app.router.add_get("/token", token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.SockSite(runner, listen(socket_path)).start()
    yield socket_path
    await runner.cleanup()


@pytest.fixture
def reachable(home: Path) -> Iterator[None]:
    """Every folder above the socket's own can be passed by everybody."""
    closed = {place: place.stat().st_mode for place in (home, *home.parents) if place.stat().st_mode & 0o011 != 0o011}
    for place in closed:
        place.chmod(0o711)
    yield
    for place, mode in closed.items():
        place.chmod(mode)


async def ask(path: Path, *, host: str = listener.HOST, headers: str = "") -> str:
    from asyncio import open_unix_connection  # noqa: PLC0415 -- absent on Windows

    reader, writer = await open_unix_connection(path)
    writer.write(ASK.format(host=host, headers=headers).encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_owner_is_let_in(door: Path) -> None:
    assert (await ask(door)).endswith("canary\n")


def test_only_the_owner_can_enter(socket_path: Path) -> None:
    listen(socket_path).close()
    assert socket_path.parent.stat().st_mode & 0o777 == 0o700
    assert socket_path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", listener.BROWSER_HEADERS)
async def test_browsers_are_refused(door: Path, name: str) -> None:
    answer = await ask(door, headers=f"{name}: http://evil.example\r\n")
    assert answer.startswith("HTTP/1.1 403")
    assert "canary" not in answer


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "evil.example", "llmgw.local:80", "llmgw.local.evil.example"]
)
async def test_other_hosts_are_refused(door: Path, host: str) -> None:
    answer = await ask(door, host=host)
    assert answer.startswith("HTTP/1.1 403")
    assert "canary" not in answer


@needs_root
@pytest.mark.usefixtures("reachable")
@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o700, 0o666), (0o711, 0o600), (0o711, 0o666)])
async def test_another_user_gets_no_token(door: Path, folder: int, file: int) -> None:
    """Whatever somebody did to the modes: the kernel keeps them out, or we do."""
    os.chmod(door.parent, folder)  # noqa: PTH101 -- the loop has nothing else to do
    os.chmod(door, file)  # noqa: PTH101
    command = [
        *("setpriv", "--reuid", str(OTHER_UID), "--clear-groups", "/usr/bin/curl", "--silent", "--max-time", "5"),
        *("--unix-socket", str(door), f"http://{listener.HOST}/token"),
    ]
    from asyncio import create_subprocess_exec  # noqa: PLC0415 -- only here

    child = await create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await child.communicate()
    assert b"canary" not in output
    if (folder, file) == (0o711, 0o666):
        assert output == b"not yours\n"


def test_there_is_one_daemon_per_home(home: Path) -> None:
    first, second = DaemonLock(home / "agent.lock"), DaemonLock(home / "agent.lock")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_a_lock_dies_with_its_process(home: Path) -> None:
    code = (
        "import os, sys, pathlib; from llmgw_agent.listener import DaemonLock; "
        "lock = DaemonLock(pathlib.Path(sys.argv[1])); assert lock.acquire(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, home / "agent.lock"], check=False)
    lock = DaemonLock(home / "agent.lock")
    assert lock.acquire()
    lock.release()


def test_a_stale_socket_is_replaced(socket_path: Path) -> None:
    listen(socket_path).close()
    assert socket_path.exists()
    listen(socket_path).close()


def test_a_socket_that_answers_is_left_alone(socket_path: Path) -> None:
    with contextlib.closing(listen(socket_path)), pytest.raises(DaemonError, match="already listens"):
        listen(socket_path)


def test_a_file_in_the_way_is_left_alone(socket_path: Path) -> None:
    socket_path.parent.mkdir(mode=0o700)
    socket_path.write_text("somebody's")
    with pytest.raises(ConfigurationError, match="no socket"):
        listen(socket_path)
    assert socket_path.read_text() == "somebody's"


def test_a_linked_folder_is_refused(socket_path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    socket_path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="not a folder of yours"):
        listen(socket_path)


@needs_root
def test_a_folder_of_another_user_is_refused(socket_path: Path) -> None:
    socket_path.parent.mkdir()
    os.chown(socket_path.parent, OTHER_UID, OTHER_UID)
    with pytest.raises(ConfigurationError, match="not a folder of yours"):
        listen(socket_path)


def test_an_open_folder_is_closed(socket_path: Path) -> None:
    socket_path.parent.mkdir(mode=0o777)
    socket_path.parent.chmod(0o777)
    listen(socket_path).close()
    assert socket_path.parent.stat().st_mode & 0o777 == 0o700


def test_no_socket_is_open_to_the_network(socket_path: Path) -> None:
    made = listen(socket_path)
    assert made.family is socket.AF_UNIX
    made.close()
