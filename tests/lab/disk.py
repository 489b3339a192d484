"""A disk whose power can be cut: what SQLite wrote and synced, in order, and what may be left of it afterwards.

The recorder is a VFS (https://www.sqlite.org/vfs.html) around SQLite's own, registered with ctypes in the very library
that Python's `sqlite3` uses: the code under test is not changed and does not know. Everything is passed on to the real
files; writes, truncations, syncs and deletions are written down besides.

What a cut leaves (the model of https://www.sqlite.org/atomiccommit.html): a file's bytes as of its last sync, and of
everything later any part, in any order, torn at any sector. A sector itself is written whole or not at all, as SQLite
assumes, too (SQLITE_IOCAP_POWERSAFE_OVERWRITE).
"""

from __future__ import annotations

import _sqlite3
import ctypes
import itertools
from contextlib import contextmanager
from dataclasses import dataclass
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


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs`; what is not wrapped is a plain pointer."""

    _fields_ = (
        *((name, INT) for name in ("iVersion", "szOsFile", "mxPathname")),
        ("pNext", POINTER),
        ("zName", ctypes.c_char_p),
        ("pAppData", POINTER),
        ("xOpen", X_OPEN),
        ("xDelete", X_DELETE),
        *((f"other{number}", POINTER) for number in range(12)),
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
class Delete:
    file: str


@dataclass(frozen=True, slots=True)
class Sync:
    file: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened beside the disk, such as an answer that was given."""

    what: str


Change = Write | Truncate | Delete
Operation = Change | Sync | Mark
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

    def _open(self, _vfs: int, name: int, file: int, flags: int, out: int) -> int:
        code: int = self._real.contents.xOpen(ctypes.cast(self._real, POINTER), name, file, flags, out)
        path = Path(ctypes.string_at(name).decode()) if name else None
        if code == OK and flags & RECORDED and path is not None and path.parent.resolve() == self._folder:
            opened = _File.from_address(file)
            methods = self._methods(opened.methods.contents, path.name)
            self._kept.append(methods)
            opened.methods = ctypes.pointer(methods)
        return code

    def _delete(self, _vfs: int, name: bytes, flush: int) -> int:
        code: int = self._real.contents.xDelete(ctypes.cast(self._real, POINTER), name, flush)
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


class Disk:
    """Follows the operations; gives at any moment what a cut may leave."""

    def __init__(self, files: Image) -> None:
        self._durable: dict[str, bytes | None] = dict(files)
        self._pending: dict[str, list[Change]] = {}

    def follow(self, operation: Operation) -> None:
        """Let one operation happen."""
        if isinstance(operation, Sync):
            done = self._pending.pop(operation.file, [])
            self._durable[operation.file] = _apply(self._durable.get(operation.file), done)
        elif not isinstance(operation, Mark):
            self._pending.setdefault(operation.file, []).append(operation)

    def nothing(self) -> Image:
        """Of all that was not synced nothing is there."""
        return self._image(lambda _changes: [])

    def everything(self) -> Image:
        """All of it is there: what a killed process leaves."""
        return self._image(lambda changes: changes)

    def anything(self, chance: random.Random) -> Image:
        """Any part of it is there, torn, in any order."""
        return self._image(lambda changes: _damaged(changes, chance))

    def _image(self, survive: Callable[[list[Change]], list[Change]]) -> Image:
        image = {}
        for name in self._durable.keys() | self._pending.keys():
            content = _apply(self._durable.get(name), survive(self._pending.get(name, [])))
            if content is not None:
                image[name] = content
        return image


def _apply(content: bytes | None, changes: list[Change]) -> bytes | None:
    if not changes:
        return content
    now: bytearray | None = None if content is None else bytearray(content)
    for change in changes:
        if isinstance(change, Delete):
            now = None
            continue
        now = bytearray() if now is None else now
        if isinstance(change, Truncate):
            del now[change.size :]
            continue
        if len(now) < change.offset:
            now.extend(bytes(change.offset - len(now)))
        now[change.offset : change.offset + len(change.data)] = change.data
    return None if now is None else bytes(now)


def _damaged(changes: list[Change], chance: random.Random) -> list[Change]:
    """Each change is there, is not, or is there in some of its sectors; sometimes a later one without an earlier."""
    kept: list[Change] = []
    for change in changes:
        fate = chance.randrange(3)
        if fate == 0:
            continue
        kept += _torn(change, chance) if fate == 1 and isinstance(change, Write) else [change]
    if chance.randrange(2) and not any(isinstance(change, Delete) for change in kept):
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
