"""What fuzzing has found stays found, and a few thousand fresh inputs are tried in every run (always the same ones).

`make fuzz` goes on for ten minutes each.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import mutation
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = 2_000
CORPUS = [(name, path) for name in TARGETS for path in mutation.corpus(name)]


@pytest.mark.parametrize(("name", "path"), CORPUS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_every_input_of_the_corpus_keeps_the_promises(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_thousand_mutations_find_nothing(name: str) -> None:
    seeds = [path.read_bytes() for path in mutation.corpus(name)]
    found = mutation.run(TARGETS[name], seeds, random.Random(1), inputs=INPUTS)  # noqa: S311 -- not for secrets
    assert found is None, found


def test_the_fuzzer_finds_a_broken_promise() -> None:
    def promise(data: bytes) -> None:
        assert b'"message"' not in data.replace(b":", b"")

    assert mutation.run(promise, [b"abc"], random.Random(1), inputs=INPUTS) is not None  # noqa: S311
