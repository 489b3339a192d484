"""Which program wants a token: a name for the nearest ancestor of a process that is no shell.

A hint, never a permission: process ids are reused and parents die. It tells a tool that asks twice (its first token was
refused) from two tools that ask once, and it names the tool in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SHELLS: Final = frozenset({"ash", "bash", "cmd", "dash", "fish", "ksh", "sh", "zsh", "env", "timeout"})
"""Programs between a tool and our command that say nothing about who asks."""
MOST_ANCESTORS: Final = 8
HAS_PROC: Final = sys.platform == "linux"
PS: Final = "/bin/ps"
PS_SECONDS: Final = 0.5
"""A token is not late for the sake of a name."""
PROC_PIDVNODEPATHINFO: Final = 9
VNODE_INFO_BYTES: Final = 152
VNODE_PATHS_BYTES: Final = 2 * (VNODE_INFO_BYTES + 1024)
"""Two paths of MAXPATHLEN, each after its vnode_info: the working folder, then the root."""
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
    return _nearest(pid, _by_proc if HAS_PROC else (await by_ps()).get)


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


def folder_of(pid: int) -> Path | None:
    """The folder that a process works in; None if that cannot be told."""
    if sys.platform == "darwin":
        return _folder_by_libproc(pid)
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def environment_of(pid: int) -> dict[str, str]:
    """The variables that a process was started with; none where they cannot be read."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.decode(errors="surrogateescape").partition("=") for item in content.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


def _folder_by_libproc(pid: int) -> Path | None:
    """macOS: proc_pidinfo(PROC_PIDVNODEPATHINFO); struct vnode_info_path begins with 152 bytes before the path."""
    record = ctypes.create_string_buffer(VNODE_PATHS_BYTES)
    library = ctypes.CDLL("/usr/lib/libproc.dylib")
    if library.proc_pidinfo(pid, PROC_PIDVNODEPATHINFO, ctypes.c_uint64(0), record, VNODE_PATHS_BYTES) <= 0:
        return None
    path = record.raw[VNODE_INFO_BYTES:].partition(b"\0")[0]
    return Path(os.fsdecode(path)) if path else None


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
