"""A server that goes away, hangs, is lost at the worst moment: what was answered is there, once; the rest is said."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import insert, select, text

from llmgw_gateway.errors import GatewayError, StoreAwayError
from llmgw_gateway.store.clock import ServerClock
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.postgres import Postgres
from llmgw_gateway.store.schema import proofs
from llmgw_gateway.store.upsert import insert_if_absent
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret
from tests.gateway.columns import PostgresColumn
from tests.gateway.store.keeping import keep, kept, row
from tests.gateway.store.proxy import Proxy
from tests.lab.postgres import USER
from tests.lab.postgres import Postgres as Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import Connection


@pytest.fixture
def server() -> Iterator[Server]:
    """One to kill, pause and restart: never the session's."""
    with Server() as running:
        yield running


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    running = Database(PostgresColumn(server, server.database()).backend())
    running.start()
    yield running
    running.close()


def record(connection: Connection, batch: list[str]) -> list[str]:
    """Keep each name once: run again it answers the same and changes nothing, as every batch function must."""
    insert_if_absent(connection, proofs, [row(name) for name in batch])
    return batch


async def test_whatever_was_answered_is_there_exactly_once_after_the_server_was_killed_under_load(
    server: Server, database: Database
) -> None:
    answered: set[str] = set()
    uncertain: set[str] = set()
    refused: set[str] = set()
    over = asyncio.Event()

    async def caller(number: int) -> None:
        count = 0
        while not over.is_set():
            count += 1
            name = f"{number}-{count}"
            try:
                answered.add(await database.submit(record, name))
            except StoreAwayError as error:
                (uncertain if error.uncertain else refused).add(name)

    async def more() -> None:
        before = len(answered)
        while len(answered) < before + 50:
            await asyncio.wait(callers, timeout=0.01, return_when=asyncio.FIRST_EXCEPTION)

    callers = [asyncio.create_task(caller(number)) for number in range(16)]
    for _ in range(3):
        await more()
        await asyncio.to_thread(server.kill)
        server.start()
        await asyncio.to_thread(server.wait_ready)
    await more()
    over.set()
    await asyncio.gather(*callers)
    there = await database.read(kept)
    assert answered <= there
    assert not refused & there
    assert there <= answered | uncertain


@pytest.mark.parametrize("before", [False, True], ids=["after the commit", "before the commit"])
async def test_a_connection_lost_while_committing_is_resolved_to_exactly_once(
    postgres: Server, empty_database: str, *, before: bool
) -> None:
    name = postgres.database(empty_database)
    runs: list[list[str]] = []

    def noted(connection: Connection, batch: list[str]) -> list[str]:
        runs.append([*connection.scalars(select(proofs.c.proof))])
        return record(connection, batch)

    with Proxy(postgres.port) as proxy:
        url = f"postgresql://{USER}:{postgres.password}@127.0.0.1:{proxy.port}/{name}"
        database = Database(Postgres(Secret(url)))
        database.start()
        await database.submit(record, "first")
        proxy.before = before
        proxy.cut_commits = 2
        assert await database.submit(noted, "uncertain") == "uncertain"
        assert proxy.cuts == 2
        database.close()
    assert len(runs) == 3
    assert runs[1] == (["first"] if before else ["first", "uncertain"])
    assert PostgresColumn(postgres, name).sql("SELECT COUNT(*) FROM proofs") == [(2,)]


async def test_a_commit_that_stays_unknown_is_told_as_such(postgres: Server, empty_database: str) -> None:
    name = postgres.database(empty_database)
    with Proxy(postgres.port) as proxy:
        url = f"postgresql://{USER}:{postgres.password}@127.0.0.1:{proxy.port}/{name}"
        database = Database(Postgres(Secret(url)))
        database.start()
        proxy.cut_commits = 1_000
        with pytest.raises(StoreAwayError) as caught:
            await database.submit(record, "unknown")
        proxy.cut_commits = 0
        database.close()
    assert caught.value.uncertain
    assert caught.value.retry_after == 2
    assert PostgresColumn(postgres, name).sql("SELECT proof FROM proofs") == [("unknown",)]


async def test_callers_of_a_server_that_hangs_are_told_so_and_served_again_when_it_goes_on(
    server: Server, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llmgw.store")
    await database.submit(record, "before")
    server.pause()
    first = asyncio.gather(*(database.submit(record, f"hung-{n}") for n in range(5)), return_exceptions=True)
    assert all(isinstance(answer, StoreAwayError) for answer in await first)
    with pytest.raises(StoreAwayError):
        await database.read(kept)
    with pytest.raises(StoreAwayError):
        await database.submit(record, "hung as well")
    server.resume()
    await served(database)
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(said) == 2, said
    assert " is away: " in said[0]
    assert " is back after " in said[1]
    assert server.password not in caplog.text


async def served(database: Database) -> None:
    """Wait until the store takes work again."""
    while True:
        try:
            await database.submit(record, "after")
        except StoreAwayError:
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_server_that_was_restarted_while_nothing_happened_is_not_noticed(
    server: Server, database: Database
) -> None:
    await database.submit(record, "before")
    await database.read(kept)
    await asyncio.to_thread(server.restart)
    await database.submit(record, "after")
    assert await database.read(kept) == {"before", "after"}


async def test_closing_does_not_wait_for_a_server_that_is_away(server: Server) -> None:
    database = Database(PostgresColumn(server, server.database()).backend())
    database.start()
    await database.submit(record, "before")
    server.kill()
    tasks = [asyncio.create_task(database.submit(record, f"late-{number}")) for number in range(5)]
    await asyncio.sleep(0)  # all of them are queued now
    database.close()
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(answer, StoreAwayError)
        assert not answer.uncertain


async def test_two_replicas_that_deadlock_both_get_through(postgres: Server, empty_database: str) -> None:
    column = PostgresColumn(postgres, postgres.database(empty_database))
    here, there = (Database(column.backend()) for _ in range(2))
    for database in (here, there):
        database.start()
    both_hold_one = threading.Barrier(2)
    runs = 0

    def cross(connection: Connection, batch: list[tuple[str, str]]) -> list[str]:
        nonlocal runs
        ((first, second),) = batch
        runs += 1
        change = text("UPDATE proofs SET expires_at = expires_at + 1 WHERE proof = :name")
        connection.execute(change, {"name": first})
        if runs <= 2:
            both_hold_one.wait()
        connection.execute(change, {"name": second})
        return [first]

    await asyncio.gather(here.submit(record, "a"), here.submit(record, "b"))
    answers = await asyncio.gather(here.submit(cross, ("a", "b")), there.submit(cross, ("b", "a")))
    assert list(answers) == ["a", "b"]
    assert runs == 3
    assert column.sql("SELECT expires_at FROM proofs") == [(3,), (3,)]
    here.close()
    there.close()


async def test_a_lock_that_somebody_keeps_is_waited_for_only_so_long(postgres: Server, empty_database: str) -> None:
    column = PostgresColumn(postgres, postgres.database(empty_database))
    database = Database(column.backend())
    database.start()
    with psycopg.connect(postgres.url(column.database)) as other:
        other.execute("LOCK TABLE proofs")
        with pytest.raises(GatewayError) as caught:
            await database.submit(keep, "blocked")
        assert caught.value.code is ErrorCode.STORE_UNAVAILABLE
        other.rollback()
        assert await database.submit(keep, "free") == "free"
    database.close()


async def test_a_step_of_this_machine_s_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic = 100.0
    clock = ServerClock(lambda: monotonic)

    def ask() -> float:
        nonlocal monotonic
        monotonic += 0.2  # there and back
        return 5_000.0

    clock.measure(ask)
    assert clock.now() == pytest.approx(5_000.1)
    monkeypatch.setattr("time.time", lambda: 0.0)
    monotonic += 10
    assert clock.now() == pytest.approx(5_010.1)


async def test_a_measurement_that_took_long_does_not_replace_a_good_one() -> None:
    monotonic = 100.0
    clock = ServerClock(lambda: monotonic)
    clock.measure(lambda: 5_000.0)

    def slow() -> float:
        nonlocal monotonic
        monotonic += 1.5
        return 9_000.0

    clock.measure(slow)
    assert clock.now() == pytest.approx(5_001.5)


async def test_a_replica_whose_clock_is_off_the_store_s_is_not_ready(
    postgres: Server, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(PostgresColumn(postgres, postgres.database(empty_database)).backend())
    database.start()
    assert database.unready() == ""
    right = database.now()
    monkeypatch.setattr("time.time", lambda: right + 60)
    assert "clock" in database.unready()
    assert "+" in database.unready()
    assert abs(database.now() - right) < 30
    database.close()


async def test_a_commit_that_was_lost_stays_uncertain_when_the_second_run_finds_a_fault(
    postgres: Server, empty_database: str
) -> None:
    # "Nothing was charged" would be said of what is charged.
    name = postgres.database(empty_database)
    runs = 0

    def faulty_later(connection: Connection, batch: list[str]) -> list[str]:
        nonlocal runs
        runs += 1
        if runs > 1:
            connection.execute(text("SELECT 1 / 0"))
        return record(connection, batch)

    with Proxy(postgres.port) as proxy:
        url = f"postgresql://{USER}:{postgres.password}@127.0.0.1:{proxy.port}/{name}"
        database = Database(Postgres(Secret(url)))
        database.start()
        proxy.cut_commits = 1
        with pytest.raises(StoreAwayError) as caught:
            await database.submit(faulty_later, "there")
        database.close()
    assert caught.value.uncertain
    assert PostgresColumn(postgres, name).sql("SELECT proof FROM proofs") == [("there",)]


async def test_a_commit_that_lands_between_two_statements_of_the_second_run_is_found_by_a_third(
    postgres: Server, empty_database: str
) -> None:
    name = postgres.database(empty_database)
    column = PostgresColumn(postgres, name)
    runs = 0

    def unaware(connection: Connection, batch: list[str]) -> list[str]:
        nonlocal runs
        runs += 1
        there = kept(connection)
        if runs == 2:  # the first has been lost; it lands now
            column.sql("INSERT INTO proofs VALUES ('late', '', 1)")
        if "late" not in there:
            connection.execute(insert(proofs), row("late"))
        return batch

    with Proxy(postgres.port) as proxy:
        url = f"postgresql://{USER}:{postgres.password}@127.0.0.1:{proxy.port}/{name}"
        database = Database(Postgres(Secret(url)))
        database.start()
        proxy.before = True
        proxy.cut_commits = 1
        assert await database.submit(unaware, "late") == "late"
        database.close()
    assert runs == 3


async def test_a_query_that_takes_too_long_does_not_keep_others_from_writing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llmgw.store")

    def slow(connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(60)"))

    reading = asyncio.create_task(database.read(slow))
    await database.submit(record, "meanwhile")
    with pytest.raises(StoreAwayError):
        await reading
    await database.submit(record, "after")
    assert await database.read(kept) == {"meanwhile", "after"}
    assert " is away: " not in caplog.text, "the writer's connection is as good as ever"


async def test_a_password_that_was_replaced_is_read_again_with_the_next_connection(
    postgres: Server, empty_database: str
) -> None:
    name = postgres.database(empty_database)
    column = PostgresColumn(postgres, name)
    column.sql("CREATE ROLE rotating SUPERUSER LOGIN PASSWORD 'former'")
    passwords = ["former"]

    def url() -> Secret:
        if not passwords:
            raise FileNotFoundError("store.url")
        return Secret(f"postgresql://rotating:{passwords[-1]}@127.0.0.1:{postgres.port}/{name}")

    def hang_up() -> None:
        column.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'")

    database = Database(Postgres(url(), reread=url))
    database.start()
    try:
        await database.submit(record, "before")
        passwords.clear()
        hang_up()
        assert await database.submit(record, "with the last one") == "with the last one"
        passwords.append("latter")
        column.sql("ALTER ROLE rotating PASSWORD 'latter'")
        hang_up()
        assert await database.submit(record, "after") == "after"
        assert await database.read(lambda connection: len(connection.scalars(select(proofs.c.proof)).all())) == 3
    finally:
        database.close()
        hang_up()
        column.sql("DROP ROLE rotating")
