"""The page about complaints and the tests that it names: neither has what the other has not."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/agent-complaints.md"
SOURCE = ROOT / "agent/llmgw_agent"
OWN = ROOT / "tests/agent/complaints"
GROUPS = 31


class Row(NamedTuple):
    reports: tuple[str, ...]
    answer: str
    tests: tuple[str, ...]
    checks: tuple[str, ...]


def rows() -> dict[int, Row]:
    found = re.findall(
        r"^\| (\d+) \| ([^|]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len({group for group, *_ in found}) == len(found)
    return {
        int(group): Row(
            tuple(re.findall(r"\b\d{2,}\b", reports)),
            answer,
            tuple(re.findall(r"`(test_\w+)`", held)),
            tuple(re.findall(r"\bcheck (M\d+)", held)),
        )
        for group, reports, answer, held in found
    }


def written(folder: Path) -> set[str]:
    """The names of the tests in a folder."""
    return {
        node.name
        for file in folder.rglob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_group_is_answered_and_held() -> None:
    assert sorted(rows()) == list(range(1, GROUPS + 1))
    for group, row in rows().items():
        assert row.tests, group


def test_every_test_that_is_named_is_there() -> None:
    there = written(ROOT / "tests")
    assert {group: missing for group, row in rows().items() if (missing := set(row.tests) - there)} == {}


def test_every_test_of_a_complaint_is_on_the_page() -> None:
    assert written(OWN) - {name for row in rows().values() for name in row.tests} == set()


def test_every_manual_check_is_described_and_named() -> None:
    described = re.findall(r"^\| (M\d+) \| [^|]+ \| [^|]+ \| [^|]+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted({check for row in rows().values() for check in row.checks}) == described


def test_every_answer_names_a_file_that_is_there() -> None:
    for group, row in rows().items():
        files = re.findall(r"`([\w/]+\.py)`", row.answer)
        assert files, group
        assert [file for file in files if not (SOURCE / file).is_file()] == [], group


def test_a_test_that_names_a_report_is_in_its_group() -> None:
    for group, row in rows().items():
        for name in row.tests:
            if name in written(OWN):
                assert set(re.findall(r"\d{2,}", name)) & set(row.reports), f"{group}: {name}"
