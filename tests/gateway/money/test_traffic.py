"""Rates as the pipeline uses them: what a call takes, gives back and owes, also when Valkey comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import settings
from llmgw_gateway.call import Account, Call, Grant, Outcome, Target, Usage
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money.catalogues import built_in
from llmgw_gateway.money.learning import Learned
from llmgw_gateway.money.traffic import Rates
from llmgw_gateway.money.valkey import Valkey
from llmgw_gateway.observe.metrics import Metrics
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret
from tests.gateway import configuration
from tests.lab.valkey import Valkey as Server

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.money.traffic import Place

ADA = Account("per_ada", "ada@example.com")
MODEL = "claude-sonnet-4-5"
GRANT = Grant(Target("bedrock", MODEL, f"us.{MODEL}", "regional"), 1_000)
EXPECTED = 100 + 5 * 1_000
"""Of a body of 400 bytes and the general expectation of output, cut to what is granted."""
CATALOGUE = built_in()

Build = Callable[..., Rates]


def call() -> Call:
    return Call("anthropic", MODEL, stream=False, max_tokens=1_000, size=400, body=b"", members={})


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """Rates of a gateway with these limits, closed after the test: before the server, in tests that name it first."""
    built: list[Rates] = []

    def make(*limits: dict[str, Any], valkey: Valkey | None = None) -> Rates:
        document = configuration.good() | {"limits": list(limits)}
        read = settings.load(configuration.write(configuration.folder(tmp_path), document))
        built.append(Rates(read, CATALOGUE, Learned(), Metrics(), valkey))
        return built[-1]

    yield make
    for rates in built:
        await rates.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "valkey") as running:
        yield running


@pytest.fixture
async def connected(server: Server) -> AsyncIterator[Valkey]:
    """One replica of two; `Rates` starts it."""
    other = replica(server)
    await other.start()
    yield replica(server)
    await other.close()


def replica(server: Server) -> Valkey:
    return Valkey(Secret(server.url), prefix="llmgw", timeout_ms=2_000, lease_seconds=30)


async def used(rates: Rates) -> dict[str, int]:
    return {view.kind: view.used for view in await rates.views(ADA)}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- no event of ours
            await asyncio.sleep(0.01)


async def until_unused(rates: Rates) -> None:
    async with asyncio.timeout(30):
        while await used(rates) != {"requests": 0, "tokens": 0, "concurrent": 0}:  # noqa: ASYNC110 -- no event of ours
            await asyncio.sleep(0.01)


async def run(rates: Rates, outcome: Outcome | None) -> None:
    async with rates.admit(ADA, GRANT, call()) as place:
        if outcome is not None:
            place.follow(outcome)


LIMITS = {"level": "user", "requests_per_minute": 1, "tokens_per_minute": 1_000, "concurrent": 1}
"""So slow that nothing leaks away meanwhile: a request a minute, and 16 tokens a second."""
USAGE = Usage(input=300, output=200, cache_read=50_000, cache_write_5m=10, cache_write_1h=5)
TRUTH = 300 + 10 + 5 + 5 * 200


async def test_a_call_that_money_refuses_gives_everything_back(build: Build) -> None:
    rates = build(LIMITS)
    for outcome in (None, Outcome(), None):
        await run(rates, outcome)
        assert await used(rates) == {"requests": 0, "tokens": 0, "concurrent": 0}


@pytest.mark.parametrize(
    ("outcome", "tokens"),
    [
        (Outcome(dispatched=True, completeness="complete", usage=USAGE), TRUTH),
        (Outcome(dispatched=True, refused_upstream=True), 0),
        (Outcome(dispatched=True), EXPECTED),
        (Outcome(dispatched=True, completeness="partial", usage=USAGE, pieces=3_000), 315 + 5 * 3_000),
        (Outcome(dispatched=True, completeness="complete", usage=Usage(input=90_000)), 90_000),
    ],
    ids=["less than expected", "refused upstream", "unknown", "more seen than held", "debt"],
)
async def test_tokens_are_corrected_to_what_was_used(build: Build, outcome: Outcome, tokens: int) -> None:
    rates = build(LIMITS)
    await run(rates, outcome)
    now = await used(rates)
    assert tokens - 100 <= now["tokens"] <= tokens, "a few leak away while the test runs"
    assert (now["requests"], now["concurrent"]) == (1, 0)


async def test_debt_keeps_the_next_call_out_and_says_for_how_long(build: Build) -> None:
    rates = build({"level": "user", "tokens_per_minute": 60_000})
    await run(rates, Outcome(dispatched=True, completeness="complete", usage=Usage(input=90_000)))
    with pytest.raises(GatewayError) as caught:
        await run(rates, None)
    assert caught.value.code is ErrorCode.RATE_EXCEEDED
    assert caught.value.retry_after in {35, 36}, "90,000 used, about 5,100 needed, 1,000 a second"
    for part in (
        "Your token limit is reached",
        "of 60,000 tokens a minute are in use",
        "needs about 5,100",
        "#llm-help",
    ):
        assert part in caught.value.message


async def test_nobody_is_told_to_wait_longer_than_a_client_would(build: Build) -> None:
    rates = build({"level": "user", "tokens_per_minute": 10})
    await run(rates, Outcome(dispatched=True, completeness="complete", usage=Usage(input=90_000)))
    with pytest.raises(GatewayError) as caught:
        await run(rates, None)
    assert caught.value.retry_after == 60


async def test_the_slot_is_free_when_the_client_is_gone_though_the_answer_goes_on(build: Build) -> None:
    rates = build(LIMITS | {"requests_per_minute": 100})
    outcome = Outcome(dispatched=True)
    async with rates.admit(ADA, GRANT, call()) as place:
        place.follow(outcome)
        assert (await used(rates))["concurrent"] == 1
        assert outcome.client_left is not None
        outcome.client_left()
        outcome.client_left()
        now = await used(rates)
        assert now["concurrent"] == 0
        assert now["tokens"] > 0, "the quota stays held"


async def test_a_refusal_is_counted_under_names_of_the_configuration(build: Build) -> None:
    rates = build({"level": "organisation", "concurrent": 1, "model": MODEL})
    async with rates.admit(ADA, GRANT, call()):
        with pytest.raises(GatewayError, match=f"The concurrency limit of the organisation for {MODEL} is reached"):
            await run(rates, None)
    assert f'llmgw_limited_total{{kind="concurrent",level="organisation",model="{MODEL}"}} 1.0' in (
        rates._metrics.text().decode()
    )


async def test_a_call_that_no_limit_concerns_costs_nothing(build: Build) -> None:
    rates = build({"level": "user", "of": "eve@example.com", "concurrent": 1})
    async with rates.admit(ADA, GRANT, call()) as one, rates.admit(ADA, GRANT, call()) as two:
        assert one.limits == two.limits == ()
    assert await rates.views(ADA) == ()


# With Valkey.


async def test_replicas_share_what_is_in_use(server: Server, connected: Valkey, build: Build) -> None:
    one, two = build(LIMITS, valkey=connected), build(LIMITS, valkey=replica(server))
    for rates in (one, two):
        await rates.start()
    async with one.admit(ADA, GRANT, call()):
        with pytest.raises(GatewayError):
            await run(two, None)
        assert (await used(two))["concurrent"] == 1
    await until_unused(two)  # what one gives back travels on a connection of its own


async def test_a_caller_that_is_cancelled_while_it_asks_leaves_nothing_behind(connected: Valkey, build: Build) -> None:
    rates = build(LIMITS, valkey=connected)
    await rates.start()
    asking = asyncio.create_task(run(rates, None))
    await asyncio.sleep(0)  # it has asked, and no answer can have come yet
    assert not asking.done()
    assert connected._waiting
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    await until_unused(rates)


async def enter(rates: Rates) -> Place:
    return await rates.admit(ADA, GRANT, call()).__aenter__()


async def test_while_valkey_is_away_each_replica_keeps_its_share_and_what_runs_counts(
    server: Server, connected: Valkey, build: Build
) -> None:
    """Four slots, two replicas: two here while it is away. What began in the outage counts afterwards, too."""
    rates = build({"level": "user", "concurrent": 4}, valkey=connected)
    await rates.start()
    assert connected.replicas == 2
    first = await enter(rates)
    server.kill()
    second = await enter(rates)
    with pytest.raises(GatewayError, match="2 of 2 calls are running"):
        await enter(rates)
    server.start()
    await until(lambda: connected.available)
    assert (await used(rates))["concurrent"] == 2
    await first.__aexit__(None, None, None)
    await second.__aexit__(None, None, None)
    assert (await used(rates))["concurrent"] == 0


async def test_a_limit_may_refuse_while_it_cannot_be_checked(server: Server, connected: Valkey, build: Build) -> None:
    rates = build({"level": "user", "concurrent": 4, "when_unavailable": "refuse"}, valkey=connected)
    await rates.start()
    server.kill()
    with pytest.raises(GatewayError) as caught:
        await enter(rates)
    assert (caught.value.code, caught.value.retry_after) == (ErrorCode.STORE_UNAVAILABLE, 2)
