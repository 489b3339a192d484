"""A replica is stopped past its lease between any two of its steps, and goes on: others have swept meanwhile.

At the level of the books, where the time is an argument. The same with processes and SIGSTOP: functional/test_chaos.py.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.money.items import TRUTH_MILLISECONDS, Sweep
from llmgw_gateway.store.database import Database
from tests.gateway.columns import PostgresColumn
from tests.gateway.money import accounts
from tests.gateway.money.accounts import LEASE
from tests.lab import history
from tests.lab.history import Bound, Moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmgw_gateway.money.items import Item, Settlement
    from tests.gateway.columns import Column
    from tests.gateway.money.accounts import Desk

BOUND = Bound(limit=10_000, overshoot=10_000)
HOLD, TOPPED_UP, CEILING = 30, 50, 90
ENDINGS = {"exact": 70, "dearer than its ceiling was thought": CEILING, "released": 0, "unknown": None}
NAMES = ("organisation", "user")
TRUTH_COMES = 3
"""The step of `life` in which the end is told for the first time."""


@pytest.fixture
async def other(column: Column, both: Database) -> AsyncIterator[Desk]:
    """Another replica of the same store, where there can be one; else the same once more."""
    if not isinstance(column, PostgresColumn):
        yield accounts.Desk(both)
        return
    database = Database(column.backend())
    database.start()
    yield accounts.Desk(database)
    database.close()


def life(attempt: str, now: int, end: Settlement) -> Iterator[Item]:
    """Everything that a replica does for an attempt, in order; the answer to the last is lost, so it is done again."""
    budgets = [accounts.budget(name, BOUND.limit, BOUND.overshoot) for name in NAMES]
    yield accounts.admission(attempt, budgets, HOLD, CEILING, now)
    yield accounts.renewal(attempt, 10, now + LEASE)
    yield accounts.renewal(attempt, 45, now + LEASE, TOPPED_UP)
    yield end
    yield end


def overrun(moments: list[Moment]) -> list[Moment]:
    """I5 at every moment there ever was."""
    worst = BOUND.limit + BOUND.overshoot
    return [each for each in moments if sum(each.amounts) > worst]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("pause", [LEASE + 1, TRUTH_MILLISECONDS + LEASE + 1], ids=["past its lease", "for hours"])
async def test_a_pause_between_any_two_steps_doubles_and_loses_nothing(
    post: Desk, other: Desk, column: Column, ending: str, pause: int
) -> None:
    history.watch(column.sql, postgres=isinstance(column, PostgresColumn))
    truth, now, expected = ENDINGS[ending], 0, 0
    places = [*itertools.chain.from_iterable(itertools.combinations(range(1, 5), count) for count in range(5))]
    for number, pauses in enumerate(places):
        attempt = f"att_{number}"
        swept_at = looked_at = now
        swept = 0
        for step, item in enumerate(life(attempt, now, accounts.settlement(attempt, truth))):
            if step in pauses:
                now += pause
                if lost := await other(Sweep(now)):
                    swept, swept_at = swept + lost, now
                assert await other(Sweep(now)) == 0
                looked_at = now if step <= TRUTH_COMES else looked_at
            await post(item)
        assert swept == (min(pauses, default=9) < 4), "swept once, however often it was paused; never after its end"
        known = [entry for (name, _), entry in sorted(accounts.entries(column).items()) if name == attempt]
        charged = sum(cost for cost, _ in known)
        # However old it was when it was swept: from then on its replica has as long as any answer may take.
        forgotten = swept and looked_at - swept_at > TRUTH_MILLISECONDS
        if truth is None or forgotten:
            assert charged == (TOPPED_UP if min(pauses, default=9) > 2 else HOLD)
            assert len(known) == 1
        else:
            assert charged == truth
            assert len(known) == 1 + swept
        expected += charged
        now += LEASE
    await other(Sweep(now + TRUTH_MILLISECONDS + LEASE))
    assert accounts.counters(column) == {(name, "2026-11"): (expected, 0, 0) for name in NAMES}
    books = history.Books.read(column.sql)
    assert [*history.attempts_are_settled_once(books), *history.sums_agree(books)] == []
    assert overrun([each for each in books.moments if each.what == "counter"]) == []
