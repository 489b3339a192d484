"""An admission of which nobody knows whether it was committed: taken back for good, even when its COMMIT comes late."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.errors import StoreAwayError
from llmgw_gateway.money.items import Draw, Replay, Sweep, Undo
from llmgw_gateway.money.posting import Books
from llmgw_gateway.money.writeoff import WriteOff, write_off
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.session import WRITING, Session, parameters
from llmgw_wire.secret import Secret
from tests.gateway.columns import PostgresColumn
from tests.gateway.money import accounts
from tests.gateway.money.test_holds import ACCOUNT, CALL, GRANT, money
from tests.gateway.store.interrupted import Interrupted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.gateway.columns import Column
    from tests.gateway.money.accounts import Desk
    from tests.lab.postgres import Postgres as Server

BUDGETS = [accounts.budget("user", 100, 100)]
ADMITTED = accounts.admission("att_1", BUDGETS, 10, 50)
UNDO = Undo("att_1", ADMITTED.paying, 1)
RELEASED = {("att_1", "settlement"): (0, False)}


@dataclass
class Two:
    """A replica, and the connection of another one, on which a test can stop halfway."""

    column: PostgresColumn
    database: Database
    other: Session


@pytest.fixture
async def two(postgres: Server, empty_database: str) -> AsyncIterator[Two]:
    column = PostgresColumn(postgres, postgres.database(empty_database))
    database = Database(column.backend())
    database.start()
    other = Session(parameters(Secret(postgres.url(column.database))), WRITING, prepared=False)
    yield Two(column, database, other)
    other.drop()
    database.close()


async def waits(column: PostgresColumn, task: asyncio.Task[Any]) -> None:
    """Until the server holds it up behind another transaction."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while column.sql(waiting) == [(0,)]:
        assert not task.done(), "it did not wait"
        await asyncio.sleep(0.01)


async def test_what_was_admitted_is_released(post: Desk, column: Column) -> None:
    await post(ADMITTED)
    assert await post(UNDO) is True
    assert accounts.counters(column) == {("user", "2026-11"): (0, 0, 0)}
    assert accounts.entries(column) == RELEASED
    assert accounts.rows(column, "SELECT * FROM attempts") == []


async def test_what_is_not_there_cannot_be_admitted_any_more(post: Desk, column: Column) -> None:
    assert await post(UNDO) is True
    await post(ADMITTED)
    assert set(accounts.counters(column).values()) == {(0, 0, 0)}
    assert accounts.entries(column) == RELEASED
    assert accounts.rows(column, "SELECT * FROM attempts") == []


async def test_the_same_undo_again_changes_nothing(post: Desk, column: Column) -> None:
    await post(ADMITTED)
    assert await post(UNDO) is True
    assert await post(UNDO) is False
    assert accounts.entries(column) == RELEASED
    assert accounts.rows(column, "SELECT * FROM attempts") == []


async def test_what_was_settled_stays_settled(post: Desk, column: Column) -> None:
    await post(ADMITTED)
    await post(accounts.settlement("att_1", 20))
    assert await post(UNDO) is False
    assert accounts.counters(column) == {("user", "2026-11"): (20, 0, 0)}
    assert accounts.rows(column, "SELECT * FROM attempts") == []


async def test_what_was_swept_is_given_back(post: Desk, column: Column) -> None:
    await post(ADMITTED)
    await post(Sweep(accounts.LEASE + 1))
    assert accounts.counters(column) == {("user", "2026-11"): (10, 0, 40)}
    assert await post(UNDO) is True
    assert accounts.counters(column) == {("user", "2026-11"): (0, 0, 0)}


async def test_a_commit_that_lands_late_is_waited_for(two: Two) -> None:
    # A release would find nothing and be done; then the hold would come, be swept, and be charged.
    column, database = two.column, two.database
    await accounts.Desk(database)(accounts.admission("att_0", BUDGETS, 1))
    with two.other.transaction(4) as (connection, transaction):
        Books().post(connection, [ADMITTED])  # and its COMMIT is under way
        undoing = asyncio.create_task(accounts.Desk(database)(UNDO))
        await waits(column, undoing)
        transaction.commit()
    assert await undoing is True
    assert accounts.counters(column) == {("user", "2026-11"): (0, 1, 0)}
    assert accounts.entries(column) == RELEASED


async def test_a_write_off_says_what_it_has_charged_whatever_is_entered_meanwhile(two: Two) -> None:
    column, database = two.column, two.database
    await accounts.Desk(database)(accounts.admission("alw_1", BUDGETS, 50))
    draw = Draw("att_1", ADMITTED.paying, (("user", "2026-11"),), ("alw_1",), (10, 0, 0), (50, 0, 0))
    replay = Replay(draw, accounts.settlement("att_1", 20))
    with two.other.transaction(4) as (connection, transaction):
        Books().post(connection, [replay])
        writing = asyncio.create_task(
            database.submit(write_off, WriteOff("alw_1", "the disk", operator("ada@here"), 2))
        )
        await waits(column, writing)
        transaction.commit()
    assert await writing == 30
    assert accounts.rows(column, "SELECT amount FROM write_offs") == [(30,)]
    assert accounts.entries(column)["alw_1", "settlement"] == (30, True)
    assert accounts.counters(column) == {("user", "2026-11"): (50, 0, 0)}


async def test_a_call_that_was_refused_because_its_commit_was_unknown_costs_nothing_when_that_lands(
    store: Path, tmp_path: Path
) -> None:
    backend = Interrupted(store)
    database = Database(backend)
    database.start()
    ours = money(database, tmp_path)
    backend.state = "late"
    with pytest.raises(StoreAwayError):
        await ours.admit(ACCOUNT, GRANT, CALL, "req_1").__aenter__()
    await ours.drain()
    await database.submit(backend.land, None)
    database.close()
    assert accounts.rows(store, "SELECT outcome, cost FROM ledger") == [("released", 0)]
    assert accounts.rows(store, "SELECT * FROM attempts") == []
    assert accounts.rows(store, "SELECT spent, held, exposure FROM counters") == [(0, 0, 0)]


class Distracted(Interrupted):
    """Loses one answer, and is as usual from then on."""

    def transact(self, run: Callable[[Connection], Any], deadline: float) -> Any:
        try:
            return super().transact(run, deadline)
        finally:
            self.state = "here"


async def test_what_cannot_be_taken_back_is_released_and_not_charged(store: Path, tmp_path: Path) -> None:
    backend = Distracted(store)
    database = Database(backend)
    database.start()
    ours = money(database, tmp_path)

    def refuse_places(connection: Connection, batch: list[None]) -> list[None]:
        there = "EXISTS (SELECT 1 FROM attempts WHERE attempt_id = new.attempt_id)"
        connection.exec_driver_sql(
            f"CREATE TRIGGER taken BEFORE INSERT ON attempts WHEN {there} BEGIN SELECT RAISE(ABORT, 'taken'); END"
        )
        return batch

    await database.submit(refuse_places, None)
    backend.state = "deaf"
    with pytest.raises(StoreAwayError):
        await ours.admit(ACCOUNT, GRANT, CALL, "req_1").__aenter__()
    await ours.drain()
    database.close()
    assert accounts.rows(store, "SELECT outcome, cost FROM ledger") == [("released", 0)]
    assert accounts.rows(store, "SELECT * FROM attempts") == []
    assert accounts.rows(store, "SELECT spent, held, exposure FROM counters") == [(0, 0, 0)]


async def test_a_sweep_holds_nothing_while_it_waits_for_an_attempt_that_comes_first(two: Two) -> None:
    # Else a replica that has the first and wants the last would wait for it in a circle.
    column, database = two.column, two.database
    desk = accounts.Desk(database)
    for name, now in (("att_1", accounts.LEASE), ("att_2", 0)):
        await desk(accounts.admission(name, BUDGETS, 10, now=now))

    def together(connection: Connection, batch: list[Any]) -> list[Any]:
        return [Books().post(connection, items) for items in batch]

    with two.other.transaction(4) as (connection, transaction):
        connection.exec_driver_sql("SELECT 1 FROM attempts WHERE attempt_id = 'att_1' FOR UPDATE")
        sweeping = asyncio.create_task(
            database.submit(together, [Sweep(accounts.LEASE + 1), accounts.settlement("att_1", 20)])
        )
        await waits(column, sweeping)
        connection.exec_driver_sql("SELECT 1 FROM attempts WHERE attempt_id = 'att_2' FOR UPDATE NOWAIT")
        transaction.commit()
    await sweeping
    assert accounts.entries(column) == {("att_1", "settlement"): (20, False), ("att_2", "settlement"): (10, True)}
