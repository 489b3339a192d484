"""CSV: what is written is read again as it was, a spreadsheet finds no formula, every fault has its line."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.commands.csv_files import CsvError, bare, guarded, join, read, split, text_of

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = ("name", "owner", "teams")
TEXT = st.text(alphabet=st.sampled_from("=+-@'\"\\|,; \tab\u00fc\n0"), max_size=12)


@given(TEXT)
def test_a_guarded_cell_is_no_formula_and_can_be_taken_back(text: str) -> None:
    cell = guarded(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert bare(cell) == text


@given(st.lists(TEXT.map(str.strip).filter(bool), unique=True, max_size=5))
def test_names_in_one_cell_come_apart_again(names: list[str]) -> None:
    assert split(join(names)) == tuple(names)


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", " =1", "\t=1", "'=1", "'"])
def test_what_a_spreadsheet_would_run_is_text(text: str) -> None:
    ((cell,),) = csv.reader(io.StringIO(text_of((), [(text,)]).lstrip("\n")))
    assert cell == f"'{text}"


def test_a_file_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes('\ufeffName;TEAMS\r\n"Ada; ""A""";a|b\\|c\r\n;;\r\n\r\nBob;\r\n'.encode())
    lines, faults = read(path, needed=("name",), known=KNOWN)
    assert [(line.number, line.get("name"), line.names("teams")) for line in lines if line.get("name")] == [
        (2, 'Ada; "A"', ("a", "b|c")),
        (5, "Bob", ()),
    ]
    assert (lines[0].get("owner"), lines[0].names("owner"), faults) == (None, None, {})


def test_each_fault_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("name,teams\na,b,c\nd\n" + "e" * 300 + ",\nf\x07,\n", encoding="utf-8")
    _, faults = read(path, needed=("name",), known=KNOWN)
    assert list(faults) == [2, 3, 4, 5]
    assert (faults[2], "256" in faults[4], "control" in faults[5]) == ("has 3 cells where the first line has 2", 1, 1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"owner\n", "no column 'name'"),
        (b"name,nmae\n", "a column 'nmae'"),
        (b"name,name\n", "a column twice"),
        (b"name\na\nB\xfcrger\n", "line 3"),
        (b'name\n"a\n', None),
    ],
)
def test_a_file_of_which_nothing_can_be_made(tmp_path: Path, content: bytes, why: str | None) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    if why is None:
        assert read(path, needed=("name",), known=KNOWN)[1] == {2: "name must have no control characters"}
        return
    with pytest.raises(CsvError) as caught:
        read(path, needed=("name",), known=KNOWN)
    assert why in str(caught.value)
    with pytest.raises(CsvError):
        read(tmp_path / "missing.csv", needed=("name",), known=KNOWN)
