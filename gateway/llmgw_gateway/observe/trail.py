"""Reads the files of the audit trail: whether they are whole, and what they say, one record in memory at a time.

What is wrong with a file is named once, at its first place: behind it nothing can be said of that file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmgw_gateway.observe import chain
from llmgw_gateway.observe.anchors import CHANGES, REMOVED
from llmgw_gateway.observe.chain import FIRST, Head
from llmgw_gateway.observe.spool import REPAIRED, TAIL, read_opening, sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from llmgw_gateway.observe.chain import Key
    from llmgw_gateway.observe.spool import Opening

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
) -> Report:
    """Check each file, then that none is missing between them or behind them.

    `anchors` is what the store was told; of those that `writer` has told every file must be here. `progress` is called
    with the bytes that were read since.
    """
    report = Report()
    known = {key.key_id: key for key in keys}
    told = {each.head.chain: each for each in _genuine(anchors, known, report)}
    broken: set[str] = set()
    for each in found:
        _verify_file(each, known, told, report, broken, progress)
    _verify_links(found, told, report, broken)
    elsewhere: dict[str, int] = {}
    for name, anchor in told.items():
        if name in report.heads or name in broken:
            continue
        if anchor.writer == writer:
            report.faults.append(
                f"the file of {name} ({anchor.head.day}, {anchor.head.count} records) is missing: the store knows of it"
            )
        else:
            elsewhere[anchor.writer] = elsewhere.get(anchor.writer, 0) + 1
    report.notes += [
        f"{count} {'file' if count == 1 else 'files'} of {name} not looked at"
        for name, count in sorted(elsewhere.items())
    ]
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


def _verify_file(
    file: File,
    keys: Mapping[str, Key],
    told: Mapping[str, Anchor],
    report: Report,
    broken: set[str],
    progress: Callable[[int], None],
) -> None:
    """Follow one chain to its end, and compare it with what the store was told."""
    report.files += 1
    name, opening = file.path.name, file.opening
    if opening is None:
        if file.path.stat().st_size:
            report.faults.append(f"{name}: line 1: no audit file begins so")
        return
    anchor = told.get(opening.chain)
    key = keys.get(opening.key)
    if key is None:
        broken.add(opening.chain)
        report.faults.append(f"{name}: {_no_key(opening.key)}")
        return
    previous, number = FIRST, 0
    for line in _lines(file.path, progress):
        if not line.endswith(b"\n"):
            report.notes.append(
                f"{name}: line {number + 1} is torn ({len(line)} bytes): a crash; the next start cuts it off"
            )
            break
        fault, seal = _fault(line, number, previous, key)
        if fault:
            broken.add(opening.chain)
            report.faults.append(f"{name}: line {number + 1}: {fault}")
            return
        previous = seal
        number += 1
        if anchor is not None and number == anchor.head.count and seal.hex() != anchor.head.seal:
            broken.add(opening.chain)
            report.faults.append(f"{name}: line {number}: another record than the one that the store was told of")
            return
        _mark(line, name, number, report)
    report.records += number
    report.heads[opening.chain] = Head(opening.chain, opening.day, number, previous.hex())
    if anchor is not None and number < anchor.head.count:
        report.faults.append(
            f"{name}: it ends after line {number}, and the store was told of {anchor.head.count}: cut off"
        )


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


def _mark(line: bytes, name: str, number: int, report: Report) -> None:
    """Records that are about no request tell of repairs, and of administrators' changes."""
    if b'"kind":"' not in line[:40]:
        return
    record = _decoded((chain.opened(line) or (b"", b""))[0]) or {}
    if record.get("kind") == REPAIRED:
        report.notes.append(f"{name}: line {number}: a torn line of {record['torn_bytes']} bytes was cut off here")
    elif record.get("kind") == REMOVED:
        report.removed.add(record["chain"])
    elif record.get("kind") == CHANGES:
        report.changes[record["number"]] = record["hash"]


def _verify_links(found: Sequence[File], told: Mapping[str, Anchor], report: Report, broken: set[str]) -> None:
    """Each file names the end of the one before it."""
    for each in found:
        before = each.opening.previous if each.opening is not None else None
        if before is None or before.chain in broken:
            continue
        head = report.heads.get(before.chain)
        if head is None:
            if before.chain not in told and before.chain not in report.removed:
                report.notes.append(
                    f"{each.path.name}: the file before it ({before.day}, {before.count} records) is not here"
                )
        elif head != before:
            report.faults.append(
                f"the file before {each.path.name} ends after line {head.count}, and had {before.count}: cut off"
                if head.count < before.count
                else f"the file before {each.path.name} goes on after its end: records were added"
            )


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
