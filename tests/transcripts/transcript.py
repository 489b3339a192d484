"""What a person sees: commands with what they print and how they end, compared with a file that a person has read.

Each command runs twice: piped (`$`), and on a terminal of 80 columns (`%`), where both streams are one. What differs
from machine to machine is replaced: `rules` says by what.
"""

from __future__ import annotations

import difflib
import os
import pty
import re
import select
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.agent import installed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    (r"\b\d+ min(?: \d+ s)? left", "TIME left"),
    (r"\b\d+ ms\b", "N ms"),
    (r'"(answered_in_ms|clock_offset_seconds|pid|seconds_left)": -?[\d.]+', r'"\1": N'),
    (r"20\d\d-\d\d-\d\dT[\d:]+Z", "TIME"),
    (r"is \d+\.\d s (?:ahead|behind)", "is N s ahead"),
    (r"[+-]\d+(?:\.\d+)? s off", "N s off"),
    (r"from 20\d\d-\d\d-\d\d", "from DATE"),
    (r"per_\w+", "per_ID"),
    (r"ses_\w+", "ses_ID"),
    (r"good for \d+ days, TLSv1\.\d", "good for N days, TLS"),
]


class Transcript:
    """Runs commands and writes down what a person sees."""

    def __init__(self, env: Mapping[str, str], folder: Path, rules: Sequence[tuple[str, str]]) -> None:
        self._env = {**env, "COLUMNS": str(COLUMNS)}
        self._folder = folder
        self._rules = [(re.compile(pattern), name) for pattern, name in [*rules, *ALWAYS]]
        self._lines: list[str] = []
        self.wide: list[str] = []
        """Lines on a terminal that are longer than it, although no name or address makes them so."""

    def run(self, *words: str, terminal: bool = True) -> None:
        """One command, piped and on a terminal."""
        argv = [str(installed("llmgw")), *words]
        done = subprocess.run(
            argv,
            env=self._env,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        self._add("$", words, done.stdout.decode(), done.stderr.decode(), done.returncode)
        if terminal:
            shown, code = self._on_terminal(argv)
            self._add("%", words, shown, "", code)

    def check(self, name: str) -> None:
        """Compare with the file of this name, or write it."""
        path, text = HERE / f"{name}.txt", "\n".join(self._lines) + "\n"
        if os.environ.get(AGAIN):
            path.write_text(text, encoding="utf-8")
        assert not self.wide, self.wide
        expected = path.read_text(encoding="utf-8")
        changed = difflib.unified_diff(expected.splitlines(), text.splitlines(), f"{name}.txt", "now", lineterm="")
        assert text == expected, "\n".join(changed)

    def _add(self, sign: str, words: Sequence[str], stdout: str, stderr: str, code: int) -> None:
        said = self._plain(" ".join(words))
        lines = [f"{sign} llmgw {said}", *self._plain(stdout).splitlines()]
        lines += [f"! {line}" for line in self._plain(stderr).splitlines()]
        self._lines += [line.rstrip() for line in lines] + ([f"= {code}"] if code else []) + [""]
        if sign == "%":
            self.wide += [line for line in stdout.splitlines() if len(line) > COLUMNS and not _has_name(line)]

    def _on_terminal(self, argv: Sequence[str]) -> tuple[str, int]:
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        with subprocess.Popen(
            argv, env=self._env | {"TERM": "xterm"}, cwd=self._folder, stdin=theirs, stdout=theirs, stderr=theirs
        ) as child:
            os.close(theirs)
            shown = b""
            while select.select([ours], [], [], SECONDS)[0]:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # Linux: the other end is closed
                    break
                if not part:
                    break
                shown += part
            os.close(ours)
            return shown.decode().replace("\r\n", "\n"), child.wait()

    def _plain(self, text: str) -> str:
        # Where a line of a check breaks depends on how long this machine's paths are.
        text = re.sub(r"\n {25,}(?!right:|fix:)(?=\S)", " ", text)
        for pattern, name in self._rules:
            text = pattern.sub(name, text)
        return text


def _has_name(line: str) -> bool:
    """Whether a path, an address or a token makes it long, or it is an error: those have one line."""
    return "/" in line or "@" in line or line.lstrip().startswith(("llmgw: ", "export ", "eyJ", '"'))
