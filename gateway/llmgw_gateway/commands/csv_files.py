"""CSV as people exchange it with spreadsheets: read with every fault told by its line, and written without formulas.

A spreadsheet takes a cell for a formula when it begins with one of a few signs. Such a cell is written with an
apostrophe before it, which a spreadsheet takes for "this is text" and which reading takes off again: what was exported
is imported unchanged. Of a text that begins with an apostrophe itself, the same is done.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmgw_gateway.identity.entries import text_fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SEPARATOR: Final = "|"
"""Between several names in one cell."""
MOST_BYTES: Final = 256 * 1024 * 1024
_SIGNS: Final = ("=", "+", "-", "@")
_GUARD: Final = "'"
_YES_NO: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file: which one, and its cells by column."""

    number: int
    cells: Mapping[str, str]

    def get(self, column: str) -> str | None:
        """A cell; None: the file has no such column."""
        return self.cells.get(column)

    def names(self, column: str) -> tuple[str, ...] | None:
        """Several names in one cell; None: the file has no such column."""
        text = self.cells.get(column)
        return None if text is None else split(text)


class CsvError(Exception):
    """The file as a whole cannot be used; the message says why."""


def read(path: Path, *, needed: Sequence[str], known: Sequence[str]) -> tuple[list[Line], dict[int, str]]:
    """The lines of a file, and what is wrong with some, by their numbers. CsvError when nothing can be made of it."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CsvError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise CsvError(f"{path} is larger than {MOST_BYTES // 1024 // 1024} MiB.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CsvError(f"{path} is not UTF-8 text (line {line}): export it as CSV UTF-8.") from None
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    rows: list[tuple[int, list[str]]] = []
    begins = 1  # a cell may have several lines
    try:
        for row in reader:
            rows.append((begins, row))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise CsvError(f"{path}, line {reader.line_num}: {error}.") from None
    if not rows:
        raise CsvError(f"{path} is empty: its first line must name the columns, such as {','.join(known)}.")
    header = [name.strip().lower() for name in rows[0][1]]
    _check_header(path, header, needed, known)
    lines, faults = [], {}
    for number, row in rows[1:]:
        if not any(row):
            continue
        cells = [bare(cell) for cell in row]
        lines.append(Line(number, dict(zip(header, cells, strict=False))))
        if fault := _fault(header, cells):
            faults[number] = fault
    return lines, faults


def _check_header(path: Path, header: Sequence[str], needed: Sequence[str], known: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in header]:
        raise CsvError(f"{path} has no column {missing[0]!r}. Known columns: {', '.join(known)}.")
    if unknown := [name for name in header if name not in known]:
        # A misspelt column would be passed over in silence.
        raise CsvError(f"{path} has a column {unknown[0]!r}. Known columns: {', '.join(known)}.")
    if len(set(header)) < len(header):
        raise CsvError(f"{path} has a column twice.")


def _fault(header: Sequence[str], cells: Sequence[str]) -> str:
    if len(cells) != len(header):
        return f"has {len(cells)} cells where the first line has {len(header)}"
    for name, cell in zip(header, cells, strict=True):
        for part in split(cell) if name in {"teams", "models"} else (cell,):
            if fault := text_fault(part):
                return f"{name} {fault}"
    return ""


def yes_or_no(text: str) -> bool | None:
    """A cell that says whether something is so; None when it says neither."""
    return _YES_NO.get(text.strip().lower())


def text_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as a file (RFC 4180, but with plain line ends)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[guarded(cell) for cell in row] for row in rows])
    return out.getvalue()


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return _GUARD + text if text.lstrip().startswith((*_SIGNS, _GUARD)) else text


def bare(text: str) -> str:
    """The text that was guarded."""
    return text[1:] if text.startswith(_GUARD) and guarded(text[1:]) == text else text


def join(names: Sequence[str]) -> str:
    """Several names in one cell."""
    return SEPARATOR.join(re.sub(r"([\\|])", r"\\\1", name) for name in names)


def split(text: str) -> tuple[str, ...]:
    """The names in one cell."""
    found = (re.sub(r"\\([\\|])", r"\1", part).strip() for part in re.findall(r"(?:\\.|[^|\\]|\\\Z)+", text))
    return tuple(dict.fromkeys(name for name in found if name))
