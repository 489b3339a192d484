"""What a person sees: commands with what they print and how they end, compared with a file that a person has read.

Each command runs twice: piped (`$`), and on a terminal of 80 columns (`%`), where both streams are one. What differs
from machine to machine is replaced: `rules` says by what.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.agent import URL, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).parent
COLUMNS = 80
SECONDS = 30
AGAIN = "LLMGW_WRITE_TRANSCRIPTS"
"""Set to write the files anew; then read what has changed."""
ALWAYS = [
    (r"process \d+", "process PID"),
    (r"\b127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT"),
    (r"llmgw-local-[\w-]+", "llmgw-local-SECRET"),
    (r"eyJ[\w.-]+", "TOKEN"),
    (r"up \d+ (?:s|min)(?: \d+ s)?", "up TIME"),
    (r"for \d+ (?:s|min)(?: \d+ s)?, until", "for TIME, until"),
    (r"(?<=resets )in \d+ \w+(?: \d+ \w+)?", "in TIME"),
    (r"\b(?:\d+ h )?\d+ min(?: \d+ s)? left", "TIME left"),
    (r"\b\d+ ms\b", "N ms"),
    (r'"(answered_in_ms|clock_offset_seconds|pid|seconds_left)": -?[\d.]+', r'"\1": N'),
    (r"20\d\d-\d\d-\d\dT[\d:]+Z", "TIME"),
    (r"is \d+\.\d s (?:ahead|behind)", "is N s ahead"),
    (r"\b\d+(?:\.\d+)? s off", "N s off"),
    (r"from 20\d\d-\d\d-\d\d", "from DATE"),
    (r"per_\w+", "per_ID"),
    (r"ses_\w+", "ses_ID"),
    (r"good for \d+ days, TLSv1\.\d", "good for N days, TLS"),
    (r"/(?:run/user/\d+/llmgw|tmp/llmgw-\d+)-[0-9a-f]{16}/", "/RUN/"),
    (r"\bpass-[0-9a-f]{8}\b", "pass-ID"),
    (r'(?<=revoke )[0-9a-f]{8}\b|(?<="id": ")[0-9a-f]+', "ID"),
    (r"(?m)^[0-9a-f]{8}(?=  )", "ID      "),
]
CHECK = re.compile(r"(ok   |warn |fail |skip | {25}(right|fix): )")


@dataclass(frozen=True)
class Said:
    """What a command printed, piped."""

    stdout: str
    stderr: str
    code: int


class Transcript:
    """Runs commands and writes down what a person sees."""

    def __init__(self, env: Mapping[str, str], folder: Path, rules: Sequence[tuple[str, str]]) -> None:
        self.env = {**env, "COLUMNS": str(COLUMNS)}
        self._folder = folder
        self._rules = [(re.compile(pattern), name) for pattern, name in [*rules, *ALWAYS]]
        self._lines: list[str] = []
        self.wide: list[str] = []
        """Lines on a terminal that are longer than it, although no name or address makes them so."""

    def run(
        self, *words: str, piped: bool = True, terminal: bool = True, visit: Callable[[str], str | None] | None = None
    ) -> Said:
        """One command, piped and on a terminal; what it said piped.

        Args:
            words: What is typed after `llmgw`.
            piped: Whether it is run with its streams apart, and nothing to read.
            terminal: Whether it is run on a terminal.
            visit: What the person does with the address that is printed, and the lines they type when asked.
        """
        argv, said = [str(installed("llmgw")), *words], Said("", "", 0)
        if piped:
            said = self._piped(argv, visit)
            self._add("$", words, said)
        if terminal:
            self._add("%", words, self._on_terminal(argv, visit))
        return said

    def check(self, name: str) -> None:
        """Compare with the file of this name, or write it."""
        path, text = HERE / f"{name}.txt", "\n".join(self._lines) + "\n"
        if os.environ.get(AGAIN):
            path.write_text(text, encoding="utf-8")
        assert not self.wide, self.wide
        expected = path.read_text(encoding="utf-8")
        changed = difflib.unified_diff(expected.splitlines(), text.splitlines(), f"{name}.txt", "now", lineterm="")
        assert text == expected, "\n".join(changed)

    def _add(self, sign: str, words: Sequence[str], said: Said) -> None:
        lines = [f"{sign} llmgw {self._plain(' '.join(words))}", *self._plain(said.stdout).splitlines()]
        lines += [f"! {line}" for line in self._plain(said.stderr).splitlines()]
        self._lines += [line.rstrip() for line in lines] + ([f"= {said.code}"] if said.code else []) + [""]
        if sign == "%":
            self.wide += [line for line in said.stdout.splitlines() if len(line) > COLUMNS and not _has_name(line)]

    def _piped(self, argv: Sequence[str], visit: Callable[[str], str | None] | None) -> Said:
        pipe = subprocess.PIPE
        child = subprocess.Popen(
            argv, env=self.env, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )
        with child, _deadline(child):
            assert child.stdout is not None
            begun = ""
            while visit is not None and not (found := URL.search(begun)):
                line = child.stdout.readline()
                assert line, child.communicate()
                begun += line
            if visit is not None and found:
                visit(found[0])
            rest, stderr = child.communicate()
            return Said(begun + rest, stderr, child.returncode)

    def _on_terminal(self, argv: Sequence[str], visit: Callable[[str], str | None] | None) -> Said:
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        with subprocess.Popen(
            argv, env=self.env | {"TERM": "xterm"}, cwd=self._folder, stdin=theirs, stdout=theirs, stderr=theirs
        ) as child:
            os.close(theirs)
            shown, typed = b"", list[str]()
            while select.select([ours], [], [], SECONDS)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not part:
                    break
                shown += part
                if visit is not None and (found := re.search(rb"(https?://\S+)\r\n", shown)):
                    typed, visit = (visit(found[1].decode()) or "").splitlines(), None
                if typed and shown.endswith(b": "):
                    os.write(ours, f"{typed.pop(0)}\n".encode())
            os.close(ours)
            return Said(shown.decode().replace("\r\n", "\n"), "", child.wait())

    def _plain(self, text: str) -> str:
        text = "\n".join(_joined(text.splitlines()))
        for pattern, name in self._rules:
            text = pattern.sub(name, text)
        return text


@contextlib.contextmanager
def _deadline(child: subprocess.Popen[str]) -> Iterator[None]:
    timer = threading.Timer(SECONDS, child.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _joined(lines: Sequence[str]) -> list[str]:
    """Where a line of a check breaks depends on how long this machine's paths are."""
    joined: list[str] = []
    for line in lines:
        if joined and CHECK.match(joined[-1]) and re.match(r" {25}", line) and not CHECK.match(line):
            joined[-1] += f" {line.lstrip()}"
        else:
            joined.append(line)
    return joined


def _has_name(line: str) -> bool:
    """Whether a path, an address or a token makes it long, or it is an error: those have one line."""
    return "/" in line or "@" in line or line.lstrip().startswith(("llmgw: ", "export ", "eyJ", '"'))
