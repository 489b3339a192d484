"""What every store promises: durable answers in order, one writer, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from llmgw_gateway.errors import GatewayError, StoreAwayError
from llmgw_gateway.store.database import MOST_PER_COMMIT, Database
from llmgw_gateway.store.schema import proofs
from llmgw_wire.errors import ErrorCode
from tests.gateway.store.keeping import UnluckyError, keep, kept, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tests.gateway.columns import Column


WATCHDOG = 10


async def test_every_caller_gets_its_own_answer(both: Database) -> None:
    names = [f"name-{number}" for number in range(3 * MOST_PER_COMMIT)]
    assert await asyncio.gather(*(both.submit(keep, name) for name in names)) == names
    assert await both.read(kept) == set(names)


async def test_an_item_that_fails_fails_alone(both: Database) -> None:
    names = [f"name-{number}" for number in range(50)]
    names[20:20] = ["bad-one", "bad-two"]
    answers = await asyncio.gather(*(both.submit(keep, name) for name in names), return_exceptions=True)
    for name, answer in zip(names, answers, strict=True):
        if name.startswith("bad"):
            assert isinstance(answer, UnluckyError)
        else:
            assert answer == name
    assert await both.read(kept) == {name for name in names if not name.startswith("bad")}


async def test_an_item_that_is_refused_is_told_so_and_the_others_are_kept(both: Database) -> None:
    answers = await asyncio.gather(*(both.submit(keep, name) for name in ("one", "no", "two")), return_exceptions=True)
    assert answers[0] == "one"
    assert answers[2] == "two"
    assert isinstance(answers[1], GatewayError)
    assert await both.read(kept) == {"one", "two"}


async def test_a_row_that_the_database_refuses_is_no_store_that_is_away(both: Database) -> None:
    # "Try again" would be said for ever.
    await both.submit(keep, "twice")
    with pytest.raises(GatewayError) as caught:
        await both.submit(keep, "twice")
    assert caught.value.code is ErrorCode.INTERNAL
    assert caught.value.retry_after is None
    assert "twice" not in caught.value.message
    assert await both.submit(keep, "again") == "again"


async def test_work_of_a_caller_who_left_is_done_all_the_same(both: Database) -> None:
    task = asyncio.create_task(both.submit(keep, "abandoned"))
    await asyncio.sleep(0)  # the work is queued now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await both.submit(keep, "next")
    assert await both.read(kept) == {"abandoned", "next"}


async def test_one_thread_writes_and_not_the_loop_s(both: Database) -> None:
    def where(_connection: Connection, batch: list[None]) -> list[str]:
        return [threading.current_thread().name for _ in batch]

    seen = await asyncio.gather(*(both.submit(where, None) for _ in range(100)))
    assert set(seen) == {"store-writer"}


async def test_reading_cannot_write(both: Database) -> None:
    with pytest.raises(GatewayError):
        await both.read(lambda connection: connection.execute(insert(proofs), row("x")))
    assert await both.read(kept) == set()


async def test_an_answer_means_that_others_can_see_the_row(both: Database, column: Column) -> None:
    await both.submit(keep, "durable")
    assert column.sql("SELECT proof FROM proofs") == [("durable",)]


async def test_work_is_done_and_answered_in_the_order_in_which_it_came(both: Database) -> None:
    done: list[int] = []

    def note(_connection: Connection, batch: list[int]) -> list[int]:
        done.extend(batch)
        return batch

    answered: list[int] = []
    tasks = [asyncio.create_task(both.submit(note, number)) for number in range(3 * MOST_PER_COMMIT)]
    for task in tasks:
        task.add_done_callback(lambda task: answered.append(task.result()))
    await asyncio.gather(*tasks)
    assert done == answered == list(range(3 * MOST_PER_COMMIT))


async def test_what_may_wait_shares_a_commit_with_what_comes_next_and_waits_for_it_only_so_long(both: Database) -> None:
    batches: list[list[str]] = []

    def work(_: Connection, names: list[str]) -> list[str]:
        batches.append(names)
        return names

    first = both.hand_in(work, "settled", linger=3600)
    assert await both.submit(work, "asked") == "asked"
    assert await first == "settled"
    assert await both.hand_in(work, "alone", linger=0.01) == "alone"
    assert batches == [["settled", "asked"], ["alone"]]


async def test_what_lingers_less_does_not_wait_for_what_lingers_more(both: Database) -> None:
    settled = both.hand_in(keep, "settled", linger=3600)
    admitted = both.hand_in(keep, "admitted", linger=0.01)
    assert list(await asyncio.gather(settled, admitted)) == ["settled", "admitted"]


async def test_a_query_sees_one_moment(both: Database) -> None:
    loop = asyncio.get_running_loop()

    def twice(connection: Connection) -> tuple[set[str], set[str]]:
        before = kept(connection)
        asyncio.run_coroutine_threadsafe(both.submit(keep, "meanwhile"), loop).result()
        return before, kept(connection)

    assert await both.read(twice) == (set(), set())
    assert await both.read(kept) == {"meanwhile"}


def meanwhile(database: Database) -> Callable[[Connection], set[str]]:
    """A query during which something is written."""
    loop = asyncio.get_running_loop()

    def query(connection: Connection) -> set[str]:
        before = kept(connection)
        asyncio.run_coroutine_threadsafe(database.submit(keep, "meanwhile"), loop).result()
        return before

    return query


async def test_what_is_followed_is_read_in_one_transaction_and_sees_one_moment(both: Database) -> None:
    assert list(await asyncio.gather(both.follow(meanwhile(both)), both.follow(kept))) == [set(), set()]
    assert await both.follow(kept) == {"meanwhile"}


async def test_queries_that_are_asked_at_once_have_their_own_transactions_and_so_their_own_time(both: Database) -> None:
    assert list(await asyncio.gather(both.read(meanwhile(both)), both.read(kept))) == [set(), {"meanwhile"}]


async def test_what_is_followed_and_fails_fails_alone(both: Database) -> None:
    def fails(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT nonsense FROM nowhere")

    def unlucky(_: Connection) -> None:
        raise UnluckyError

    await both.submit(keep, "one")
    asked = [both.follow(query) for query in (kept, fails, unlucky, kept)]
    found, refused, raised, again = await asyncio.gather(*asked, return_exceptions=True)
    assert found == again == {"one"}
    assert isinstance(refused, GatewayError)
    assert isinstance(raised, UnluckyError)


async def test_a_query_that_nobody_waits_for_any_more_is_not_begun(both: Database) -> None:
    begun, go_on, ran = threading.Event(), threading.Event(), list[str]()

    def slow(_: Connection) -> None:
        begun.set()
        go_on.wait(WATCHDOG)

    first = asyncio.create_task(both.read(slow))
    await asyncio.to_thread(begun.wait, WATCHDOG)
    left = asyncio.create_task(both.read(lambda _: ran.append("left")))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    go_on.set()
    await first
    assert await both.read(kept) == set()
    assert ran == []


async def test_who_does_not_wait_for_an_answer_keeps_it_from_nobody(both: Database) -> None:
    gone = asyncio.create_task(both.follow(kept))
    there = asyncio.create_task(both.follow(kept))
    await asyncio.sleep(0)
    gone.cancel()
    assert await there == set()


async def test_closing_commits_what_is_queued(column: Column) -> None:
    database = Database(column.backend())
    database.start()
    tasks = [asyncio.create_task(database.submit(keep, f"name-{number}")) for number in range(100)]
    await asyncio.sleep(0)  # all of them are queued now
    database.close()
    assert len(await asyncio.gather(*tasks)) == 100
    assert column.sql("SELECT COUNT(*) FROM proofs") == [(100,)]


async def test_a_store_that_was_closed_takes_nothing_more(column: Column) -> None:
    database = Database(column.backend())
    database.start()
    database.close()
    with pytest.raises(StoreAwayError) as caught:
        await database.submit(keep, "late")
    assert not caught.value.uncertain
    assert column.sql("SELECT COUNT(*) FROM proofs") == [(0,)]


async def test_what_is_followed_as_the_store_closes_is_not_waited_for(column: Column) -> None:
    database = Database(column.backend())
    database.start()
    asked = asyncio.create_task(database.follow(kept))
    await asyncio.sleep(0)
    database.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(StoreAwayError):
        await database.read(kept)


async def test_a_store_that_was_let_go_can_be_used_again(column: Column) -> None:
    for name in ("one", "two"):
        database = Database(column.backend())
        database.start()
        await database.submit(keep, name)
        database.close()
    assert column.sql("SELECT COUNT(*) FROM proofs") == [(2,)]


async def test_foreign_keys_are_enforced(both: Database) -> None:
    def orphan(connection: Connection, batch: list[None]) -> list[None]:
        connection.exec_driver_sql("INSERT INTO sessions VALUES ('ses_1', 'per_none', 'device', 1, 1, 'key_1', NULL)")
        return batch

    with pytest.raises(GatewayError):
        await both.submit(orphan, None)


async def test_a_batch_function_that_hides_a_refusal_of_the_database_is_not_believed(both: Database) -> None:
    """Where a refused statement ends the transaction, COMMIT succeeds and undoes everything."""

    def careless(connection: Connection, batch: list[str]) -> list[str]:
        connection.execute(insert(proofs), row("before"))
        with contextlib.suppress(IntegrityError):
            connection.execute(insert(proofs), row("before"))
        return batch

    try:
        await both.submit(careless, "answer")
    except RuntimeError:
        assert await both.read(kept) == set()
    else:
        assert await both.read(kept) == {"before"}


async def test_the_store_s_clock_is_close_to_that_of_its_machine(both: Database) -> None:
    before = time.time()
    assert before - 1 < both.now() < time.time() + 1
    assert both.unready() == ""


async def test_a_replica_whose_writer_has_ended_gets_no_requests(both: Database) -> None:
    assert both.unready() == ""
    both._queue.put([None])  # as `close` ends it
    await asyncio.to_thread(both._writer.join)
    assert both.unready() == "the store's writer has ended"
