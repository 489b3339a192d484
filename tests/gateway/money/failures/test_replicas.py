"""Failures of others between two processes that share a store, and when its answer is lost on the way.

Numbers: docs/money-failures.md.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.call import Usage
from llmgw_gateway.errors import GatewayError, StoreAwayError
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.postgres import Postgres
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret
from tests.gateway.columns import PostgresColumn
from tests.gateway.money import accounts
from tests.gateway.money.accounts import faults
from tests.gateway.money.test_holds import ACCOUNT, CALL, GRANT, HOLD, MUCH, MUCH_COST, SEEN, SEEN_COST, money, outcome
from tests.gateway.store.proxy import Proxy
from tests.lab.postgres import USER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_gateway.money.holds import Money
    from tests.gateway.columns import Column
    from tests.lab.postgres import Postgres as Server


@pytest.fixture
def shared(postgres: Server, empty_database: str) -> PostgresColumn:
    """A store for several replicas."""
    return PostgresColumn(postgres, postgres.database(empty_database))


@contextmanager
def running(*databases: Database) -> Iterator[None]:
    for database in databases:
        database.start()
    try:
        yield
    finally:
        for database in databases:
            database.close()


async def answered(by: Money, operation: str, usage: Usage) -> None:
    """One call from beginning to end; its settlement is durable on return."""
    async with by.admit(ACCOUNT, GRANT, CALL, operation) as hold:
        outcome(hold.outcome, {"dispatched": True, "usage": usage, "completeness": "complete"})
    await by.drain()


async def test_litellm_26672_what_one_replica_booked_the_other_refuses_at_once(
    shared: PostgresColumn, tmp_path: Path
) -> None:
    """Both have seen the budget with plenty of room; neither may go by what it remembers of that."""
    databases = [Database(shared.backend()) for _ in range(2)]
    with running(*databases):
        one, other = (money(database, tmp_path, limit_usd=0.1, overshoot_usd=10) for database in databases)
        for number, replica in enumerate((one, other)):
            await answered(replica, f"req_{number}", SEEN)
        await answered(one, "req_dear", MUCH)
        with pytest.raises(GatewayError) as caught:
            await answered(other, "req_refused", SEEN)
        assert caught.value.code is ErrorCode.BUDGET_EXCEEDED
        assert await databases[0].read(faults) == []
    assert list(accounts.counters(shared).values()) == [(2 * SEEN_COST + MUCH_COST, 0, 0)]


@pytest.mark.parametrize("before", [False, True], ids=["after the commit", "before the commit"])
async def test_litellm_30460_a_commit_whose_answer_is_lost_counts_once(
    shared: PostgresColumn, tmp_path: Path, *, before: bool
) -> None:
    """The connection breaks at COMMIT, of the admission and of the settlement: both are done again, and count once."""
    with Proxy(shared.server.port) as proxy:
        database = Database(Postgres(Secret(through(proxy, shared))))
        with running(database):
            by = money(database, tmp_path, limit_usd=1)
            proxy.before = before
            proxy.cut_commits = 1
            async with by.admit(ACCOUNT, GRANT, CALL, "req_1") as hold:
                outcome(hold.outcome, {"dispatched": True, "usage": SEEN, "completeness": "complete"})
                ((_, held, _),) = accounts.counters(shared).values()
                assert held == HOLD
                proxy.cut_commits = 1
            await by.drain()
        assert proxy.cuts == 2
    assert list(accounts.counters(shared).values()) == [(SEEN_COST, 0, 0)]
    assert list(accounts.entries(shared).values()) == [(SEEN_COST, False)]


async def test_litellm_30460_a_reservation_that_timed_out_is_given_back_when_the_store_is_there_again(
    shared: PostgresColumn, tmp_path: Path
) -> None:
    """The admission was committed, its caller was told that the store is away: what it held must not stay."""
    with Proxy(shared.server.port) as proxy:
        database = Database(Postgres(Secret(through(proxy, shared))))
        with running(database):
            by = money(database, tmp_path, limit_usd=1)
            proxy.cut_commits = 1_000
            with pytest.raises(StoreAwayError):
                await by.admit(ACCOUNT, GRANT, CALL, "req_1").__aenter__()
            ((_, held, _),) = accounts.counters(shared).values()
            assert held == HOLD, "or else nothing was timed out here"
            proxy.cut_commits = 0
            await by.drain()
    assert list(accounts.counters(shared).values()) == [(0, 0, 0)]


async def test_litellm_36926_replicas_that_come_and_go_leave_the_sum_alone(
    shared: PostgresColumn, tmp_path: Path
) -> None:
    """28247, too: six processes read the same store, two at a time, and each books one call."""
    for turn in range(3):
        databases = [Database(shared.backend()) for _ in range(2)]
        with running(*databases):
            replicas = [money(each, tmp_path) for each in databases]
            for each in replicas:
                await each.start()
            await asyncio.gather(*(answered(each, f"req_{turn}", SEEN) for each in replicas))
    assert list(accounts.counters(shared).values()) == [(6 * SEEN_COST, 0, 0)]


async def test_litellm_37927_a_settlement_that_no_store_takes_frees_its_hold(
    both: Database, column: Column, tmp_path: Path
) -> None:
    """A number beyond every column stands for what nobody has thought of: charged as unknown, and held no longer."""
    by = money(both, tmp_path)
    async with by.admit(ACCOUNT, GRANT, CALL, "req_1") as hold:
        outcome(hold.outcome, {"dispatched": True, "usage": Usage(input=2**80), "completeness": "complete"})
    await by.drain()
    assert list(accounts.counters(column).values()) == [(HOLD, 0, 0)]
    assert list(accounts.entries(column).values()) == [(HOLD, True)]


def through(proxy: Proxy, column: PostgresColumn) -> str:
    return f"postgresql://{USER}:{column.server.password}@127.0.0.1:{proxy.port}/{column.database}"
