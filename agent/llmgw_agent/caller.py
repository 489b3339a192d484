"""Which program wants a token: a name for the nearest ancestor of a process that is no shell.

A hint, never a permission: process ids are reused and parents die. It tells a tool that asks twice (its first token was
refused) from two tools that ask once, and it names the tool in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent import system

if TYPE_CHECKING:
    from collections.abc import Callable

SHELLS: Final = frozenset(
    {"ash", "bash", "cmd", "dash", "fish", "ksh", "sh", "zsh", "env", "timeout", "powershell", "pwsh", "llmgw-token"}
)
"""Programs between a tool and our command that say nothing about who asks."""
MOST_ANCESTORS: Final = 8
HAS_PROC: Final = sys.platform == "linux"
PS: Final = "/bin/ps"
PS_SECONDS: Final = 0.5
"""A token is not late for the sake of a name."""
PS_FIELDS: Final = 8
"""Process id, parent, five words of start time, name."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its parent's id, its program's name, and when it started (in whatever unit)."""

    parent: int
    name: str
    started: str


@dataclass(frozen=True, slots=True)
class Caller:
    """The program that wants a token; without a process id if it is not known."""

    pid: int = 0
    program: str = ""
    started: str = ""

    @property
    def label(self) -> str:
        """Its name, for the log and for telling callers apart; empty if unknown."""
        return f"{self.pid} {self.program} {self.started}" if self.pid else ""


async def caller(pid: int) -> Caller:
    """Who it is. Takes at most half a second, and other requests go on meanwhile."""
    look_up = system.look_up_processes()
    if look_up is None:
        return _nearest(pid, _by_proc if HAS_PROC else (await by_ps()).get)

    def find(pid: int) -> Process | None:
        row = look_up(pid)
        return None if row is None else Process(*row)

    return _nearest(pid, find)


def _nearest(pid: int, look_up: Callable[[int], Process | None]) -> Caller:
    for _ in range(MOST_ANCESTORS):
        process = look_up(pid)
        if process is None or process.parent <= 1:
            return Caller()
        pid = process.parent
        parent = look_up(pid)
        if parent is not None and parent.name and Path(parent.name).name.lstrip("-") not in SHELLS:
            return Caller(pid, parent.name, parent.started)
    return Caller()


def _by_proc(pid: int) -> Process | None:
    """From /proc, which is memory: no waiting. Fields from `state` on; the name before may hold anything."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        name = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
        return Process(int(fields[1]), name, fields[19])
    except (OSError, ValueError, IndexError):
        return None


async def by_ps(program: str = PS, seconds: float = PS_SECONDS) -> dict[int, Process]:
    """Every process, from one run of `ps`, where there is no /proc; empty if it fails or takes too long."""
    try:
        child = await asyncio.create_subprocess_exec(
            *(program, "-axo", "pid=,ppid=,lstart=,comm="),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return {}
    try:
        output, _ = await asyncio.wait_for(child.communicate(), seconds)
    except TimeoutError:
        return {}
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    rows = (line.split(None, PS_FIELDS - 1) for line in output.decode(errors="replace").splitlines())
    return {
        int(row[0]): Process(int(row[1]), row[-1].strip(), " ".join(row[2:-1]))
        for row in rows
        if len(row) == PS_FIELDS and row[0].isdecimal() and row[1].isdecimal()
    }
