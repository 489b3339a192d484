"""Writes results: as a table that fits a terminal, as CSV for a spreadsheet, as JSON for a program.

Names come from identity providers, so they are text of strangers: a table shows no control character of theirs, and a
spreadsheet gets no formula.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from llmgw_gateway.call import MICRO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WIDTH = 100
"""Columns of a terminal: no table is wider."""
GAP = "  "
_FORMULA = ("=", "+", "-", "@")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_UNITS = ("k", "M", "B", "T", "P")
_EXACT = 100_000


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, indent: str = "") -> list[str]:
    """Lines of aligned columns, the first `left` of them flush left. A first column that is too wide is cut."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    room = WIDTH - len(indent) - sum(len(GAP) + width for width in widths[1:])
    widths[0] = min(widths[0], max(room, 8))
    lines = []
    for row in (header, *rows):
        cells = [cut(row[0], widths[0]), *row[1:]]
        aligned = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append((indent + GAP.join(aligned)).rstrip())
    return lines


def clean(text: str) -> str:
    """Text of strangers on one line of a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def count(number: int) -> str:
    """A number in at most six characters: exact while it is small, then to a tenth of its unit."""
    if abs(number) < _EXACT:
        return f"{number:,}"
    amount = float(number)
    for unit in _UNITS:
        amount /= 1000
        if abs(amount) < 999.95:  # noqa: PLR2004 -- what rounds to 1000.0 is 1.0 of the next unit
            return f"{amount:.1f}{unit}"
    return f"{number:.0e}"


def usd(amount: int) -> str:
    """Micro-USD as dollars to a hundredth of a cent, rounded."""
    return f"{round(amount, -2) / MICRO:,.4f}"


def exact_usd(amount: int) -> str:
    """Micro-USD as dollars, to the last digit."""
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // MICRO}.{abs(amount) % MICRO:06d}"


def share(part: int, whole: int) -> str:
    """A part in per cent; a small one is never shown as none, nor a large one as all."""
    if not part or not whole:
        return "0 %" if whole else "-"
    if part == whole:
        return "100 %"
    percent = 100 * part / whole
    if percent < 1:
        return "<1 %"
    return f"{min(percent, 99):.0f} %"


def as_json(document: Mapping[str, object]) -> str:
    """One JSON document, in ASCII: it is the same in every locale, and no character of it moves a cursor."""
    return json.dumps(document, indent=2)


def as_csv(header: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    """Comma-separated values (RFC 4180, but with plain line ends)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_no_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue().rstrip("\n")


def _no_formula(text: str) -> str:
    """A spreadsheet takes a cell that begins so for a formula, even in quotes; an apostrophe says that it is text."""
    cell = clean(text)
    risky = cell.lstrip().startswith(_FORMULA)
    return f"'{cell}" if risky and not _NUMBER.fullmatch(cell) else cell


def cut(text: str, width: int) -> str:
    """Text of strangers in so many columns."""
    text = clean(text)
    return text if len(text) <= width else text[: width - 1] + "…"


@contextmanager
def progress(what: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal: what takes long shows how far it is. Nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=size, label=what, file=sys.stderr) as bar:
        yield bar.update
