"""What `prices check` warns of: every slip that is told apart here would have changed a bill."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.money import catalogues
from llmgw_gateway.money.inspection import CLASSES, inspect, usd
from tests.gateway.money.test_price_file import NEW, SHIPPED, SONNET, extended, row

DAY = date(2026, 11, 21)
TRUE: dict[str, Any] = {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write_5m": 3_750_000}
TRUE |= {"cache_write_1h": 6_000_000}


def warnings(*parts: str, day: date = DAY) -> list[str]:
    return inspect(extended(*parts), SHIPPED, [], day)


def sonnet(*rows: str) -> list[str]:
    return warnings(f'[[models]]\nname = "{SONNET}"', *rows)


def new(*rows: str, day: date = DAY) -> list[str]:
    return warnings("[[models]]", NEW, *rows, day=day)


def test_what_ships_has_nothing_odd() -> None:
    assert inspect(SHIPPED, SHIPPED, SHIPPED.models, DAY) == []


def test_a_moderate_price_of_your_own_is_nothing_odd() -> None:
    assert sonnet(row(start="2026-11-01", **TRUE)) == []
    assert new(row(geography="regional", **TRUE)) == []


def test_models_that_are_neither_served_nor_yours_are_left_alone() -> None:
    odd = catalogues.parse('version = "1"\n[[models]]' + NEW + row(geography="regional", rate=1), "test")
    assert inspect(odd, odd, [], DAY) == []
    assert len(inspect(odd, odd, ["claude-next"], DAY)) == 1


CASES = {
    "dollars for micro-USD": (
        sonnet(row(input=3, output=15, cache_read=1, cache_write_5m=4, cache_write_1h=6)),
        f"{SONNET}: global prompts from 2025-09-29: input jumps from USD 3.00 to USD 0.000003 for a million tokens",
    ),
    "dollars in a new model": (
        new(row(geography="regional", input=3, output=15, cache_read=1, cache_write_5m=4, cache_write_1h=6)),
        (
            "claude-next: regional prompts from 2025-09-29 cost less than USD 0.001 for a million tokens: amounts are "
            "micro-USD, so USD 3 is 3_000_000"
        ),
    ),
    "a digit too many": (
        sonnet(row(start="2026-11-01", **(TRUE | {"output": 150_000_000}))),
        f"{SONNET}: global prompts from 2026-11-01: output jumps from USD 15.00 to USD 150.00 for a million tokens",
    ),
    "suddenly free": (
        sonnet(row(start="2026-11-01", **(TRUE | {"cache_read": 0}))),
        f"{SONNET}: global prompts from 2026-11-01: cache_read jumps from USD 0.30 to USD 0.00 for a million tokens",
    ),
    "reads and input exchanged": (
        sonnet(row(start="2026-11-01", **(TRUE | {"cache_read": 3_000_001}))),
        f"{SONNET}: global prompts from 2026-11-01: a cache read is dearer than input",
    ),
    "input and output exchanged": (
        sonnet(row(start="2026-11-01", **(TRUE | {"output": 2_999_999}))),
        f"{SONNET}: global prompts from 2026-11-01: output is cheaper than input",
    ),
    "free": (new(row(geography="regional", rate=0)), "claude-next: regional prompts from 2025-09-29 cost nothing"),
    "no price of this geography": (
        new(row(**TRUE)),
        "claude-next: has no price for regional prompts: they are charged by the dearest price of elsewhere",
    ),
    "no long price of this geography": (
        sonnet(row(start="2026-11-01", context_over=500_000, **(TRUE | {"input": 6_000_000}))),
        (
            f"{SONNET}: has no price for regional prompts over 500,000 tokens: they are charged by the dearest price "
            "of elsewhere"
        ),
    ),
    "days without a price of their own": (
        warnings(
            "[[models]]",
            NEW + 'profiles = ["global"]',
            row(start="2026-01-01", **TRUE),
            row(start="2026-03-01", geography="regional", **TRUE),
        ),
        "claude-next: has no price for regional prompts from 2026-01-01 until 2026-03-01",
    ),
    "not yet": (
        new(row(start="2027-01-01", geography="regional", **TRUE)),
        "claude-next: has no price before 2027-01-01",
    ),
    "long prompts cheaper": (
        new(
            row(geography="regional", **TRUE),
            row(start="2025-10-01", geography="regional", context_over=200_000, **(TRUE | {"input": 2_000_000})),
        ),
        "claude-next: regional prompts over 200,000 tokens from 2025-10-01 are cheaper than shorter ones",
    ),
    "overtaken by what ships": (
        warnings('[[models]]\nname = "claude-sonnet-5-5"', row(start="2026-10-01", **TRUE)),
        (
            "claude-sonnet-5-5: global prompts from 2026-10-01: your price no longer counts, because one that ships "
            "began on 2026-10-07"
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_slip_is_told_in_a_sentence(case: str) -> None:
    found, sentence = CASES[case]
    assert sentence in found


def test_an_embedding_model_has_no_output_to_be_cheap() -> None:
    text = NEW.replace("max_output_tokens = 64_000", 'kind = "embedding"')
    parts = [
        "[[models]]",
        text,
        '[[models.prices]]\nfrom = 2026-01-01\ngeography = "regional"\ninput = 20_000\noutput = 0',
    ]
    assert warnings(*parts) == []


@given(st.integers(0, 10**12))
def test_dollars_are_exact(rate: int) -> None:
    whole, _, decimals = usd(rate).replace(",", "").partition(".")
    assert 2 <= len(decimals) <= 6
    assert int(whole) * 10**6 + int(decimals.ljust(6, "0")) == rate


def test_every_class_of_tokens_is_looked_at() -> None:
    found = sonnet(row(start="2026-11-01", **{name: rate * 11 for name, rate in TRUE.items()}))
    assert all(any(f": {name} jumps" in each for each in found) for name in CLASSES)
