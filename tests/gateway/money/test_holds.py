"""Money around one attempt: whatever way the block is left, what was held ends as what is owed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway import settings
from llmgw_gateway.call import LONG_CONTEXT, Account, Call, Grant, Target, Usage
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money import catalogues
from llmgw_gateway.money.holds import Money
from llmgw_gateway.money.refusals import usd
from llmgw_wire.errors import ErrorCode
from tests.gateway import configuration
from tests.gateway.money import accounts
from tests.gateway.money.accounts import faults

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.call import Outcome
    from llmgw_gateway.store.database import Database

# A dollar for a million tokens of prompt, ten for as many of output: a micro-USD for a token, and ten.
CATALOGUE = catalogues.parse(
    """
    version = "test"
    [[models]]
    name = "m"
    display_name = "M"
    vendor = "v"
    bedrock_id = "v.m"
    max_output_tokens = 10_000
    context_tokens = 100_000
    [[models.prices]]
    from = 2020-01-01
    input = 1_000_000
    output = 10_000_000
    cache_read = 100_000
    cache_write_5m = 1_250_000
    cache_write_1h = 2_000_000
    """,
    "test",
)
ACCOUNT = Account("per_1")
GRANT = Grant(Target("bedrock", "m", "v.m", "regional"), 1000)
CALL = Call("bedrock", "m", stream=True, max_tokens=1000, size=4000, body=b"", members={})
HOLD = 1000 + 10 * 1000
"""What is held for it: a quarter of its bytes as prompt, and all of the output that it may produce."""


@dataclass
class Bench:
    money: Money
    database: Database
    store: Path

    async def run(self, change: dict[str, Any], operation: str = "req_1") -> tuple[int, int]:
        """Admit one attempt, let it end with this outcome, and give what is spent and held afterwards."""
        async with self.money.admit(ACCOUNT, GRANT, CALL, operation) as hold:
            outcome(hold.outcome, change)
            assert self.sums() == (self.sums()[0], HOLD)
        await self.settled()
        return self.sums()

    async def settled(self) -> None:
        await self.money.drain()
        assert await self.database.read(faults) == []

    def sums(self) -> tuple[int, int]:
        ((spent, held, _),) = accounts.counters(self.store).values()
        return spent, held


def outcome(of: Outcome, change: dict[str, Any]) -> None:
    for name, value in change.items():
        setattr(of, name, value)


def money(database: Database, path: Path, **budget: object) -> Money:
    document = configuration.good() | {"budgets": [{"level": "user", "limit_usd": 1} | budget]}
    return Money(database, CATALOGUE, settings.load(configuration.write(configuration.folder(path), document)))


@pytest.fixture
async def bench(database: Database, store: Path, tmp_path: Path) -> Bench:
    return Bench(money(database, tmp_path), database, store)


SEEN = Usage(input=500, output=100)
SEEN_COST = 500 + 10 * 100
MUCH = Usage(input=50_000, output=5000)
MUCH_COST = 50_000 + 10 * 5000
ENDINGS = {
    "never dispatched": ({}, 0),
    "never dispatched, whatever else": ({"usage": SEEN, "completeness": "complete"}, 0),
    "refused before it began": ({"dispatched": True, "refused_upstream": True, "note": "upstream_429"}, 0),
    "answered": ({"dispatched": True, "usage": SEEN, "completeness": "complete"}, SEEN_COST),
    "answered with nothing, and said so": ({"dispatched": True, "usage": Usage(), "completeness": "complete"}, 0),
    "dearer than was held": ({"dispatched": True, "usage": MUCH, "completeness": "complete"}, MUCH_COST),
    "nothing known": ({"dispatched": True, "completeness": "none"}, HOLD),
    "partly known": ({"dispatched": True, "usage": SEEN, "completeness": "partial"}, HOLD),
    "partly known, and more than was held": (
        {"dispatched": True, "usage": MUCH, "completeness": "partial"},
        MUCH_COST,
    ),
    "the client went away": (
        {"dispatched": True, "usage": SEEN, "completeness": "complete", "note": "client_gone"},
        SEEN_COST,
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
async def test_an_attempt_is_charged_what_is_known_and_never_nothing_for_the_unknown(bench: Bench, case: str) -> None:
    change, cost = ENDINGS[case]
    assert await bench.run(change) == (cost, 0)
    ((name, (charged, estimated)),) = accounts.entries(bench.store).items()
    assert (name[1], charged) == ("settlement", cost)
    assert estimated is (case.startswith(("nothing known", "partly known")))


@pytest.mark.parametrize("case", ENDINGS)
async def test_the_audit_trail_and_the_metrics_say_what_the_ledger_charged(bench: Bench, case: str) -> None:
    change, cost = ENDINGS[case]
    async with bench.money.admit(ACCOUNT, GRANT, CALL, "req_1") as hold:
        outcome(hold.outcome, change)
    await bench.settled()
    assert hold.outcome.cost == cost


async def test_what_an_upstream_calls_its_exception_fits_into_the_ledger(bench: Bench) -> None:
    await bench.run({"dispatched": True, "note": "upstream_" + "serviceÜnavailable\x00" * 20})
    ((said,),) = accounts.rows(bench.store, "SELECT outcome FROM ledger")
    assert said == ("upstream_" + "servicenavailable" * 20)[:64]


async def test_a_settlement_that_cannot_be_written_is_charged_as_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A number that no database takes stands for whatever nobody has thought of.
    monkeypatch.setattr("llmgw_gateway.money.hold.charged", lambda _price, _usage: (2**80, 0, 0))
    assert await bench.run({"dispatched": True, "usage": SEEN, "completeness": "complete"}) == (HOLD, 0)
    (((_, _), (cost, estimated)),) = accounts.entries(bench.store).items()
    assert (cost, estimated) == (HOLD, True)


class BrokenError(Exception):
    """Anything that goes wrong inside."""


@pytest.mark.parametrize("error", [BrokenError, asyncio.CancelledError, KeyError])
async def test_an_exception_settles_like_any_other_way_out(bench: Bench, error: type[BaseException]) -> None:
    async def request() -> None:
        async with bench.money.admit(ACCOUNT, GRANT, CALL, "req_1") as hold:
            hold.outcome.dispatched = True
            raise error

    with pytest.raises(error):
        await request()
    await bench.settled()
    assert bench.sums() == (HOLD, 0)


async def test_a_request_that_is_cancelled_while_it_is_admitted_leaves_no_hold_behind(bench: Bench) -> None:
    # Nothing was sent for it: held until its lease ends and then charged, it would be money for nothing.
    async def request() -> None:
        async with bench.money.admit(ACCOUNT, GRANT, CALL, "req_1"):
            raise AssertionError("never reached")

    task = asyncio.create_task(request())
    await asyncio.sleep(0)  # it waits for the store now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await accounts.Desk(bench.database)(accounts.settlement("att_none", 0))  # all before is done
    await bench.settled()
    assert bench.sums() == (0, 0)


async def test_a_budget_that_is_used_up_is_refused_in_words(database: Database, store: Path, tmp_path: Path) -> None:
    small = money(database, tmp_path, limit_usd=0.02, overshoot_usd=10)
    async with small.admit(ACCOUNT, GRANT, CALL, "req_1") as hold:
        outcome(hold.outcome, {"dispatched": True, "usage": MUCH, "completeness": "complete"})
        assert hold.remaining == 20_000 - HOLD
        with pytest.raises(GatewayError) as caught:
            await small.admit(ACCOUNT, GRANT, CALL, "req_2").__aenter__()
        assert caught.value.code is ErrorCode.BUDGET_EXCEEDED
        assert f"{usd(HOLD)} held of {usd(20_000)}" in caught.value.message
    await small.drain()
    with pytest.raises(GatewayError) as caught:
        await small.admit(ACCOUNT, GRANT, CALL, "req_3").__aenter__()
    for words in ("monthly budget", "is used up", "USD 0.10 spent", "of USD 0.02", "It resets at 20", "#llm-help"):
        assert words in caught.value.message
    assert accounts.rows(store, "SELECT COUNT(*) FROM ledger") == [(1,)]


async def test_the_worst_case_of_what_runs_is_refused_in_other_words(database: Database, tmp_path: Path) -> None:
    tight = money(database, tmp_path, limit_usd=0.02, overshoot_usd=0)
    with pytest.raises(GatewayError, match="worst case of what is running"):
        await tight.admit(ACCOUNT, msgspec.structs.replace(GRANT, max_tokens=10_000), CALL, "req_1").__aenter__()


async def test_another_person_has_a_budget_of_their_own(database: Database, store: Path, tmp_path: Path) -> None:
    both = money(database, tmp_path)
    other = msgspec.structs.replace(ACCOUNT, person_id="per_2")
    for account in (ACCOUNT, other):
        async with both.admit(account, GRANT, CALL, "req_1") as hold:
            outcome(hold.outcome, {"dispatched": True, "usage": SEEN, "completeness": "complete"})
    await both.drain()
    assert [spent for spent, *_ in accounts.counters(store).values()] == [SEEN_COST, SEEN_COST]
    (view,) = await both.budgets_of(other)
    assert (view.spent, view.held, view.limit, view.remaining) == (SEEN_COST, 0, 10**6, 10**6 - SEEN_COST)
    (fresh,) = await both.budgets_of(msgspec.structs.replace(ACCOUNT, person_id="per_3"))
    assert (fresh.spent, fresh.held) == (0, 0)
    assert fresh.resets_at > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


async def test_a_person_without_a_budget_is_counted_all_the_same(
    database: Database, store: Path, tmp_path: Path
) -> None:
    document = configuration.good()
    del document["budgets"]
    free = Money(database, CATALOGUE, settings.load(configuration.write(configuration.folder(tmp_path), document)))
    async with free.admit(ACCOUNT, GRANT, CALL, "req_1") as hold:
        assert hold.remaining is None
        outcome(hold.outcome, {"dispatched": True, "usage": SEEN, "completeness": "complete"})
    await free.drain()
    assert accounts.entries(store) == {(hold.attempt_id, "settlement"): (SEEN_COST, False)}


@given(st.integers(0, 10**15))
def test_an_amount_is_never_shown_as_nothing_unless_it_is(amount: int) -> None:
    text = usd(amount)
    assert text.startswith("USD ")
    shown = float(text.removeprefix("USD ").replace(",", ""))
    assert abs(shown - amount / 10**6) <= max(0.005, amount / 10**6 * 1e-9)
    if amount >= 50:
        assert shown > 0


async def test_a_window_larger_than_the_usual_one_is_covered_by_the_ceiling(database: Database, tmp_path: Path) -> None:
    # A picture's tokens are not bounded by its bytes: the worst case is the whole window, larger on request.
    both = money(database, tmp_path, limit_usd=100)
    media = msgspec.structs.replace(CALL, media=True)
    async with both.admit(ACCOUNT, GRANT, media, "req_1") as usual:
        pass
    async with both.admit(ACCOUNT, GRANT, msgspec.structs.replace(media, long_context=True), "req_2") as long:
        pass
    output, write = 10 * 1000, 2
    assert usual.ceiling[0] == write * CATALOGUE.models["m"].context_tokens + output
    assert long.ceiling[0] == write * LONG_CONTEXT + output
    await both.drain()
