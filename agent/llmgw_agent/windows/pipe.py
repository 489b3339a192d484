"""The commands' end of the agent's named pipe: opened, whose it is found out, and only then spoken to.

Anybody may make a pipe of any name that is free, so the name proves nothing. The owner of the object does: only this
user's processes (and an administrator's, who can do everything anyway) can make an object that this user owns. The
server may learn who we are, and cannot act as us (SECURITY_IDENTIFICATION).
"""

from __future__ import annotations

import io
from ctypes import byref, c_uint32, create_string_buffer, string_at
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.token_stub import REQUEST, judged, profile_of
from llmgw_agent.windows import api as win
from llmgw_agent.windows.api import WINDOWS, Api, wide

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "\\\\.\\pipe\\llmgw-"
OPEN_EXISTING: Final = 3
OVERLAPPED: Final = 0x40000000
SQOS_PRESENT: Final = 0x00100000
IDENTIFICATION: Final = 0x00010000
TIMED_OUT: Final = 258
FOREVER: Final = 0xFFFFFFFF
ENDED: Final = frozenset({win.BROKEN_PIPE, win.PIPE_NOT_CONNECTED, win.NO_DATA, win.HANDLE_EOF})
PART: Final = 65536


def address(environ: Mapping[str, str], api: Api = WINDOWS) -> str:
    """The agent's pipe: the user's SID, then the profile. ValueError if the profile is no name.

    What lies in another folder (LLMGW_HOME) has another pipe.
    """
    profile = profile_of(dict(environ))
    chosen = environ.get("LLMGW_HOME", "").rstrip("\\/")
    if chosen:
        from _blake2 import blake2b  # noqa: PLC0415 -- only where there is such a folder

        chosen = "-" + blake2b(chosen.lower().encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{PREFIX}{api.own_sid()}{chosen}{profile and '@' + profile}"


class Pipe(io.RawIOBase):
    """A connection with a deadline for each wait; enough like a socket for http.client."""

    def __init__(self, api: Api, handle: int, seconds: float) -> None:
        super().__init__()
        self._api = api
        self._handle = handle
        self._event = api.must("kernel32", "CreateEventW", None, 1, 0, None)
        self._seconds: float | None = seconds

    def settimeout(self, seconds: float | None) -> None:
        """From now on nothing is waited for longer; None: no limit."""
        self._seconds = seconds

    def sendall(self, content: bytes) -> None:
        """Write all of it; TimeoutError or OSError if that cannot be."""
        view = bytes(content)
        while view:
            overlapped = win.Overlapped(event=self._event)
            begun = self._api.call("kernel32", "WriteFile", self._handle, view, len(view), None, byref(overlapped))
            count = self._wait(begun, overlapped)
            if not count:
                raise BrokenPipeError("the agent closed its pipe")
            view = view[count:]

    def recv(self, size: int = PART) -> bytes:
        """What has come, at least a byte; nothing at the end."""
        buffer = create_string_buffer(size)
        overlapped = win.Overlapped(event=self._event)
        begun = self._api.call("kernel32", "ReadFile", self._handle, buffer, size, None, byref(overlapped))
        count = self._wait(begun, overlapped)
        return string_at(buffer, count)

    def _wait(self, begun: int, overlapped: win.Overlapped) -> int:
        """How many bytes it was in the end; 0 if the other end is closed."""
        if not begun:
            if (code := self._api.error()) in ENDED:
                return 0
            if code != win.IO_PENDING:
                raise win.failure("the agent's pipe", code)
        limit = FOREVER if self._seconds is None else max(10, int(self._seconds * 1000))
        late = self._api.call("kernel32", "WaitForSingleObject", self._event, limit) == TIMED_OUT
        if late:
            self._api.call("kernel32", "CancelIoEx", self._handle, byref(overlapped))
        count = c_uint32()
        # Also after it was taken back: until then Windows may write where we have let go of the memory.
        done = self._api.call("kernel32", "GetOverlappedResult", self._handle, byref(overlapped), byref(count), 1)
        if done:
            return count.value
        if (code := self._api.error()) in ENDED:
            return 0
        if late:
            raise TimeoutError("the agent did not answer in time")
        raise win.failure("the agent's pipe", code)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 -- whatever can be written to
        """For what reads by lines."""
        part = self.recv(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client reads the answer from; it asks for `rb`."""
        if mode != "rb":
            raise ValueError("only for reading")
        return io.BufferedReader(self)

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self._api.close(self._handle)
            self._api.close(self._event)
        super().close()


def connect(path: str, deadline: float, api: Api = WINDOWS) -> Pipe:
    """Connect to an agent of ours; PermissionError, before a byte is sent, if it is another user's.

    TimeoutError after the deadline (on the monotonic clock), FileNotFoundError if nobody is there.
    """
    handle = _opened(path, deadline, api)
    try:
        is_ours = api.owner_of(handle) == api.own_sid()
    except BaseException:
        api.close(handle)
        raise
    if not is_ours:
        api.close(handle)
        raise PermissionError(f"another user listens at {path}")
    return Pipe(api, handle, max(0.01, deadline - monotonic()))


def _opened(path: str, deadline: float, api: Api) -> int:
    flags = OVERLAPPED | SQOS_PRESENT | IDENTIFICATION
    while True:
        handle = api.call(
            *("kernel32", "CreateFileW", wide(path), win.GENERIC_READ | win.GENERIC_WRITE, 0, None),
            *(OPEN_EXISTING, flags, None),
        )
        if handle and handle != win.INVALID_HANDLE:
            return int(handle)
        code = api.error()
        if code == win.ACCESS_DENIED:
            raise PermissionError(f"{path} lets you not in: another user, or an agent as administrator, listens there")
        if code != win.PIPE_BUSY:
            raise win.failure(path, code)
        left = int((deadline - monotonic()) * 1000)
        if left <= 0:
            raise TimeoutError("the agent did not answer in time")
        api.call("kernel32", "WaitNamedPipeW", wide(path), left)  # somebody else may be faster: then once more


def ask(path: str, deadline: float, api: Api = WINDOWS) -> tuple[int, bytes]:
    """Ask for a token: exit code 0 and the token, or another code and the line for stderr (with newlines)."""
    pipe = connect(path, deadline, api)
    try:
        pipe.sendall(REQUEST)
        answer = b""
        while part := pipe.recv():
            answer += part
            pipe.settimeout(max(0.01, deadline - monotonic()))
    finally:
        pipe.close()
    return judged(answer)
