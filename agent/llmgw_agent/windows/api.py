"""The calls of Windows that the agent makes, with their types: the only file that knows ctypes there.

Nothing is loaded before the first call. Types are those of Windows on 64 bits, spelt without `ctypes.wintypes`, whose
sizes are those of the system that it runs on: so structures can be checked, and calls recorded, anywhere. Every failure
is an OSError with Windows' number in `winerror`.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_uint16, c_uint32, c_uint64, c_void_p, sizeof
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INVALID_HANDLE: Final = 2**64 - 1
FALSE: Final = 0
# winerror.h
FILE_NOT_FOUND: Final = 2
ACCESS_DENIED: Final = 5
NO_MORE_FILES: Final = 18
HANDLE_EOF: Final = 38
BROKEN_PIPE: Final = 109
INSUFFICIENT_BUFFER: Final = 122
PIPE_BUSY: Final = 231
NO_DATA: Final = 232
PIPE_NOT_CONNECTED: Final = 233
IO_PENDING: Final = 997
OPERATION_ABORTED: Final = 995
# winnt.h
GENERIC_READ: Final = 0x80000000
GENERIC_WRITE: Final = 0x40000000
TOKEN_QUERY: Final = 0x0008
TOKEN_USER: Final = 1
OWNER: Final = 0x1
DACL: Final = 0x4
PROTECTED_DACL: Final = 0x80000000
PROCESS_QUERY: Final = 0x1000
PROCESS_VM_READ: Final = 0x0010
SYNCHRONIZE: Final = 0x00100000
SDDL_REVISION: Final = 1
# accctrl.h
SE_FILE: Final = 1
SE_KERNEL: Final = 6


class SecurityAttributes(Structure):
    """SECURITY_ATTRIBUTES."""

    _fields_: ClassVar = [("length", c_uint32), ("descriptor", c_void_p), ("inherit", c_int32)]


class Overlapped(Structure):
    """OVERLAPPED."""

    _fields_: ClassVar = [("internal", c_uint64), ("high", c_uint64), ("offset", c_uint64), ("event", c_void_p)]


class ProcessEntry(Structure):
    """PROCESSENTRY32W."""

    _fields_: ClassVar = [
        ("size", c_uint32),
        ("usage", c_uint32),
        ("pid", c_uint32),
        ("heap", c_uint64),
        ("module", c_uint32),
        ("threads", c_uint32),
        ("parent", c_uint32),
        ("priority", c_int32),
        ("flags", c_uint32),
        ("file", c_uint16 * 260),
    ]


class ProcessBasics(Structure):
    """PROCESS_BASIC_INFORMATION."""

    _fields_: ClassVar = [
        ("status", c_uint64),
        ("block", c_void_p),
        ("affinity", c_uint64),
        ("priority", c_uint64),
        ("pid", c_uint64),
        ("parent", c_uint64),
    ]


TYPES: Final[dict[str, dict[str, tuple[Any, tuple[Any, ...]]]]] = {
    "kernel32": {
        "CloseHandle": (c_int32, (c_void_p,)),
        "CreateFileW": (c_void_p, (c_char_p, c_uint32, c_uint32, c_void_p, c_uint32, c_uint32, c_void_p)),
        "CreateEventW": (c_void_p, (c_void_p, c_int32, c_int32, c_void_p)),
        "CreateNamedPipeW": (c_void_p, (c_char_p, *(c_uint32,) * 6, POINTER(SecurityAttributes))),
        "WaitNamedPipeW": (c_int32, (c_char_p, c_uint32)),
        "GetNamedPipeClientProcessId": (c_int32, (c_void_p, POINTER(c_uint32))),
        "ReadFile": (c_int32, (c_void_p, c_void_p, c_uint32, c_void_p, POINTER(Overlapped))),
        "WriteFile": (c_int32, (c_void_p, c_char_p, c_uint32, c_void_p, POINTER(Overlapped))),
        "GetOverlappedResult": (c_int32, (c_void_p, POINTER(Overlapped), POINTER(c_uint32), c_int32)),
        "CancelIoEx": (c_int32, (c_void_p, POINTER(Overlapped))),
        "WaitForSingleObject": (c_uint32, (c_void_p, c_uint32)),
        "GetCurrentProcess": (c_void_p, ()),
        "OpenProcess": (c_void_p, (c_uint32, c_int32, c_uint32)),
        "GetProcessTimes": (c_int32, (c_void_p, *(POINTER(c_uint64),) * 4)),
        "ReadProcessMemory": (c_int32, (c_void_p, c_void_p, c_void_p, c_uint64, POINTER(c_uint64))),
        "CreateToolhelp32Snapshot": (c_void_p, (c_uint32, c_uint32)),
        "Process32FirstW": (c_int32, (c_void_p, POINTER(ProcessEntry))),
        "Process32NextW": (c_int32, (c_void_p, POINTER(ProcessEntry))),
        "SetErrorMode": (c_uint32, (c_uint32,)),
        "LocalFree": (c_void_p, (c_void_p,)),
    },
    "advapi32": {
        "OpenProcessToken": (c_int32, (c_void_p, c_uint32, POINTER(c_void_p))),
        "GetTokenInformation": (c_int32, (c_void_p, c_uint32, c_void_p, c_uint32, POINTER(c_uint32))),
        "ConvertSidToStringSidW": (c_int32, (c_void_p, POINTER(c_void_p))),
        "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
            c_int32,
            (c_char_p, c_uint32, POINTER(c_void_p), c_void_p),
        ),
        "ConvertSecurityDescriptorToStringSecurityDescriptorW": (
            c_int32,
            (c_void_p, c_uint32, c_uint32, POINTER(c_void_p), c_void_p),
        ),
        "GetSecurityInfo": (c_uint32, (c_void_p, c_uint32, c_uint32, *(POINTER(c_void_p),) * 5)),
        "GetNamedSecurityInfoW": (c_uint32, (c_char_p, c_uint32, c_uint32, *(POINTER(c_void_p),) * 5)),
        "GetSecurityDescriptorDacl": (
            c_int32,
            (c_void_p, POINTER(c_int32), POINTER(c_void_p), POINTER(c_int32)),
        ),
        "SetNamedSecurityInfoW": (c_uint32, (c_char_p, c_uint32, c_uint32, *(c_void_p,) * 4)),
    },
    "ntdll": {
        "NtQueryInformationProcess": (c_int32, (c_void_p, c_uint32, c_void_p, c_uint32, c_void_p)),
    },
}
"""Library -> function -> what it returns and takes. Texts go as bytes of UTF-16, handles as numbers."""


def wide(text: str) -> bytes:
    """A text as Windows takes it; ctypes adds one zero byte, and a wide text ends with two."""
    if "\0" in text:
        raise ValueError("a name for Windows holds a zero")
    return text.encode("utf-16-le", "surrogatepass") + b"\0"


class Api:
    """The calls, checked: what fails raises OSError."""

    def __init__(self, load: Callable[[str], Any], last_error: Callable[[], int]) -> None:
        """`load` gives a library by its name, `last_error` what GetLastError said after the last call."""
        self._load = load
        self._last_error = last_error
        self._functions: dict[tuple[str, str], Any] = {}

    def call(self, library: str, name: str, *arguments: Any) -> Any:  # noqa: ANN401 -- whatever Windows returns
        """Call a function as it is; what it returns is the caller's to judge."""
        function = self._functions.get((library, name))
        if function is None:
            function = getattr(self._load(library), name)
            function.restype, function.argtypes = TYPES[library][name]
            self._functions[library, name] = function
        return function(*arguments)

    def must(self, library: str, name: str, *arguments: Any) -> int:  # noqa: ANN401 -- the same
        """Call a function that returns 0, or no handle, when it failed; OSError then."""
        found: int | None = self.call(library, name, *arguments)
        if not found or found == INVALID_HANDLE:
            raise failure(name, self._last_error())
        return found

    def error(self) -> int:
        """What GetLastError said."""
        return self._last_error()

    def close(self, handle: int) -> None:
        """Close a handle."""
        self.call("kernel32", "CloseHandle", handle)

    def own_sid(self) -> str:
        """The user that this process runs as, as text: S-1-5-21-1-2-3-1001."""
        # Its handle is -1, which is no failure here.
        return self._sid_of(self.call("kernel32", "GetCurrentProcess"))

    def sid_of(self, pid: int) -> str:
        """The user that a process runs as; OSError if it is gone, or another user's that does not let us look."""
        process = self.must("kernel32", "OpenProcess", PROCESS_QUERY, FALSE, pid)
        try:
            return self._sid_of(process)
        finally:
            self.close(process)

    def _sid_of(self, process: int) -> str:
        token = c_void_p()
        self.must("advapi32", "OpenProcessToken", process, TOKEN_QUERY, byref(token))
        try:
            size = c_uint32()
            record = (c_uint64 * 32)()  # TOKEN_USER (a pointer and flags), then the SID itself: at most 68 bytes
            self.must("advapi32", "GetTokenInformation", token, TOKEN_USER, record, sizeof(record), byref(size))
            return self._text_of("ConvertSidToStringSidW", c_void_p(record[0]))
        finally:
            self.close(token.value or 0)

    def owner_of(self, handle: int) -> str:
        """The owner of the object behind a handle: who made it, and nobody can pretend to be another."""
        owner, descriptor = c_void_p(), c_void_p()
        code = self.call(
            *("advapi32", "GetSecurityInfo", handle, SE_KERNEL, OWNER),
            *(byref(owner), None, None, None, byref(descriptor)),
        )
        if code:
            raise failure("GetSecurityInfo", code)
        try:
            return self._text_of("ConvertSidToStringSidW", owner)
        finally:
            self.call("kernel32", "LocalFree", descriptor)

    def descriptor(self, sddl: str) -> c_void_p:
        """A security descriptor from its text; it lives as long as this process."""
        made = c_void_p()
        self.must(
            *("advapi32", "ConvertStringSecurityDescriptorToSecurityDescriptorW", wide(sddl), SDDL_REVISION),
            *(byref(made), None),
        )
        return made

    def sddl_of(self, path: str) -> str:
        """Owner and DACL of a file or folder, as text."""
        descriptor = c_void_p()
        code = self.call(
            *("advapi32", "GetNamedSecurityInfoW", wide(path), SE_FILE, OWNER | DACL),
            *(None, None, None, None, byref(descriptor)),
        )
        if code:
            raise failure(path, code)
        try:
            name = "ConvertSecurityDescriptorToStringSecurityDescriptorW"
            return self._text_of(name, descriptor, SDDL_REVISION, OWNER | DACL)
        finally:
            self.call("kernel32", "LocalFree", descriptor)

    def protect(self, path: str, sddl: str) -> None:
        """Give a file or folder this DACL and no inherited one."""
        descriptor = self.descriptor(sddl)
        present, acl, defaulted = c_int32(), c_void_p(), c_int32()
        try:
            self.must(
                *("advapi32", "GetSecurityDescriptorDacl", descriptor),
                *(byref(present), byref(acl), byref(defaulted)),
            )
            code = self.call(
                *("advapi32", "SetNamedSecurityInfoW", wide(path), SE_FILE, DACL | PROTECTED_DACL),
                *(None, None, acl, None),
            )
        finally:
            self.call("kernel32", "LocalFree", descriptor)
        if code:
            raise failure(path, code)

    def _text_of(self, name: str, *arguments: Any) -> str:  # noqa: ANN401 -- pointers
        """What a function writes as a text that it allocates, by its last argument but for the length."""
        made = c_void_p()
        last = (byref(made), None) if len(arguments) > 1 else (byref(made),)
        self.must("advapi32", name, *arguments, *last)
        address = made.value or 0
        letters = bytearray()
        while (pair := ctypes.string_at(address + len(letters), 2)) != b"\0\0":
            letters += pair
        self.call("kernel32", "LocalFree", made)
        return letters.decode("utf-16-le")


def failure(what: str, code: int) -> OSError:
    """The error that Python itself would raise for a number of winerror.h; `winerror` holds it everywhere."""
    number = {FILE_NOT_FOUND: errno.ENOENT, ACCESS_DENIED: errno.EACCES}.get(code, errno.EINVAL)
    error = OSError(number, f"{what}: Windows says {code}", None, code)
    setattr(error, "winerror", code)  # noqa: B010 -- elsewhere it is an attribute like any other
    return error


def _library(name: str) -> Any:  # noqa: ANN401 -- ctypes has no types for what is in a library
    if sys.platform == "win32":
        return ctypes.WinDLL(name, use_last_error=True)
    else:  # noqa: RET505 -- read by the type checker: the rest is for one system
        raise OSError(f"there is no {name} on this system")


def _get_last_error() -> int:
    if sys.platform == "win32":
        return ctypes.get_last_error()
    else:  # noqa: RET505 -- the same
        return 0


WINDOWS: Final = Api(_library, _get_last_error)
"""The real ones."""
