"""A program of the laboratory that runs beside it: started, waited for, ended, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tests.lab.watchdog import WATCHDOG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

POLL_SECONDS = 0.02
TAIL_BYTES = 4000


class ProgramError(RuntimeError):
    """A program ended, or did not do in time what was expected of it. The message ends with the tail of its log."""


@dataclass(frozen=True)
class Finished:
    """A program that ran to its end."""

    exit_code: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    folder: Path,
    seconds: float,
    stdin: str = "",
    user: int | None = None,
) -> Finished:
    """Run a program to its end, in its own group; at the deadline the whole group is killed.

    `user`: run it as this one (only root may say so).
    """
    process = subprocess.Popen(
        [str(word) for word in argv],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        user=user,
    )
    WATCHDOG.guard(process.pid)
    try:
        stdout, stderr = process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        stdout, stderr = process.communicate()
        raise ProgramError(f"{argv[0]} still ran after {seconds:g} s\n{stdout}{stderr}") from None
    finally:
        _kill_group(process.pid)
        WATCHDOG.release(process.pid)
    return Finished(process.returncode, stdout, stderr)


class Program:
    """One process in a group of its own (so that Ctrl-C in a terminal reaches only the one in charge)."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        folder: Path,
        user: int | None = None,
    ) -> None:
        self.name = name
        self._user = user
        self.argv = [str(word) for word in argv]
        self.env = dict(env)
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def exit_code(self) -> int | None:
        return self._running.poll()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProgramError(f"{self.name} was not started")
        return self._process

    def start(self) -> Self:
        """Start it, or start it again; its log goes on."""
        if self._process is not None and self._process.poll() is None:
            raise ProgramError(f"{self.name} is running already")
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
            )
        WATCHDOG.guard(self.pid)
        return self

    def wait_until(self, ready: Callable[[], bool], what: str, *, seconds: float = 30) -> None:
        """Poll `ready`; fail as soon as the program ends, or at the deadline."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise ProgramError(f"{self.name} is not {what} after {seconds:g} s\n{self.tail()}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._running.wait(POLL_SECONDS)
                raise ProgramError(f"{self.name} ended with exit code {code} before it was {what}\n{self.tail()}")

    def wait(self, *, seconds: float) -> int:
        """The exit code of a program that ends by itself."""
        try:
            return self._running.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{self.name} still runs after {seconds:g} s\n{self.tail()}") from None

    def send_signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def terminate(self, *, seconds: float = 10) -> int:
        """SIGTERM, then SIGKILL at the deadline, also to whatever it started itself; returns the exit code."""
        process = self._running
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
        code = process.wait()
        _kill_group(process.pid)
        WATCHDOG.release(process.pid)
        return code

    def tail(self) -> str:
        """The end of what it printed, for an error message."""
        text = self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip() if self.log.exists() else ""
        return f"--- the end of {self.log} ---\n{text or '(empty)'}"

    def close(self) -> None:
        """End it if it was started at all."""
        if self._process is not None:
            self.terminate()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _kill_group(group: int) -> None:
    """What a program started itself and left behind ends with it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
