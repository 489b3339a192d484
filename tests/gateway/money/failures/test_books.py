"""Failures of others about the store and the calendar, on both kinds of store. Numbers: docs/money-failures.md.

The time is an argument of the books, so that a month ends when the test says so.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from llmgw_gateway.call import Account
from llmgw_gateway.money.budgets import Budgets
from llmgw_gateway.money.items import Admitted, Sweep
from llmgw_gateway.money.levels import Denial
from llmgw_gateway.settings import load
from llmgw_gateway.store.database import Database
from tests.gateway import configuration
from tests.gateway.columns import PostgresColumn
from tests.gateway.money import accounts
from tests.lab import history

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from llmgw_gateway.money.items import Item
    from tests.gateway.columns import Column
    from tests.gateway.money.accounts import Desk

BERLIN = ZoneInfo("Europe/Berlin")
LEVELS = ("organisation", "team", "project", "user", "key")
ADA = Account("per_ada", "ada@example.com", "analysis", "apollo", "ses_1")


@pytest.fixture
def sound(column: Column) -> Iterator[None]:
    """Every state of every counter is on record, and the books are right in the end."""
    history.watch(column.sql, postgres=isinstance(column, PostgresColumn))
    yield
    books = history.Books.read(column.sql)
    assert [*history.attempts_are_settled_once(books), *history.sums_agree(books)] == []


def admission(attempt: str, budgets: Any, hold: int, at: datetime) -> Any:
    return accounts.admission(attempt, budgets, hold, now=int(at.timestamp() * 1000))


def budgets_of(folder: Path, *tables: dict[str, Any]) -> Budgets:
    document = configuration.good()
    document["budgets"] = list(tables)
    settings = load(configuration.write(configuration.folder(folder), document))
    return Budgets(settings.budgets, BERLIN)


@pytest.fixture
async def desks(column: Column) -> AsyncIterator[list[Desk]]:
    """Three replicas where several may share a store, else one."""
    databases = [Database(column.backend()) for _ in range(3 if isinstance(column, PostgresColumn) else 1)]
    for database in databases:
        database.start()
    yield [accounts.Desk(database) for database in databases]
    for database in databases:
        database.close()


async def test_new_api_6609_a_balance_is_never_read_first_and_written_later(desks: list[Desk], column: Column) -> None:
    """5690, songquanpeng/one-api#2440: two hundred at the same balance, and exactly what fits is admitted."""
    budget = accounts.budget("user", 37 * 50 + 49)
    numbers = iter(range(200))
    answers: list[object] = []

    async def client(desk: Desk) -> None:
        # One after another, so that many transactions meet at the row.
        answers.extend([await desk(accounts.admission(f"att_{number}", [budget], 50)) for number in numbers])

    await asyncio.gather(*(client(desk) for desk in desks for _ in range(4)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 37
    assert accounts.counters(column) == {("user", "2026-11"): (0, 37 * 50, 0)}


async def test_litellm_34887_no_order_of_budgets_makes_two_replicas_wait_for_each_other(
    desks: list[Desk], column: Column
) -> None:
    """6895, 27989, 24799, 27221, too: a circle of waiting ends in a victim whose increments are lost."""
    names = ["a", "b", "c", "d"]

    async def one(number: int) -> None:
        desk = desks[number % len(desks)]
        order = names if number % 2 else names[::-1]
        await desk(accounts.admission(f"att_{number:03}", [accounts.budget(name, 10**9) for name in order], 5))
        # Settled by whichever replica: its batch holds attempts of all of them.
        await desks[(number + 1) % len(desks)](accounts.settlement(f"att_{number:03}", 7))

    for start in range(0, 300, 60):
        await asyncio.gather(*(one(number) for number in range(start, start + 60)))
    assert accounts.counters(column) == {(name, "2026-11"): (300 * 7, 0, 0) for name in names}
    books = history.Books.read(column.sql, watched=False)
    assert [*history.attempts_are_settled_once(books), *history.sums_agree(books)] == []
    if isinstance(column, PostgresColumn):
        assert column.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


@pytest.mark.usefixtures("sound")
async def test_new_api_6089_a_release_that_is_repeated_gives_back_once(post: Desk, column: Column) -> None:
    """And 4429: what a crash took with it is settled by the sweep, once, and never given back by a late release."""
    budget = accounts.budget("user", 100)
    for attempt in ("att_released", "att_crashed"):
        await post(accounts.admission(attempt, [budget], 30))
    release = accounts.settlement("att_released", 0, outcome="released")
    assert await asyncio.gather(*(post(release) for _ in range(5))) == [True, False, False, False, False]
    assert await post(Sweep(accounts.LEASE + 1)) == 1
    assert await post(Sweep(accounts.LEASE + 1)) == 0
    assert accounts.counters(column) == {("user", "2026-11"): (30, 0, 0)}


@pytest.mark.usefixtures("sound")
async def test_litellm_15740_whatever_is_handed_in_again_writes_nothing(post: Desk, column: Column) -> None:
    """17814, too; I6: the same admission, renewal and settlement, before and after the end, alone and together."""
    budget = accounts.budget("user", 1000)
    items: list[Item] = [
        accounts.admission("att_1", [budget], 30, 60),
        accounts.renewal("att_1", 10, accounts.LEASE, 40),
        accounts.settlement("att_1", 45),
    ]
    for item in items:
        await post(item)
        await asyncio.gather(*(post(item) for _ in range(3)))
    for item in [*items, *reversed(items)]:
        await post(item)
    assert accounts.counters(column) == {("user", "2026-11"): (45, 0, 0)}
    assert accounts.entries(column) == {("att_1", "settlement"): (45, False)}


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize("period", ["day", "week", "month"])
async def test_litellm_20532_every_level_begins_anew_with_its_period(
    post: Desk, column: Column, tmp_path: Path, period: str
) -> None:
    """25495, 29576, 7129, 5651, 8364, 24675, too: a new period is a new counter. No job runs here."""
    budgets = budgets_of(
        tmp_path, *({"level": level, "limit_usd": 1, "overshoot_usd": 0, "period": period} for level in LEVELS)
    )
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    for number in range(3):
        concerning = budgets.concerning(ADA, now.timestamp())
        assert {budget.level for budget in concerning} == set(LEVELS)
        attempt = f"att_{number}"
        assert isinstance(await post(admission(attempt, concerning, 10**6, now)), Admitted)
        assert await post(accounts.settlement(attempt, 10**6))
        assert isinstance(await post(admission(f"{attempt}_more", concerning, 1, now)), Denial)
        ends = datetime.fromisoformat(concerning[0].resets_at)
        last = budgets.concerning(ADA, (ends - timedelta(seconds=1)).timestamp())
        assert isinstance(await post(admission(f"{attempt}_last", last, 1, now)), Denial)
        now = ends
    assert len(accounts.counters(column)) == 3 * len(LEVELS)
    assert set(accounts.counters(column).values()) == {(10**6, 0, 0)}


@pytest.mark.usefixtures("sound")
async def test_litellm_34733_what_ends_after_midnight_counts_where_it_was_admitted(
    post: Desk, column: Column, tmp_path: Path
) -> None:
    """Many settle the old period while many are admitted in the new one: neither overwrites the other."""
    budgets = budgets_of(tmp_path, {"level": "user", "limit_usd": 1, "overshoot_usd": 0, "period": "day"})
    # In Berlin the 25th of October 2026 has 25 hours: the clock goes back at three.
    midnight = datetime(2026, 10, 26, tzinfo=BERLIN)
    before, after = midnight - timedelta(seconds=1), midnight + timedelta(seconds=1)
    old, new = (budgets.concerning(ADA, moment.timestamp()) for moment in (before, after))
    assert (old[0].period_key, new[0].period_key) == ("2026-10-25", "2026-10-26")
    for number in range(50):
        assert isinstance(await post(admission(f"old_{number}", old, 100, before)), Admitted)
    work = [post(accounts.settlement(f"old_{number}", 120)) for number in range(50)]
    work += [post(admission(f"new_{number}", new, 10, after)) for number in range(50)]
    await asyncio.gather(*work)
    sums = {key: value for (_, key), value in accounts.counters(column).items()}
    assert sums == {"2026-10-25": (50 * 120, 0, 0), "2026-10-26": (0, 50 * 10, 0)}


@pytest.mark.parametrize(
    ("moment", "hours"),
    [("2026-03-29T12:00", 23), ("2026-10-25T12:00", 25), ("2026-11-21T12:00", 24)],
    ids=["spring", "autumn", "ordinary"],
)
def test_litellm_20532_a_day_with_a_change_of_clocks_is_one_day(tmp_path: Path, moment: str, hours: int) -> None:
    budgets = budgets_of(tmp_path, {"level": "user", "limit_usd": 1, "overshoot_usd": 0, "period": "day"})
    noon = datetime.fromisoformat(moment).replace(tzinfo=BERLIN)
    start = noon.replace(hour=0).timestamp()
    keys = [budgets.concerning(ADA, start + minute * 60)[0].period_key for minute in range(26 * 60)]
    day = noon.strftime("%Y-%m-%d")
    assert keys.count(day) == hours * 60
    assert keys == sorted(keys), "no hour returns to the day before"


@pytest.mark.usefixtures("sound")
async def test_bifrost_5770_a_threshold_is_announced_when_it_is_reached_and_once(post: Desk, column: Column) -> None:
    """ "Used > 99 %" at $0.40 of $15 there. Here: each percent once, at its amount, however many reach it together."""
    budget = accounts.budget("user", 1000, 1000, thresholds=(50, 99))
    for number in range(200):
        await post(accounts.admission(f"att_{number}", [budget], 1))

    async def spend(start: int, end: int) -> list[tuple[Any, ...]]:
        await asyncio.gather(*(post(accounts.settlement(f"att_{n}", 10)) for n in range(start, end)))
        return column.sql("SELECT percent FROM events ORDER BY event_id")

    assert await spend(0, 49) == []
    assert await spend(49, 60) == [(50,)]
    assert await spend(60, 98) == [(50,)]
    assert await spend(98, 120) == [(50,), (99,)]
    assert column.sql("SELECT percent, spent >= 990 FROM events WHERE percent = 99") in ([(99, 1)], [(99, True)])


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize("step", [-7200, -1, 1, 7200], ids=str)
async def test_litellm_22013_a_clock_that_steps_neither_frees_nor_doubles_anything(
    post: Desk, column: Column, step: int
) -> None:
    """The clock moves while an attempt runs: it is renewed or swept by the clock that there is, and settled once."""
    budget = accounts.budget("user", 1000, 1000)
    now = 10**12
    await post(accounts.admission("att_1", [budget], 30, 60, now=now))
    now += step * 1000
    await post(accounts.renewal("att_1", 10, now + accounts.LEASE))
    assert await post(Sweep(now)) == 0, "it was renewed by the same clock"
    swept = await post(Sweep(now + accounts.LEASE + 1))
    assert swept == 1
    assert await post(accounts.settlement("att_1", 55, now=now)) is True
    assert await post(accounts.settlement("att_1", 55, now=now)) is False
    assert accounts.counters(column) == {("user", "2026-11"): (55, 0, 0)}
