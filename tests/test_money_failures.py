"""The page about the failures of others and the tests that it names: neither has what the other has not."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "gateway/llmgw_gateway"
FOLDERS = (ROOT / "tests/functional/failures", ROOT / "tests/gateway/money/failures")
GROUPS = 33
IMPOSSIBLE = "Impossible by construction"


class Row(NamedTuple):
    reports: tuple[str, ...]
    why: str
    tests: tuple[str, ...]


def rows() -> dict[int, Row]:
    text = (ROOT / "docs/money-failures.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\d+) \| ([^|]+) \| [^|]+ \| ([^|]+) \| ([^|]*) \|$", text, re.MULTILINE)
    assert len({group for group, *_ in found}) == len(found)
    return {
        int(group): Row(tuple(re.findall(r"\d+", reports)), why, tuple(re.findall(r"`(test_\w+)`", tests)))
        for group, reports, why, tests in found
    }


def written() -> dict[str, str]:
    """What each test says that it is about: its name and its docstring."""
    files = [file for folder in FOLDERS for file in folder.glob("test_*.py")]
    functions = [
        node
        for file in files
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert len({node.name for node in functions}) == len(functions)
    return {node.name: f"{node.name} {ast.get_docstring(node) or ''}" for node in functions}


def test_every_group_is_held_or_impossible() -> None:
    assert sorted(rows()) == list(range(1, GROUPS + 1))
    for group, row in rows().items():
        assert row.tests or IMPOSSIBLE in row.why, group


def test_every_test_of_the_page_is_there_and_every_test_that_is_there_is_on_the_page() -> None:
    assert {name for row in rows().values() for name in row.tests} == set(written())


def test_every_report_is_named_by_a_test_of_its_group_or_explained() -> None:
    said = written()
    for group, row in rows().items():
        about = " ".join(said[name] for name in row.tests).replace("_", " ") + row.why
        missing = [report for report in row.reports if not re.search(rf"\b{report}\b", about)]
        assert not missing, f"group {group}: {missing}"


def test_every_reason_names_a_file_that_is_there() -> None:
    for group, row in rows().items():
        files = re.findall(r"`([\w/]+\.(?:py|lua))`", row.why)
        assert files, group
        assert [file for file in files if not (SOURCE / file).is_file()] == [], group
