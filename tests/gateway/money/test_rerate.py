"""Re-rating: the same prices change nothing, others make an exact difference, what no price made is left out."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from llmgw_gateway.call import Geography, Usage
from llmgw_gateway.money import catalogues
from llmgw_gateway.money.rerate import Rerated, rerate
from llmgw_gateway.money.usage import Span
from tests.gateway.money import history
from tests.gateway.money.history import Attempt

if TYPE_CHECKING:
    from llmgw_gateway.money.prices import Catalogue

UTC_SPAN = Span(ZoneInfo("UTC"))
BUILT_IN = catalogues.built_in(embeddings=True)
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp() * 1000)
SONNET = "claude-sonnet-4-5"
REGIONAL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
GLOBAL = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
counts = st.integers(0, 400_000)
usages = st.builds(Usage, counts, counts, counts, counts, counts)


def read(store: Path, catalogue: Catalogue, span: Span = UTC_SPAN) -> list[Rerated]:
    with history.reading(store) as connection:
        return rerate(connection, catalogue, span)


def priced(usage: Usage, target: str = GLOBAL, admitted: int = NOON) -> int:
    day = datetime.fromtimestamp(admitted / 1000, UTC).date()
    geography: Geography = "global" if target == GLOBAL else "regional"
    return BUILT_IN.price(SONNET, geography=geography, day=day, prompt_tokens=usage.prompt).cost(usage)


@settings(max_examples=40)
@given(some=st.lists(st.tuples(usages, st.sampled_from([REGIONAL, GLOBAL])), max_size=12))
def test_the_same_prices_make_no_difference(empty_store: Path, some: list[tuple[Usage, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(shutil.copy(empty_store, Path(folder) / "gateway.db"))
        history.write(
            store,
            [Attempt(NOON, usage=usage, target=target, cost=priced(usage, target)) for usage, target in some],
        )
        found = read(store, BUILT_IN)
        assert [entry.difference for entry in found] == [0] * len(found)
        assert sum(entry.attempts for entry in found) == len(some)


def test_other_prices_make_exactly_their_difference(store: Path) -> None:
    extra = b"""
        [[models]]
        name = "claude-sonnet-4-5"
        [[models.prices]]
        from = 2026-11-20
        input = 4_000_000
        output = 15_000_000
        cache_read = 300_000
        cache_write_5m = 3_750_000
        cache_write_1h = 6_000_000
    """
    dearer = catalogues.extended(BUILT_IN, extra, "test")
    before = NOON - 86_400_000
    usage = Usage(input=1_000, output=10)
    history.write(store, [Attempt(when, usage=usage, cost=priced(usage)) for when in (before, NOON, NOON)])
    (entry,) = read(store, dearer)
    # The new row begins on the day of the last two.
    assert (entry.attempts, entry.charged, entry.difference) == (3, 3 * 3_150, 2 * 1_000)
    (entry,) = read(store, dearer, Span(ZoneInfo("UTC"), date(2026, 11, 20)))
    assert (entry.attempts, entry.difference) == (2, 2_000)
    assert entry.versions == {"2026-11-21"}


def test_what_no_price_made_is_counted_and_not_rated(store: Path) -> None:
    usage = Usage(input=1_000)
    late = Attempt(NOON, usage=usage, late=priced(usage))
    unknown = Attempt(NOON, usage=usage, cost=None, outcome="upstream_broken", hold=77)
    gone = Attempt(NOON, usage=usage, cost=5, model="claude-2", target="anthropic.claude-v2")
    unsent = Attempt(NOON, cost=0, model="claude-2", outcome="released")
    early = Attempt(0, usage=usage, cost=9)
    history.write(store, [late, unknown, gone, unsent, early])
    found = {entry.model: entry for entry in read(store, BUILT_IN)}
    sonnet, old = found[SONNET], found["claude-2"]
    assert (sonnet.attempts, sonnet.difference) == (1, 0)
    assert (sonnet.estimated, sonnet.estimated_cost) == (1, 77)
    assert (sonnet.unpriced, sonnet.unpriced_cost) == (1, 9)
    assert (old.attempts, old.charged, old.unpriced, old.unpriced_cost) == (1, 0, 1, 5)


def test_an_upstream_with_its_own_prices_is_rated_by_them(store: Path) -> None:
    usage = Usage(input=100_000)
    price = BUILT_IN.price("claude-sonnet-4-5", geography="direct", day=date(2026, 11, 20)).cost(usage)
    history.write(store, [Attempt(NOON, usage=usage, target="anthropic/claude-sonnet-4-5", cost=price)])
    with history.reading(store) as connection:
        (entry,) = rerate(connection, BUILT_IN, UTC_SPAN, {"anthropic"})
        (other,) = rerate(connection, BUILT_IN, UTC_SPAN)
    assert entry.difference == 0
    assert other.difference > 0, "a region costs more"
