"""A disk whose power can be cut: what SQLite wrote and synced, in order, and what may be left of it afterwards.

The recorder is a VFS (https://www.sqlite.org/vfs.html) around SQLite's own, registered with ctypes in the very library
that Python's `sqlite3` uses: the code under test is not changed and does not know. Everything is passed on to the real
files; writes, truncations, syncs and deletions are written down besides.

What a cut leaves (the model of https://www.sqlite.org/atomiccommit.html): a file's bytes as of its last sync, and of
everything later any part, in any order, torn at any sector. A name that was made or deleted since the last sync of the
directory may be as it was before, whatever was synced inside the file (SQLite syncs the directory itself). A sector
itself is written whole or not at all, as SQLite assumes, too (SQLITE_IOCAP_POWERSAFE_OVERWRITE).
"""

from __future__ import annotations

import _sqlite3
import ctypes
import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

SECTOR = 512
NAME = b"llmgw-recorded"
OK = 0
RECORDED = 0x100 | 0x800 | 0x80000
"""SQLITE_OPEN_MAIN_DB, SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL: the files that outlive a connection."""

POINTER, INT, INT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
X_OPEN = ctypes.CFUNCTYPE(INT, POINTER, POINTER, POINTER, INT, POINTER)
X_DELETE = ctypes.CFUNCTYPE(INT, POINTER, ctypes.c_char_p, INT)
X_CLOSE = ctypes.CFUNCTYPE(INT, POINTER)
X_WRITE = ctypes.CFUNCTYPE(INT, POINTER, POINTER, INT, INT64)
X_TRUNCATE = ctypes.CFUNCTYPE(INT, POINTER, INT64)
X_SYNC = ctypes.CFUNCTYPE(INT, POINTER, INT)
X_SET_SYSTEM_CALL = ctypes.CFUNCTYPE(INT, POINTER, ctypes.c_char_p, POINTER)
X_GET_SYSTEM_CALL = ctypes.CFUNCTYPE(POINTER, POINTER, ctypes.c_char_p)
OPEN_DIRECTORY = ctypes.CFUNCTYPE(INT, ctypes.c_char_p, POINTER)


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`; what is not wrapped is a plain pointer."""

    _fields_ = (
        *((name, INT) for name in ("iVersion", "szOsFile", "mxPathname")),
        ("pNext", POINTER),
        ("zName", ctypes.c_char_p),
        ("pAppData", POINTER),
        ("xOpen", X_OPEN),
        ("xDelete", X_DELETE),
        *((f"other{number}", POINTER) for number in range(11)),
        ("xSetSystemCall", X_SET_SYSTEM_CALL),
        ("xGetSystemCall", X_GET_SYSTEM_CALL),
        ("xNextSystemCall", POINTER),
    )


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods`, the same."""

    _fields_ = (
        ("iVersion", INT),
        ("xClose", X_CLOSE),
        ("xRead", POINTER),
        ("xWrite", X_WRITE),
        ("xTruncate", X_TRUNCATE),
        ("xSync", X_SYNC),
        *((f"other{number}", POINTER) for number in range(12)),
    )


class _File(ctypes.Structure):
    """`sqlite3_file`."""

    _fields_ = (("methods", ctypes.POINTER(_Methods)),)


@dataclass(frozen=True, slots=True)
class Write:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True, slots=True)
class Open:
    """The name stands for a file: for a new one where there was none."""

    file: str


@dataclass(frozen=True, slots=True)
class Delete:
    file: str


@dataclass(frozen=True, slots=True)
class Sync:
    file: str


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    pass


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened beside the disk, such as an answer that was given."""

    what: str


Change = Write | Truncate
Operation = Change | Open | Delete | Sync | SyncDirectory | Mark
Image = dict[str, bytes]
"""Files by name. One that is not there does not exist."""


def library() -> ctypes.CDLL | None:
    """The SQLite of the `sqlite3` module; None where it is built in and hidden."""
    path = getattr(_sqlite3, "__file__", None)
    if path is None:
        return None
    found = ctypes.CDLL(path)
    return found if hasattr(found, "sqlite3_vfs_register") else None


@contextmanager
def recorded(folder: Path) -> Iterator[list[Operation]]:
    """Write down what is done to the databases of a folder that are opened within: they must be closed within, too."""
    sqlite = library()
    assert sqlite is not None, "ask `library` first"
    sqlite.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    sqlite.sqlite3_vfs_find.argtypes = [ctypes.c_char_p]
    sqlite.sqlite3_vfs_register.argtypes = [ctypes.POINTER(_Vfs), INT]
    sqlite.sqlite3_vfs_unregister.argtypes = [ctypes.POINTER(_Vfs)]
    real = sqlite.sqlite3_vfs_find(None)
    tap = _Tap(real, folder)
    assert sqlite.sqlite3_vfs_register(ctypes.byref(tap.vfs), 1) == OK
    try:
        yield tap.operations
    finally:
        tap.let_go()
        sqlite.sqlite3_vfs_unregister(ctypes.byref(tap.vfs))
        sqlite.sqlite3_vfs_register(real, 1)


class _Tap:
    """The wrapping VFS. Callbacks come from any thread, one at a time: the interpreter's lock sees to it."""

    def __init__(self, real: Any, folder: Path) -> None:
        self.operations: list[Operation] = []
        self._real = real
        self._folder = folder.resolve()
        self._kept: list[Any] = []
        """What SQLite has pointers to."""
        self.vfs = _Vfs.from_buffer_copy(real.contents)
        self.vfs.zName = NAME
        self.vfs.xOpen = X_OPEN(self._open)
        self.vfs.xDelete = X_DELETE(self._delete)
        # One of the calls that SQLite's own VFS lets a test replace; no method of a VFS or file shows this sync.
        self._really_open_directory = OPEN_DIRECTORY(self.vfs.xGetSystemCall(self._pointer, b"openDirectory"))
        watched = OPEN_DIRECTORY(self._open_directory)
        self._kept.append(watched)
        self.vfs.xSetSystemCall(self._pointer, b"openDirectory", ctypes.cast(watched, POINTER))

    @property
    def _pointer(self) -> Any:
        return ctypes.cast(self._real, POINTER)

    def let_go(self) -> None:
        """Give SQLite its own call back."""
        self.vfs.xSetSystemCall(self._pointer, b"openDirectory", None)

    def _open_directory(self, name: bytes, descriptor: int) -> int:
        # The name is that of a file. There is one purpose: the directory is synced before the sync or deletion returns.
        if Path(name.decode()).parent.resolve() == self._folder:
            self.operations.append(SyncDirectory())
        code: int = self._really_open_directory(name, descriptor)
        return code

    def _open(self, _vfs: int, name: int, file: int, flags: int, out: int) -> int:
        code: int = self._real.contents.xOpen(self._pointer, name, file, flags, out)
        path = Path(ctypes.string_at(name).decode()) if name else None
        if code == OK and flags & RECORDED and path is not None and path.parent.resolve() == self._folder:
            opened = _File.from_address(file)
            methods = self._methods(opened.methods.contents, path.name)
            self._kept.append(methods)
            opened.methods = ctypes.pointer(methods)
            self.operations.append(Open(path.name))
        return code

    def _delete(self, _vfs: int, name: bytes, flush: int) -> int:
        code: int = self._real.contents.xDelete(self._pointer, name, flush)
        path = Path(name.decode())
        if code == OK and path.parent.resolve() == self._folder:
            self.operations.append(Delete(path.name))
        return code

    def _methods(self, real: Any, name: str) -> _Methods:
        record = self.operations.append

        def write(file: int, data: int, size: int, offset: int) -> int:
            code: int = real.xWrite(file, data, size, offset)
            record(Write(name, offset, ctypes.string_at(data, size)))
            return code

        def truncate(file: int, size: int) -> int:
            code: int = real.xTruncate(file, size)
            record(Truncate(name, size))
            return code

        def sync(file: int, flags: int) -> int:
            code: int = real.xSync(file, flags)
            record(Sync(name))
            return code

        methods = _Methods.from_buffer_copy(real)
        methods.xWrite, methods.xTruncate, methods.xSync = X_WRITE(write), X_TRUNCATE(truncate), X_SYNC(sync)
        return methods


@dataclass(slots=True)
class _Inode:
    """A file without its name, which another file may have later."""

    durable: bytes
    pending: list[Change] = field(default_factory=list)


class Disk:
    """Follows the operations; gives at any moment what a cut may leave."""

    def __init__(self, files: Image) -> None:
        self._names: dict[str, list[_Inode | None]] = {name: [_Inode(content)] for name, content in files.items()}
        """What each name has stood for since the last sync of the directory; the durable state comes first."""

    def follow(self, operation: Operation) -> None:
        """Let one operation happen."""
        if isinstance(operation, SyncDirectory):
            self._names = {name: states[-1:] for name, states in self._names.items()}
        elif not isinstance(operation, Mark):
            self._follow(operation, self._names.setdefault(operation.file, [None]))

    def _follow(self, operation: Change | Open | Delete | Sync, states: list[_Inode | None]) -> None:
        inode = states[-1]
        if isinstance(operation, Delete):
            states.append(None)
        elif isinstance(operation, Open):
            if inode is None:
                states.append(_Inode(b""))
        elif inode is None:
            raise ValueError(f"{operation.file} was not opened: the record has a gap")
        elif isinstance(operation, Sync):
            inode.durable, inode.pending = _apply(inode.durable, inode.pending), []
        else:
            inode.pending.append(operation)

    def nothing(self) -> Image:
        """Of all that was not synced nothing is there."""
        return self._image(lambda states: states[0], lambda _changes: [])

    def everything(self) -> Image:
        """All of it is there: what a killed process leaves."""
        return self._image(lambda states: states[-1], lambda changes: changes)

    def anything(self, chance: random.Random) -> Image:
        """Any part of it is there, torn, in any order."""
        return self._image(chance.choice, lambda changes: _damaged(changes, chance))

    def _image(
        self,
        choose: Callable[[list[_Inode | None]], _Inode | None],
        survive: Callable[[list[Change]], list[Change]],
    ) -> Image:
        chosen = {name: choose(states) for name, states in self._names.items()}
        return {name: _apply(inode.durable, survive(inode.pending)) for name, inode in chosen.items() if inode}


def _apply(content: bytes, changes: list[Change]) -> bytes:
    if not changes:
        return content
    now = bytearray(content)
    for change in changes:
        if isinstance(change, Truncate):
            del now[change.size :]
            continue
        if len(now) < change.offset:
            now.extend(bytes(change.offset - len(now)))
        now[change.offset : change.offset + len(change.data)] = change.data
    return bytes(now)


def _damaged(changes: list[Change], chance: random.Random) -> list[Change]:
    """Each change is there, is not, or is there in some of its sectors; sometimes a later one without an earlier."""
    kept: list[Change] = []
    for change in changes:
        fate = chance.randrange(3)
        if fate == 0:
            continue
        kept += _torn(change, chance) if fate == 1 and isinstance(change, Write) else [change]
    if chance.randrange(2):
        chance.shuffle(kept)
    return kept


def _torn(write: Write, chance: random.Random) -> list[Write]:
    """Some of the sectors that a write touches."""
    first = -write.offset % SECTOR
    cuts = [0, *range(first or SECTOR, len(write.data), SECTOR), len(write.data)]
    return [
        Write(write.file, write.offset + start, write.data[start:end])
        for start, end in itertools.pairwise(cuts)
        if chance.randrange(2)
    ]
