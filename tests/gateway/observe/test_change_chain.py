"""The table of administrators' changes: whoever alters, takes away or reorders a row is found."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.observe import change_chain
from llmgw_gateway.observe.changes import Author, Change, record
from llmgw_gateway.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from tests.gateway.columns import Column

COLUMNS = (
    "change_id", "number", "at", "actor", "role", "action", "object_kind", "object_id", "before", "after", "outcome",
    "request_id", "salts", "hash",
)  # fmt: skip


def change(number: int, *, actor: str = "per_ada", after: Mapping[str, object] | None = None) -> Change:
    author = Author(actor, "admin", f"chg_{number}", f"req_{number}")
    return Change(
        author, 1_000 + number, "budget.grant", "budget", "team/a//month/usd", None, after or {"amount": number}
    )


def write(connection: Connection, batch: list[Change]) -> list[None]:
    for each in batch:
        record(connection, each)
    return [None] * len(batch)


async def faults(both: Database, heads: Mapping[int, str] | None = None) -> list[str]:
    return await both.read(lambda connection: list(change_chain.faults(connection, heads or {})))


async def filled(both: Database) -> None:
    for number in range(1, 5):
        await both.submit(write, change(number))
    assert await faults(both) == []


def altered(name: str) -> str:
    new = f"{name} + 100" if name in {"at", "number"} else "?"
    return f"UPDATE changes SET {name} = {new}"  # noqa: S608 -- a name of ours


@pytest.mark.parametrize("name", COLUMNS)
async def test_a_row_of_which_anything_was_altered_is_named(column: Column, both: Database, name: str) -> None:
    await filled(both)
    values = {"salts": (json.dumps(dict.fromkeys(change_chain.ERASABLE, "0" * 32)),)}
    given = () if name in {"at", "number"} else values.get(name, ("x",))
    column.sql(f"{altered(name)} WHERE number = 3", *given)
    (fault,) = await faults(both)
    assert "change 3" in fault


async def test_rows_that_were_taken_away_are_missed(column: Column, both: Database) -> None:
    await filled(both)
    ((last,),) = column.sql("SELECT hash FROM changes WHERE number = 4")
    column.sql("DELETE FROM changes WHERE number = 4")
    assert await faults(both) == [], "the end of a table says nothing by itself"
    assert await faults(both, {4: last}) == [
        "changes: the table ends at change 3, but the audit trail knows change 4: rows were taken away"
    ]
    column.sql("DELETE FROM changes WHERE number = 2")
    assert await faults(both) == ["changes: change 2 is missing (the next one is 3)"]
    column.sql("DELETE FROM changes WHERE number = 1")
    assert "was altered" in (await faults(both))[0]


async def test_a_chain_that_was_written_anew_is_not_the_one_that_the_audit_trail_knows(
    column: Column, both: Database
) -> None:
    await filled(both)
    heads = {int(row[0]): str(row[1]) for row in column.sql("SELECT number, hash FROM changes")}
    column.sql("DELETE FROM changes WHERE number > 2")
    for number in (3, 4):
        await both.submit(write, change(number, after={"amount": 1_000_000}))
    assert await faults(both) == []
    assert await faults(both, heads) == ["changes: change 3 (chg_3) is not the one that the audit trail knows"]


async def test_a_change_that_is_written_again_is_one_row(column: Column, both: Database) -> None:
    await both.submit(write, change(1))
    await both.submit(write, change(1))
    assert column.sql("SELECT number FROM changes") == [(1,)]


async def test_several_replicas_write_one_chain(column: Column) -> None:
    replicas = [Database(column.backend()) for _ in range(3 if "postgresql" in column.name else 1)]
    for replica in replicas:
        replica.start()
    try:
        await asyncio.gather(*(replicas[number % len(replicas)].submit(write, change(number)) for number in range(60)))
        assert await faults(replicas[0]) == []
    finally:
        for replica in replicas:
            replica.close()
    assert sorted(column.sql("SELECT number FROM changes")) == [(number,) for number in range(1, 61)]


def replacing(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


async def test_a_text_can_be_erased_and_the_chain_holds_when_a_later_row_says_so(
    column: Column, both: Database
) -> None:
    await both.submit(write, change(1, actor="ada@host", after={"reason": "for ada"}))
    await both.submit(write, change(2))

    def erase(connection: Connection, batch: list[bool]) -> list[list[list[object]]]:
        done = change_chain.redact(connection, replacing("ada@host", "erased"))
        done += change_chain.redact(connection, replacing("for ada", "for erased"))
        if batch[0]:
            author = Author("per_root", "admin", "chg_9")
            record(connection, Change(author, 5_000, "person.erase", "person", "per_ada", None, {"redactions": done}))
        return [done]

    done = await both.submit(erase, item=False)
    assert [place[:2] for place in done] == [[1, "actor"], [1, "after"]]
    assert {fault[:48] for fault in await faults(both)} == {
        "changes: change 1: actor was replaced, and no er",
        "changes: change 1: after was replaced, and no er",
    }
    assert not any("ada@host" in str(row) or "for ada" in str(row) for row in column.sql("SELECT * FROM changes"))
    author = Author("per_root", "admin", "chg_9")
    await both.submit(write, Change(author, 5_000, "person.erase", "person", "per_x", None, {"redactions": done}))
    assert await faults(both) == []
    column.sql("UPDATE changes SET actor = 'per_eve' WHERE number = 1")
    assert await faults(both) == ["changes: change 1: actor was replaced, and no erasure says by this"]
