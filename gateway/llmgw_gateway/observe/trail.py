"""Reads the files of the audit trail: whether they are whole, and what they say, one record in memory at a time.

What is wrong with a file is named once, at its first place: behind it nothing can be said of that file.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmgw_gateway.observe import chain
from llmgw_gateway.observe.anchors import CHANGES, REMOVED, STORE, UNKNOWN
from llmgw_gateway.observe.chain import FIRST, Head
from llmgw_gateway.observe.spool import REPAIRED, TAIL, read_opening, sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llmgw_gateway.observe.chain import Key
    from llmgw_gateway.observe.spool import Opening

TOLD_WITHIN: Final = timedelta(seconds=10)
"""So long after its beginning the store has been told of a file, or the file says that the store was away."""
DELETED: Final = "its record was deleted, and the end may be cut off"
KEPT: Final = "the kept report knows of"
LINES_AT_ONCE: Final = 5_000
"""Between two calls of `progress`."""
_marks = msgspec.json.Decoder(type=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the store was told about a file."""

    head: Head
    writer: str
    key_id: str
    mac: str


@dataclass
class Report:
    """What a verification has found. Faults are evidence of a change, notes of a crash or of what is elsewhere."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    records: int = 0
    heads: dict[str, Head] = field(default_factory=dict)
    """How far each file goes, by chain."""
    removed: set[str] = field(default_factory=set)
    """Chains that retention has removed."""
    changes: dict[int, str] = field(default_factory=dict)
    """Hashes of administrators' changes, by number."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of the trail."""

    path: Path
    opening: Opening | None
    """None: it does not begin with one."""


def files(paths: Sequence[Path], suffix: str = ".jsonl") -> list[File]:
    """The files that are named, and those of named folders, by day and name."""
    found = []
    for path in paths:
        inside = sorted(each for each in path.iterdir() if each.suffix == suffix) if path.is_dir() else [path]
        found += [File(each, _opening(each)) for each in inside]
    return sorted(found, key=lambda each: (each.opening.time if each.opening else "", str(each.path)))


def of(path: Path) -> list[Path]:
    """The file that a gateway writes, and those that it has put aside."""
    found = sorted(path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}"))
    return [*found, path] if path.exists() else found


def older(path: Path, day: str) -> list[File]:
    """The files that a gateway has put aside and that are of days before `day`."""
    found = files([each for each in of(path) if each != path])
    return [each for each in found if each.opening is not None and each.opening.day < day]


def verify(
    found: Sequence[File],
    keys: Sequence[Key],
    anchors: Iterable[Anchor],
    writer: str,
    progress: Callable[[int], None] = lambda _: None,
    *,
    day: str = "",
    kept: Iterable[Head] = (),
) -> Report:
    """Check each file, then that none is missing between them or behind them.

    `anchors` is what the store was told; of those that `writer` has told every file must be here. `kept` are heads of
    an earlier report that somebody has kept elsewhere. `day` says that only files of this day are looked at. `progress`
    is called with the bytes that were read since.
    """
    report = Report()
    known = {key.key_id: key for key in keys}
    found_there = list(anchors)
    told = {each.head.chain: each for each in _genuine(found_there, known, report)}
    elsewhere = {each.chain: each for each in kept if day in ("", each.day)}
    verification = _Verification(known, told, elsewhere, writer, day, report, progress)
    for each in found:
        verification.read(each)
    for anchor in found_there:  # it knows of the file; that it says something else is a fault of its own
        verification.untold.pop(anchor.head.chain, None)
    verification.follow_links(found)
    verification.judge_untold()
    verification.miss(min((each.opening.day for each in found if each.opening), default=""))
    return report


def records(found: Sequence[File], progress: Callable[[int], None] = lambda _: None) -> Iterator[dict[str, Any]]:
    """What the files say, in their order, without the openings and with lines that are none left out."""
    for each in found:
        for line in _lines(each.path, progress):
            parts = chain.opened(line)
            if parts is not None and (decoded := _decoded(parts[0])) is not None:
                yield decoded


def _genuine(anchors: Iterable[Anchor], keys: Mapping[str, Key], report: Report) -> Iterator[Anchor]:
    for each in anchors:
        key = keys.get(each.key_id)
        if key is None:
            report.faults.append(f"{each.head.chain} ({each.head.day}): {_no_key(each.key_id)}")
        elif chain.anchor_seal(key, each.head, each.writer) != each.mac:
            report.faults.append(f"the store's record of {each.head.chain} ({each.head.day}) was altered")
        else:
            yield each


@dataclass
class _Course:
    """How far one file has been read."""

    previous: bytes = FIRST
    number: int = 0
    line: bytes = b""
    """The last one."""
    away: bool = False
    """Whether the file says that the store cannot be told of it just now."""


@dataclass
class _Verification:
    """One look at all files."""

    keys: Mapping[str, Key]
    told: Mapping[str, Anchor]
    kept: Mapping[str, Head]
    writer: str
    day: str
    report: Report
    progress: Callable[[int], None]
    broken: set[str] = field(default_factory=set)
    """Chains with a fault of their own."""
    untold: dict[str, tuple[File, _Course]] = field(default_factory=dict)
    """Files that the store knows nothing of, by chain."""

    def read(self, file: File) -> None:
        """Follow one chain to its end, and compare it with what the store was told."""
        report, name, opening = self.report, file.path.name, file.opening
        report.files += 1
        if opening is None:
            if file.path.stat().st_size:
                report.faults.append(f"{name}: line 1: no audit file begins so")
            return
        key = self.keys.get(opening.key)
        if key is None:
            self._broken(opening, f"{name}: {_no_key(opening.key)}")
            return
        course, witnesses = _Course(), self._witnesses(opening.chain)
        if fault := self._follow(file, opening, key, course, witnesses):
            self._broken(opening, f"{name}: line {course.number + 1}: {fault}")
            return
        report.records += course.number
        report.heads[opening.chain] = Head(opening.chain, opening.day, course.number, course.previous.hex())
        if opening.chain not in self.told:
            self.untold[opening.chain] = file, course
        longest = max(witnesses, key=lambda each: each[1].count, default=None)
        if longest is not None and course.number < longest[1].count:
            report.faults.append(
                f"{name}: it ends after line {course.number}, and {longest[0]} {longest[1].count}: cut off"
            )

    def _follow(
        self, file: File, opening: Opening, key: Key, course: _Course, witnesses: Sequence[tuple[str, Head]]
    ) -> str:
        """Read on until something is wrong: what that is, with the line that `course` has not taken in."""
        name = file.path.name
        for line in _lines(file.path, self.progress):
            if not line.endswith(b"\n"):
                torn = f"{name}: line {course.number + 1} is torn ({len(line)} bytes)"
                self.report.notes.append(f"{torn}: a crash; the next start cuts it off")
                break
            fault, seal = _fault(line, course.number, course.previous, key)
            if fault:
                return fault
            for who, head in witnesses:
                if head.count == course.number + 1 and head.seal != seal.hex():
                    return f"another record than the one that {who}"
            self._mark(line, name, opening, course)
            course.previous, course.number, course.line = seal, course.number + 1, line
        return ""

    def _witnesses(self, name: str) -> list[tuple[str, Head]]:
        """Who says how far a file goes."""
        found = [("the store was told of", self.told[name].head)] if name in self.told else []
        return [*found, (KEPT, self.kept[name])] if name in self.kept else found

    def _broken(self, opening: Opening, fault: str) -> None:
        self.broken.add(opening.chain)
        self.report.faults.append(fault)

    def _mark(self, line: bytes, name: str, opening: Opening, course: _Course) -> None:
        """Records that are about no request tell of repairs, of the store, and of administrators' changes."""
        if b'"kind":"' not in line[:40]:
            return
        place, report = f"{name}: line {course.number + 1}", self.report
        record = _decoded((chain.opened(line) or (b"", b""))[0]) or {}
        kind = record.get("kind")
        if kind == REPAIRED:
            report.notes.append(f"{place}: a torn line of {record['torn_bytes']} bytes was cut off here")
        elif kind == REMOVED:
            report.removed.add(record["chain"])
        elif kind == CHANGES:
            report.changes[record["number"]] = record["hash"]
        elif kind == STORE:
            course.away = record["away"]
        elif kind == UNKNOWN:
            why = _excuse(opening, course)
            what = f"{place}: a start found that the store knew nothing of the {record['records']} records before"
            (report.notes if why else report.faults).append(f"{what}: {why or DELETED}")

    def follow_links(self, found: Sequence[File]) -> None:
        """Each file names the end of the one before it."""
        report, writers = self.report, set()
        for each in found:
            if each.opening is None:
                continue
            before, name = each.opening.previous, each.path.name
            if before is None and each.opening.writer in writers and not self.day:
                report.notes.append(f"{name}: its gateway had found no file before it when it began this one")
            writers.add(each.opening.writer)
            if before is None or before.chain in self.broken:
                continue
            self.untold.pop(before.chain, None)
            head = report.heads.get(before.chain)
            if head is None:
                self._miss_link(each.opening, name, before)
            elif head != before:
                report.faults.append(
                    f"the file before {name} ends after line {head.count}, and had {before.count}: cut off"
                    if head.count < before.count
                    else f"the file before {name} goes on after its end: records were added"
                )

    def _miss_link(self, opening: Opening, name: str, before: Head) -> None:
        if before.chain in self.told or before.chain in self.report.removed:
            return
        gone = f"the file before {name} ({before.day}, {before.count} records) is"
        if opening.writer == self.writer and self.day in ("", before.day):
            self.report.faults.append(f"{gone} missing, and no retention says so")
        else:
            self.report.notes.append(f"{gone} not here")

    def judge_untold(self) -> None:
        """What neither the store nor a following file vouches for may have lost its end."""
        for file, course in self.untold.values():
            name, opening = file.path.name, file.opening
            if opening is None:
                continue
            why = _excuse(opening, course) or ("" if opening.writer == self.writer else "of another gateway")
            what = f"{name}: the store knows nothing of it ({course.number} records)"
            (self.report.notes if why else self.report.faults).append(f"{what}: {why or DELETED}")

    def miss(self, oldest: str) -> None:
        """Files that are known of and not here. `oldest` is the first day of those that are."""
        report, elsewhere = self.report, Counter[str]()
        looked_at = {*report.heads, *self.broken}
        for name, anchor in self.told.items():
            if name not in looked_at and anchor.writer == self.writer:
                what = f"the file of {name} ({anchor.head.day}, {anchor.head.count} records)"
                report.faults.append(f"{what} is missing: the store knows of it")
            elif name not in looked_at:
                elsewhere[anchor.writer] += 1
        for name, head in self.kept.items():
            if name not in looked_at and name not in self.told and name not in report.removed:
                what = f"the file of {name} ({head.day}, {head.count} records) is missing: {KEPT} it"
                (report.faults if head.day >= oldest else report.notes).append(what)
        report.notes += [
            f"{count} {'file' if count == 1 else 'files'} of {name} not looked at"
            for name, count in sorted(elsewhere.items())
        ]


def _excuse(opening: Opening, course: _Course) -> str:
    """Why the store need not know of what was read so far; empty when it has to."""
    if course.away:
        return "the store was away"
    last = (_decoded((chain.opened(course.line) or (b"", b""))[0]) or {}).get("time", "")
    try:
        young = datetime.fromisoformat(last) - datetime.fromisoformat(opening.time) < TOLD_WITHIN
    except ValueError:
        return ""
    return "a crash in its first seconds, or they are all that is left of it" if young else ""


def _fault(line: bytes, number: int, previous: bytes, key: Key) -> tuple[str, bytes]:
    """What is wrong with the line that should be record `number`, and its seal."""
    parts = chain.opened(line)
    found = sequence(parts[0]) if parts is not None else None
    if parts is None or found is None:
        return "no record of an audit trail", b""
    if found > number:
        missing = f"record {number} is" if found == number + 1 else f"records {number} to {found - 1} are"
        return f"{missing} missing before record {found}", b""
    if found < number:
        return f"record {found} stands after record {number - 1}: repeated, or in another order", b""
    record, seal = parts
    if not chain.holds(key, previous, record, seal):
        request = (_decoded(record) or {}).get("request_id", "")
        return f"record {number}{f' ({request})' if request else ''} was altered", b""
    return "", seal


def _no_key(key_id: str) -> str:
    return f"sealed with another key ({key_id}); name its secret in audit.former_key_files"


def _opening(path: Path) -> Opening | None:
    with path.open("rb") as file:
        return read_opening(file.readline(TAIL))


def _lines(path: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    size = 0
    with path.open("rb") as file:
        # Until where it is whole now: a gateway may be writing.
        end = os.fstat(file.fileno()).st_size
        while (line := file.readline(min(TAIL, end))) and end > 0:
            end -= len(line)
            size += len(line)
            yield line
            if size > LINES_AT_ONCE * 1_000:
                progress(size)
                size = 0
    progress(size)


def _decoded(record: bytes) -> dict[str, Any] | None:
    try:
        return _marks.decode(record + b"}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
