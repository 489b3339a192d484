"""Other processes: whose children they are, the folder they work in, the variables they were started with.

Folder and variables lie in a process's own memory, where its environment block says. What that block looks like has not
changed since Windows Vista, and debuggers depend on it. Only processes of this user can be read.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_uint64, sizeof
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent.windows import api as win
from llmgw_agent.windows.api import WINDOWS, Api

if TYPE_CHECKING:
    from collections.abc import Callable

SNAPSHOT_OF_PROCESSES: Final = 0x2
STILL_RUNNING: Final = 258
BASICS: Final = 0
PARAMETERS_AT: Final = 0x20
"""PEB.ProcessParameters, on 64 bits; the others lie in RTL_USER_PROCESS_PARAMETERS."""
FOLDER_AT: Final = 0x38
VARIABLES_AT: Final = 0x80
VARIABLES_SIZE_AT: Final = 0x3F0
MOST_BYTES: Final = 256 * 1024


def look_up(api: Api = WINDOWS) -> Callable[[int], tuple[int, str, str] | None]:
    """What finds a process among those there are now: its parent's id, its program's name, when it started."""
    rows = dict(_snapshot(api))

    def find(pid: int) -> tuple[int, str, str] | None:
        row = rows.get(pid)
        return None if row is None else (*row, _started(pid, api))

    return find


def is_alive(pid: int, api: Api = WINDOWS) -> bool:
    """Whether there is such a process."""
    try:
        handle = api.must("kernel32", "OpenProcess", win.SYNCHRONIZE, win.FALSE, pid)
    except OSError:
        return False
    found = api.call("kernel32", "WaitForSingleObject", handle, 0)
    api.close(handle)
    return bool(found == STILL_RUNNING)


def folder_of(pid: int, api: Api = WINDOWS) -> Path | None:
    """The folder that a process works in; None if that cannot be told."""
    try:
        memory = _Memory(pid, api)
        length, address = memory.numbers(memory.parameters + FOLDER_AT, 2)
        text = memory.read(address, min(length & 0xFFFF, MOST_BYTES)).decode("utf-16-le", "replace")
    except OSError:
        return None
    return Path(text) if text else None


def environment_of(pid: int, api: Api = WINDOWS) -> dict[str, str]:
    """The variables that a process has; none where they cannot be read."""
    try:
        memory = _Memory(pid, api)
        (address,) = memory.numbers(memory.parameters + VARIABLES_AT, 1)
        (size,) = memory.numbers(memory.parameters + VARIABLES_SIZE_AT, 1)
        content = memory.read(address, min(size, MOST_BYTES) & ~1)
    except OSError:
        return {}
    items = content.decode("utf-16-le", "replace").split("\0")
    pairs = (item.partition("=") for item in items if item and item[0] != "=")  # "=C:=C:\\x" is cmd's own memory
    return {name: value for name, _, value in pairs}


class _Memory:
    """Reads a process's memory; OSError if it may not be read, or is no longer there."""

    def __init__(self, pid: int, api: Api) -> None:
        self._api = api
        self._pid = pid
        basics = win.ProcessBasics()
        handle = api.must("kernel32", "OpenProcess", win.PROCESS_QUERY, win.FALSE, pid)
        try:
            status = api.call("ntdll", "NtQueryInformationProcess", handle, BASICS, byref(basics), sizeof(basics), None)
        finally:
            api.close(handle)
        if status:
            raise win.failure(f"process {pid}", status & 0xFFFFFFFF)
        (self.parameters,) = self.numbers((basics.block or 0) + PARAMETERS_AT, 1)

    def read(self, address: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(max(size, 1))
        count = c_uint64()
        handle = self._api.must(
            "kernel32", "OpenProcess", win.PROCESS_QUERY | win.PROCESS_VM_READ, win.FALSE, self._pid
        )
        try:
            self._api.must("kernel32", "ReadProcessMemory", handle, address, buffer, size, byref(count))
        finally:
            self._api.close(handle)
        return ctypes.string_at(buffer, count.value)

    def numbers(self, address: int, count: int) -> tuple[int, ...]:
        content = self.read(address, 8 * count)
        return tuple(int.from_bytes(content[at : at + 8], "little") for at in range(0, 8 * count, 8))


def _snapshot(api: Api) -> list[tuple[int, tuple[int, str]]]:
    try:
        handle = api.must("kernel32", "CreateToolhelp32Snapshot", SNAPSHOT_OF_PROCESSES, 0)
    except OSError:
        return []
    entry = win.ProcessEntry(size=sizeof(win.ProcessEntry))
    rows = []
    more = api.call("kernel32", "Process32FirstW", handle, byref(entry))
    while more:
        name = bytes(entry.file).decode("utf-16-le", "replace").partition("\0")[0]
        rows.append((int(entry.pid), (int(entry.parent), name.lower().removesuffix(".exe"))))
        more = api.call("kernel32", "Process32NextW", handle, byref(entry))
    api.close(handle)
    return rows


def _started(pid: int, api: Api) -> str:
    """When it started, in 100 ns since 1601; empty if it does not let us look."""
    times = [c_uint64() for _ in range(4)]
    try:
        handle = api.must("kernel32", "OpenProcess", win.PROCESS_QUERY, win.FALSE, pid)
    except OSError:
        return ""
    found = api.call("kernel32", "GetProcessTimes", handle, *(byref(time) for time in times))
    api.close(handle)
    return str(times[0].value) if found else ""
