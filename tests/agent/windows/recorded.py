"""A Windows that is not there: the calls that the agent makes, recorded, over pipes, processes and users of its own.

Its functions take what ctypes hands to the real ones (`byref` of structures, bytes of UTF-16), so that a wrong argument
fails here, too.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

from llmgw_agent.windows import api as win
from llmgw_agent.windows.api import TYPES, Api

OURS = "S-1-5-21-1-2-3-1001"
THEIRS = "S-1-5-21-1-2-3-1002"
OWN_PID = 4242
TIMED_OUT = 258


@dataclass
class NamedPipe:
    """A pipe that somebody listens at."""

    owner: str = OURS
    answer: list[bytes] = field(default_factory=list)
    busy: int = 0
    """How many times it has no free instance."""
    denied: bool = False
    silent: bool = False
    sent: bytes = b""


class Recorded:
    """The libraries."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.pipes: dict[str, NamedPipe] = {}
        self.processes: dict[int, str] = {OWN_PID: OURS}
        self.denied: set[int] = set()
        self.clients: dict[int, int] = {}
        self.descriptors: dict[int, str] = {}
        self.broken = False
        """Whether no instance can be made any more."""
        self.code = 0
        self._objects: dict[int, Any] = {}
        self._alive: list[Any] = []
        self._count = 0
        self._next = 0x100
        self.api = Api(lambda library: _Library(self, library), lambda: self.code)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def arguments(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, arguments in self.calls if called == name]

    def handle(self, thing: Any) -> int:
        self._next += 4
        self._objects[self._next] = thing
        return self._next

    def open_handles(self) -> int:
        return len(self._objects)

    def fail(self, code: int) -> int:
        self.code = code
        return 0

    def text(self, text: str) -> int:
        buffer = ctypes.create_string_buffer(text.encode("utf-16-le") + b"\0\0")
        self._alive.append(buffer)
        return ctypes.addressof(buffer)

    # Each is called as the function of that name.

    def CloseHandle(self, handle: int) -> int:  # noqa: N802 -- the names are Windows'
        del self._objects[handle]
        return 1

    def GetCurrentProcess(self) -> int:  # noqa: N802
        return win.INVALID_HANDLE

    def OpenProcess(self, _access: int, _inherit: int, pid: int) -> int:  # noqa: N802
        if pid in self.denied:
            return self.fail(win.ACCESS_DENIED)
        return self.handle(pid) if pid in self.processes else self.fail(87)

    def OpenProcessToken(self, process: int, access: int, out: Any) -> int:  # noqa: N802
        assert access == win.TOKEN_QUERY
        pid = OWN_PID if process == win.INVALID_HANDLE else self._objects[process]
        out._obj.value = self.handle(self.processes[pid])
        return 1

    def GetTokenInformation(self, token: Any, kind: int, record: Any, size: int, out: Any) -> int:  # noqa: N802
        assert (kind, size) == (win.TOKEN_USER, ctypes.sizeof(record))
        record[0] = self.handle(self._objects[token.value])
        out._obj.value = 44
        return 1

    def ConvertSidToStringSidW(self, sid: Any, out: Any) -> int:  # noqa: N802
        out._obj.value = self.text(self._objects.pop(sid.value))
        return 1

    def LocalFree(self, _pointer: Any) -> int:  # noqa: N802
        return 0

    def GetSecurityInfo(self, handle: int, kind: int, what: int, owner: Any, *rest: Any) -> int:  # noqa: N802
        assert (kind, what) == (win.SE_KERNEL, win.OWNER)
        owner._obj.value = self.handle(self._objects[handle].owner)
        rest[-1]._obj.value = 1
        return 0

    def ConvertStringSecurityDescriptorToSecurityDescriptorW(  # noqa: N802
        self, sddl: bytes, revision: int, out: Any, _size: None
    ) -> int:
        assert revision == 1
        self._next += 4
        self.descriptors[self._next] = _text(sddl)
        out._obj.value = self._next
        return 1

    def CreateNamedPipeW(self, name: bytes, mode: int, *rest: Any) -> int:  # noqa: N802
        if self.broken:
            return self.fail(8)  # not enough memory
        attributes = rest[-1]._obj
        assert attributes.length == 24
        assert attributes.inherit == 0
        path = _text(name)
        if path in self.pipes and mode & 0x00080000:
            return self.fail(win.ACCESS_DENIED)
        sddl = self.descriptors[attributes.descriptor]
        self.pipes.setdefault(path, NamedPipe(sddl[2:].partition("D:")[0]))
        return self.handle(sddl)

    def GetNamedPipeClientProcessId(self, handle: int, out: Any) -> int:  # noqa: N802
        out._obj.value = self.clients.get(handle, 0)
        return 1 if handle in self.clients else self.fail(win.PIPE_NOT_CONNECTED)

    def CreateFileW(self, name: bytes, *_rest: Any) -> int:  # noqa: N802
        found = self.pipes.get(_text(name))
        if found is None or found.denied:
            self.fail(win.FILE_NOT_FOUND if found is None else win.ACCESS_DENIED)
            return win.INVALID_HANDLE
        if found.busy:
            self.fail(win.PIPE_BUSY)
            return win.INVALID_HANDLE
        return self.handle(found)

    def WaitNamedPipeW(self, name: bytes, _milliseconds: int) -> int:  # noqa: N802
        self.pipes[_text(name)].busy -= 1
        return 1

    def CreateEventW(self, *arguments: Any) -> int:  # noqa: N802
        assert arguments == (None, 1, 0, None)
        return self.handle("event")

    def WriteFile(self, handle: int, content: bytes, size: int, count: None, out: Any) -> int:  # noqa: N802
        assert count is None
        assert self._objects[out._obj.event] == "event"
        self._objects[handle].sent += content[:size]
        self._count = size
        return self.fail(win.IO_PENDING)

    def ReadFile(self, handle: int, buffer: Any, size: int, count: None, out: Any) -> int:  # noqa: N802
        assert count is None
        assert self._objects[out._obj.event] == "event"
        answer = self._objects[handle].answer
        if self._objects[handle].silent:
            return self.fail(win.IO_PENDING)
        if not answer:
            return self.fail(win.BROKEN_PIPE)
        part = answer.pop(0)[:size]
        ctypes.memmove(buffer, part, len(part))
        self._count = len(part)
        return 1

    def WaitForSingleObject(self, _event: int, milliseconds: int) -> int:  # noqa: N802
        assert milliseconds > 0
        return TIMED_OUT if any(pipe.silent and pipe.sent for pipe in self.pipes.values()) and self._read() else 0

    def _read(self) -> bool:
        return self.names()[-2] == "ReadFile"

    def CancelIoEx(self, _handle: int, _out: Any) -> int:  # noqa: N802
        return 1

    def GetOverlappedResult(self, _handle: int, _overlapped: Any, count: Any, wait: int) -> int:  # noqa: N802
        assert wait == 1
        if self.names()[-2] == "CancelIoEx":
            return self.fail(win.OPERATION_ABORTED)
        count._obj.value = self._count
        return 1


class _Library:
    """One library: what is asked of it is asked of the recording, once its types are set."""

    def __init__(self, recorded: Recorded, library: str) -> None:
        self._recorded = recorded
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return _Function(self._recorded, self._library, name)


class _Function:
    restype: Any = None
    argtypes: tuple[Any, ...] = ()

    def __init__(self, recorded: Recorded, library: str, name: str) -> None:
        self._recorded, self._library, self._name = recorded, library, name

    def __call__(self, *arguments: Any) -> Any:
        restype, argtypes = TYPES[self._library][self._name]
        assert (self.restype, self.argtypes) == (restype, argtypes)
        assert len(arguments) == len(argtypes), self._name
        for value, kind in zip(arguments, argtypes, strict=True):
            kind.from_param(value)  # as ctypes does: TypeError if it cannot be
        self._recorded.calls.append((self._name, arguments))
        return getattr(self._recorded, self._name)(*arguments)


def _text(wide: bytes) -> str:
    assert wide.endswith(b"\0")
    return (wide + b"\0").decode("utf-16-le").rstrip("\0")
