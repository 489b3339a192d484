"""The page about the failures of others and the tests that it names: neither has what the other has not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "tests/functional/failures", ROOT / "tests/gateway/money/failures")
GROUPS = 33


def rows() -> dict[int, str]:
    """The last column of each group."""
    text = (ROOT / "docs/money-failures.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert len({group for group, _ in found}) == len(found)
    return {int(group): held for group, held in found}


def names(text: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", text)


def written() -> set[str]:
    return {
        name
        for folder in FOLDERS
        for file in folder.glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_group_is_held_or_impossible() -> None:
    assert sorted(rows()) == list(range(1, GROUPS + 1))
    for group, held in rows().items():
        assert names(held) or "Impossible" in held, group


def test_every_test_of_the_page_is_there_and_every_test_that_is_there_is_on_the_page() -> None:
    promised = {name for held in rows().values() for name in names(held.partition("waits for")[0])}
    assert promised == written()


def test_what_waits_is_not_there_yet() -> None:
    waiting = {name for held in rows().values() for name in names(held.partition("waits for")[2])}
    assert not waiting & written(), "the page can be told: this exists now"
