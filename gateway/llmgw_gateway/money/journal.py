"""The journal of the calls that were admitted while the store was away: a local file, synced before each dispatch.

One record a line, with a checksum before it. The first line names the replica, and by that its allowances in the store.
A torn tail is what a crash leaves of records that nobody was told were durable: it is cut off. Damage before good
records is different: something that was durable is lost, so what the replica had set aside must not be given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.errors import StoreError
from llmgw_gateway.money.items import Draw, Settlement  # noqa: TC001 -- msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIGITS: Final = 8
"""Of a CRC-32 in hexadecimal, before each record."""
log = logging.getLogger("llmgw.journal")


class _Head(msgspec.Struct, frozen=True, tag="journal", tag_field="record"):
    replica: str
    version: int = 1


class _Drawn(msgspec.Struct, frozen=True, tag="draw", tag_field="record"):
    draw: Draw


class _Ended(msgspec.Struct, frozen=True, tag="end", tag_field="record"):
    end: Settlement


_decoder = msgspec.json.Decoder(_Head | _Drawn | _Ended)


class Contents(msgspec.Struct):
    """What a journal says."""

    replica: str = ""
    """Empty: it has no head."""
    draws: dict[str, Draw] = msgspec.field(default_factory=dict)
    """By attempt."""
    ends: dict[str, Settlement] = msgspec.field(default_factory=dict)
    length: int = 0
    """Bytes up to the end of the last good record."""
    damaged: bool = False
    """Whether there is a good record behind one that is not."""


def encode(record: _Head | _Drawn | _Ended) -> bytes:
    """One line."""
    text = msgspec.json.encode(record)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def contents(data: bytes) -> Contents:
    """Read a journal. Each record stands for itself: one that cannot be read hides none that can."""
    found = Contents()
    place, broken = 0, False
    for line in data.splitlines(keepends=True):
        place += len(line)
        record = _decoded(line)
        if record is None:
            broken = True
            continue
        found.length = place
        found.damaged |= broken
        if isinstance(record, _Head):
            found.replica = record.replica
        elif isinstance(record, _Drawn):
            found.draws[record.draw.attempt_id] = record.draw
        else:
            found.ends.setdefault(record.end.attempt_id, record.end)
    found.damaged |= bool(found.length) and not found.replica
    return found


def _decoded(line: bytes) -> _Head | _Drawn | _Ended | None:
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        record: _Head | _Drawn | _Ended = _decoder.decode(text)
    except msgspec.DecodeError:
        return None
    return record


class Journal:
    """The file of one replica. Records that are appended at the same time share one sync."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._head = b""
        self._length = 0
        """Of the good records. Touched by one thread at a time: the opener's, then the writer's."""
        self._distrusted = False
        """After a failed write. Touched like `_length`."""
        self.replica = ""
        """Whose allowances it tells about."""
        self.usable = False
        """False after a failed write: what a disk has kept of it is not known, so nothing more is promised on it."""

    def open(self) -> Contents:
        """Lock it and read what a former life has left. StoreError when it cannot be used. Blocks."""
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = contents(_read(self._file))
        except BlockingIOError:
            os.close(self._file)
            self._file = -1
            raise StoreError(f"the journal {self._path} is in use by another gateway: each replica needs one") from None
        except OSError as error:
            raise StoreError(f"the journal {self._path} cannot be used: {error.strerror}") from None
        self.replica = found.replica
        self._length = found.length
        return found

    def begin(self) -> None:
        """Start it anew, after everything in it was replayed. OSError when the disk refuses. Blocks."""
        self.replica = self.replica or f"rep_{secrets.token_hex(8)}"
        self._head = encode(_Head(self.replica))
        self._rewind(0)
        self._put(self._head)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.usable = True

    def forget_replica(self) -> None:
        """Take a new name with the next `begin`: what was set aside under the old one stays until it is written off."""
        self.replica = ""

    async def draw(self, draw: Draw) -> None:
        """Make a draw durable. OSError when the disk refuses: then nothing may be dispatched on it."""
        await self._append(encode(_Drawn(draw)))

    async def end(self, end: Settlement) -> None:
        """Make durable how a draw ended. OSError as before."""
        await self._append(encode(_Ended(end)))

    async def truncate(self) -> None:
        """Forget everything, because the store has it; what is appended from now on comes behind that.

        Does nothing while something is on the way. OSError when the disk refuses: then the file is used no more.
        """
        if self._flushing is None and self.usable and self._length > len(self._head):
            try:
                await asyncio.get_running_loop().run_in_executor(self._writer, self._rewind, len(self._head))
            except OSError as error:
                self._close_for_good(error)
                raise

    async def close(self) -> None:
        """Write what is waiting, and let go of the file."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        self._writer.shutdown()
        self.usable = False
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _append(self, line: bytes) -> None:
        if not self.usable:
            raise OSError(f"the journal {self._path} is not usable")
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append((line, durable))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="journal")
        # Whoever waits may be cancelled; the others that share the sync are not.
        await asyncio.shield(durable)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                error = await self._sync(b"".join(line for line, _ in batch))
                for _, durable in batch:
                    if error is None:
                        durable.set_result(None)
                    else:
                        durable.set_exception(OSError(error.errno, error.strerror))
                        durable.exception()  # whoever was cancelled meanwhile does not ask
        finally:
            self._flushing = None

    async def _sync(self, data: bytes) -> OSError | None:
        if not self.usable:
            return OSError("the journal is not usable")
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._put, data)
        except OSError as error:
            self._close_for_good(error)
            return error
        return None

    def _close_for_good(self, error: OSError) -> None:
        if self.usable:
            log.error("the journal cannot be written: %s; without the store, calls are refused", error)
        self.usable = False

    def _put(self, data: bytes) -> None:
        with self._trusted():
            place = self._length
            rest = data
            while rest:
                written = os.pwrite(self._file, rest, place)
                rest, place = rest[written:], place + written
            os.fsync(self._file)
            self._length = place

    def _rewind(self, length: int) -> None:
        with self._trusted():
            os.ftruncate(self._file, length)
            os.fsync(self._file)
            self._length = length

    @contextlib.contextmanager
    def _trusted(self) -> Iterator[None]:
        """A sync that failed once may succeed the next time without having written: never trust the file again.

        Known to the thread that writes, before the loop hears of it: what is appended behind a truncation that failed
        would stand behind a hole, and would not be read again.
        """
        if self._distrusted:
            raise OSError(errno.EIO, "the disk has refused before")
        try:
            yield
        except OSError:
            self._distrusted = True
            raise


def _read(file: int) -> bytes:
    chunks = []
    place = 0
    while chunk := os.pread(file, 1 << 20, place):
        chunks.append(chunk)
        place += len(chunk)
    return b"".join(chunks)
