from __future__ import annotations

import io
import re

import pytest

from tests.demo.screen import Screen

COLUMNS = 80


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class File(io.StringIO):
    encoding = "ascii"


def test_a_file_gets_plain_ascii_lines_that_fit() -> None:
    out = File()
    screen = Screen(out)
    with screen.step("gateway on SQLite"):
        pass
    screen.field("audit line", "word " * 60)
    screen.spoken().say("an answer " * 30)
    text = out.getvalue()
    assert text.isascii()
    assert not re.search(r"[\r\033]", text)
    assert max(len(line) for line in text.splitlines()) <= COLUMNS
    assert re.search(r"\+ gateway on SQLite +0\.\d s\n", text)


def test_a_failed_step_is_marked_and_the_error_goes_on() -> None:
    out = File()
    with pytest.raises(OSError, match="no port"), Screen(out).step("gateway"):
        raise OSError("no port")
    assert out.getvalue().startswith("  x gateway")


def test_colour_is_for_terminals_whose_user_did_not_refuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured, plain = Terminal(), Terminal()
    Screen(coloured).title("demo")
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(plain).title("demo")
    assert "\033[1m" in coloured.getvalue()
    assert "\033" not in plain.getvalue()


def test_an_answer_is_printed_piece_by_piece_and_broken_between_words() -> None:
    out = File()
    spoken = Screen(out).spoken()
    for piece in [
        "It keeps the ",
        "keys, ",
        "the budget ",
        "and the audit trail in one place, ",
        "for every tool.\nYes.",
    ]:
        before = len(out.getvalue())
        spoken.say(piece)
        assert len(out.getvalue()) > before
    spoken.end()
    lines = [line.removeprefix("  | ") for line in out.getvalue().splitlines()]
    assert lines[-1] == "Yes."
    assert " ".join(lines) == "It keeps the keys, the budget and the audit trail in one place, for every tool. Yes."
