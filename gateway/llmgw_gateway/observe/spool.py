"""The file that audit records are appended to: chained, flushed, repaired after a crash, put aside when it is full.

One file is one chain, of one UTC day. A new day, a full file, another key and a file that cannot be continued begin a
new one, whose first record names the head of the last: so a file that has gone, or lost its end, is missed. Used by one
thread.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from llmgw_gateway.observe import chain
from llmgw_gateway.observe.chain import FIRST, Head

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llmgw_gateway.observe.chain import Key

OPENING: Final = "chain"
REPAIRED: Final = "repaired"
TAIL: Final = 2 << 20
"""Bytes in which the last two records are looked for: the largest is a tenth of it."""
log = logging.getLogger("llmgw.audit")


class Opening(msgspec.Struct, omit_defaults=True):
    """The first record of a file."""

    kind: str
    chain: str
    day: str
    writer: str
    key: str
    time: str
    previous: Head | None = None
    """The chain that this gateway wrote before; None: there was none."""
    seq: int = 0


class Spool:
    """Appends to `path`. What is full or over is renamed: audit.jsonl becomes audit-2026-11-21.001.jsonl."""

    def __init__(
        self, path: Path, key: Key, *, writer: str, most_bytes: int, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._key = key
        self._writer = writer
        self._most = most_bytes
        self._now = now
        self._file: int | None = None
        self._regular = True
        self._size = 0
        self._number = 0
        self._seal = FIRST
        self._chain = ""
        self._day = ""
        self._last: Head | None = None
        """The head of the chain before this one."""
        self._over = ""
        """The day of a file that has to be put aside."""
        self._torn = 0
        self._ready = b""
        """Sealed, and not yet written."""

    @property
    def head(self) -> Head | None:
        """How far the chain goes that is being written; None before its first record."""
        return Head(self._chain, self._day, self._number, self._seal.hex()) if self._chain else None

    def open(self) -> None:
        """Open the file (0600), and see how far its chain goes. OSError when it cannot be opened."""
        self._open()
        if not self._regular:
            return
        with self._path.open("r+b") as file:
            found = _recovered(file, self._key)
        if found is None:
            return
        self._size = self._path.stat().st_size
        self._torn = found.torn
        if found.whole and found.head is not None and found.key == self._key.key_id:
            head = found.head
            self._chain, self._day, self._number = head.chain, head.day, head.count
            self._seal = bytes.fromhex(head.seal)
            return
        # Under another key, or not as a gateway left it: kept as it is, and the new file names it.
        if not found.whole:
            log.error("%s is not as a gateway left it: it is put aside, and a new file begun", self._path)
        self._last = found.head
        self._over = found.head.day if found.head is not None else _day(self._now())
        self.turn()

    def begin_anew(self) -> None:
        """Go on in a new file, because the one that is there has lost what the store was told of."""
        self._finish()

    def follow(self, most_bytes: int) -> None:
        """Begin a new file at another size."""
        self._most = most_bytes

    def rekey(self, key: Key) -> None:
        """Seal with another key from now on, in a new file."""
        self._finish()
        self._key = key

    def take(self, bodies: Sequence[bytes]) -> None:
        """Seal records; `flush` writes them. Call it once for each record, and only when `flush` has ended well."""
        lines = []
        if not self._chain:
            lines.append(self._begin())
        if self._torn:
            torn = {"kind": REPAIRED, "time": _time(self._now()), "torn_bytes": self._torn}
            bodies = [msgspec.json.encode(torn), *bodies]
            self._torn = 0
        key, number, seal = self._key, self._number, self._seal
        for body in bodies:
            line, seal = chain.sealed(key, seal, number, body)
            number += 1
            lines.append(line)
        self._number, self._seal = number, seal
        self._ready = b"".join(lines)

    def turn(self) -> None:
        """Begin a new file where it is time for one. OSError when the disk does not want it; then call it again."""
        if self._chain and (self._size >= self._most or self._day != _day(self._now())):
            self._finish()
        if self._over:
            with suppress(FileNotFoundError):  # somebody else has moved it
                self._path.rename(aside(self._path, self._over))
            self._over = ""
            self.close()
        if self._file is None:
            self._open()

    def _finish(self) -> None:
        if self._chain and self._regular:
            self._last, self._over, self._chain = self.head, self._day, ""

    def flush(self) -> None:
        """Write what was sealed, and have it on disk. OSError when it is not; then call it again."""
        if self._file is None:
            self._open()
        while self._ready:
            written = os.write(self._file or 0, self._ready)
            self._ready = self._ready[written:]
            self._size += written
        if self._regular:
            os.fsync(self._file or 0)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.fstat(self._file)
        self._regular = stat.S_ISREG(found.st_mode)
        if self._regular:
            self._size = found.st_size
            os.fchmod(self._file, 0o600)
            _sync_folder(self._path.parent)

    def _begin(self) -> bytes:
        now = self._now()
        self._chain, self._day = f"chn_{secrets.token_hex(12)}", _day(now)
        opening = Opening(OPENING, self._chain, self._day, self._writer, self._key.key_id, _time(now), self._last)
        line, self._seal = chain.sealed(self._key, FIRST, 0, msgspec.json.encode(opening))
        self._number = 1
        return line


def aside(path: Path, day: str) -> Path:
    """The next free name for what was written on a day."""
    taken = [_part(each) for each in path.parent.glob(f"{path.stem}-{day}.*{path.suffix}")]
    return path.with_name(f"{path.stem}-{day}.{max(taken, default=0) + 1:03d}{path.suffix}")


def _part(path: Path) -> int:
    number = path.stem.rpartition(".")[2]
    return int(number) if number.isdecimal() else 0


class _Found(msgspec.Struct):
    """What an earlier process left."""

    head: Head | None
    key: str
    torn: int
    """Bytes of a line that it could not finish: they were cut off."""
    whole: bool
    """Whether the file begins and ends with records of a chain."""


def _recovered(file: BinaryIO, key: Key) -> _Found | None:
    """Where an earlier process stopped; None for a file that is empty."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - TAIL)
    file.seek(start)
    tail = file.read()
    end = tail.rfind(b"\n") + 1
    # What a power cut has left in the place of lines goes, too: were it more, the store would know of a longer chain.
    while end and chain.opened(tail[_line_before(tail, end) : end]) is None:
        end = _line_before(tail, end)
    torn = len(tail) - end
    if torn:
        file.truncate(start + end)
        os.fsync(file.fileno())
        log.warning("the last line of the audit trail was torn by a crash: %d bytes were cut off", torn)
    if not start + end:
        return None
    file.seek(0)
    opening = read_opening(file.readline(TAIL))
    begin = _line_before(tail, end)
    last = chain.opened(tail[begin:end])
    number = sequence(last[0]) if last is not None else None
    if opening is None or last is None or number is None:
        return _Found(None, "", torn, whole=False)
    before = chain.opened(tail[_line_before(tail, begin) : begin]) if number else (b"", FIRST)
    # Whether a chain of another key holds cannot be said here; the verifier has all keys.
    whole = opening.key != key.key_id or (before is not None and chain.holds(key, before[1], *last))
    return _Found(Head(opening.chain, opening.day, number + 1, last[1].hex()), opening.key, torn, whole=whole)


def _line_before(text: bytes, end: int) -> int:
    """Where the line begins that ends at `end`."""
    return text.rfind(b"\n", 0, max(0, end - 1)) + 1


def read_opening(line: bytes) -> Opening | None:
    """The first record of a file; None when it is none."""
    try:
        opening = msgspec.json.decode(line, type=Opening)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return opening if opening.kind == OPENING and opening.seq == 0 else None


def sequence(record: bytes) -> int | None:
    """The number of a record; None when it has none."""
    start, _, _ = record.partition(b",")
    digits = start.removeprefix(b'{"seq":')
    return int(digits) if digits.isdigit() and len(digits) < 16 else None  # noqa: PLR2004 -- no number of ours is longer


def _sync_folder(folder: Path) -> None:
    """A name is on disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
