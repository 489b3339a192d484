"""Ends the laboratory's servers when the laboratory itself is killed.

A `finally` does not run on SIGKILL, and a server that outlives its test holds a port, a lock and memory. So one small
process reads which process groups exist from a pipe; when the pipe closes, whatever the reason, it kills the rest.
Unlike PR_SET_PDEATHSIG this also works on macOS, and does not fire when merely the starting thread ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import IO


class Watchdog:
    """The pipe to the watching process, which is started with the first group."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def guard(self, group: int) -> None:
        """Kill this process group if this Python process ends without `release`."""
        self._say(f"+{group}")

    def release(self, group: int) -> None:
        """The group has ended."""
        self._say(f"-{group}")

    def _say(self, line: str) -> None:
        with self._lock:
            process = self._process = self._process or self._start()
            if process.stdin is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        atexit.register(self._close, process)
        return process

    @staticmethod
    def _close(process: subprocess.Popen[str]) -> None:
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def watch(lines: IO[str]) -> None:
    """Run in the watching process: keep the list until the pipe closes, then kill what is still on it."""
    groups: set[int] = set()
    for line in lines:
        change, group = line[0], int(line[1:])
        groups = groups | {group} if change == "+" else groups - {group}
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


WATCHDOG = Watchdog()

if __name__ == "__main__":
    watch(sys.stdin)
