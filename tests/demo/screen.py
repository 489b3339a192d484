"""Everything the demo prints: calm, at most 80 columns, colours only where a person looks."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH = 78
LABEL = 13
SOFT_LIMIT, HARD_LIMIT = 60, 74
"""An answer's line ends at the first space after the one column, at the latest at the other."""
BOLD, DIM, GREEN, RED, RESET = "1", "2", "32", "31", "0"


class ReaderLeftError(Exception):
    """Nobody reads any more what is printed."""


class Screen:
    """A terminal, or a file that takes the same lines without colour and motion."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._is_tty = out.isatty()
        self._colour = self._is_tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        encoding = (out.encoding or "").lower().replace("-", "")
        self._unicode = encoding.startswith("utf")

    def title(self, text: str) -> None:
        self.line(self._styled(text, BOLD))
        self.line()

    def heading(self, text: str, note: str = "") -> None:
        self.line()
        self.line(self._styled(text, BOLD) + (f"  {self._styled(note, DIM)}" if note else ""))

    def line(self, text: str = "") -> None:
        self._write(text + "\n")

    def field(self, label: str, text: str) -> None:
        """`label   text`; a text that is too long goes on below, under itself."""
        for number, row in enumerate(_rows(text, WIDTH - LABEL - 2)):
            self.line(f"  {self._styled((label if number == 0 else '').ljust(LABEL), DIM)}{row}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One line of progress: what is going on while it does, then a tick and how long it took."""
        started = time.monotonic()
        if self._is_tty:
            self._write(f"  {self._sign('◦', '-')} {text}")
        try:
            yield
        except BaseException:
            self._finish_step(self._styled(self._sign("✗", "x"), RED), text, started)
            raise
        self._finish_step(self._styled(self._sign("✓", "+"), GREEN), text, started)

    def note(self, text: str) -> None:
        """A remark below a step."""
        for row in _rows(text, WIDTH - 4):
            self.line(f"    {self._styled(row, DIM)}")

    def fail(self, text: str) -> None:
        head, _, log = text.partition("\n")
        self.line()
        first, *more = _rows(f"The demo failed: {head}", WIDTH)
        self.line(self._styled(first, RED))
        for row in [*more, *log.splitlines()]:
            self.line(row)

    def spoken(self) -> Spoken:
        return Spoken(self._write, f"  {self._styled(self._sign('│', '|'), DIM)} ")

    def _finish_step(self, sign: str, text: str, started: float) -> None:
        seconds = f"{time.monotonic() - started:.1f} s"
        line = f"  {sign} {text.ljust(WIDTH - 4 - len(seconds))}{self._styled(seconds, DIM)}"
        self.line(("\r" if self._is_tty else "") + line)

    def _sign(self, symbol: str, plain: str) -> str:
        return symbol if self._unicode else plain

    def _styled(self, text: str, style: str) -> str:
        return f"\033[{style}m{text}\033[{RESET}m" if self._colour and text else text

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            raise ReaderLeftError from None


class Spoken:
    """A model's answer as it arrives: every character at once, lines broken where they may be."""

    def __init__(self, write: Callable[[str], None], margin: str) -> None:
        self._write = write
        self._margin = margin
        self._column = 0

    def say(self, piece: str) -> None:
        """Print a piece of the answer."""
        for character in piece:
            if self._column == 0:
                self._write(self._margin)
            at_space = character == " " and self._column >= SOFT_LIMIT
            if character == "\n" or at_space or self._column >= HARD_LIMIT:
                self._write("\n" + (self._margin if character not in " \n" else ""))
                self._column = 0
            if character != "\n" and not at_space:
                self._write(character)
                self._column += 1

    def end(self) -> None:
        """Finish the last line."""
        if self._column:
            self._write("\n")
        self._column = 0


def _rows(text: str, width: int) -> list[str]:
    """Break after spaces and, where a word alone is too long, anywhere."""
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]
