"""The table of administrators' changes: whoever alters, takes away or reorders a row is found."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.observe import change_chain
from llmgw_gateway.observe.chain import key_of
from llmgw_gateway.observe.changes import Author, Change, record
from llmgw_gateway.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from llmgw_gateway.observe.chain import Key
    from tests.gateway.columns import Column

KEY, OTHER = key_of(b"k" * 32), key_of(b"o" * 32)
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
    return await both.read(lambda connection: list(change_chain.faults(connection, heads or {}, [KEY])))


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
    (fault,) = await faults(both, {4: last})
    assert fault.startswith("changes: the table ends at change 3, but the audit trail")
    assert fault.endswith("knows change 4: rows were taken away")
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
    assert await faults(both, heads) == [
        "changes: change 3 (chg_3) is known otherwise to the audit trail or the kept report"
    ]


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
            record(connection, erasure(done, KEY))
        return [done]

    done = await both.submit(erase, item=False)
    assert [place[:2] for place in done] == [[1, "actor"], [1, "after"]]
    assert {fault[:48] for fault in await faults(both)} == {
        "changes: change 1: actor was replaced, and no er",
        "changes: change 1: after was replaced, and no er",
    }
    assert not any("ada@host" in str(row) or "for ada" in str(row) for row in column.sql("SELECT * FROM changes"))
    await both.submit(write, erasure(done, KEY))
    assert await faults(both) == []
    column.sql("UPDATE changes SET actor = 'per_eve' WHERE number = 1")
    assert await faults(both) == ["changes: change 1: actor was replaced, and no erasure says by this"]


def erasure(done: object, key: Key, change_id: str = "chg_9") -> Change:
    """The row that a gateway with this key writes about an erasure."""
    told = change_chain.told(key, change_id, change_chain.REDACTIONS, done)
    return Change(Author("per_root", "admin", change_id), 5_000, "person.erase", "person", "per_x", None, told)


def removal(number: int, last: object, key: Key, change_id: str = "chg_9") -> Change:
    """The row that a gateway with this key writes about what retention has removed."""
    told = change_chain.told(key, change_id, change_chain.REMOVED, {"number": number, "hash": last})
    return Change(Author("retention", "retention", change_id), 5_000, "retention.changes", "changes", "", None, told)


async def test_who_writes_the_database_only_cannot_take_the_beginning_away(column: Column, both: Database) -> None:
    await filled(both)
    ((last,),) = column.sql("SELECT hash FROM changes WHERE number = 2")
    genuine = removal(2, last, KEY)
    unsealed = Change(genuine.by, 5_000, genuine.action, "changes", "", None, {"removed": genuine.after["removed"]})  # type: ignore[index] # it has one
    copied = removal(2, last, OTHER)
    copied.after["seal"][0] = KEY.key_id  # type: ignore[index] # it has one
    column.sql("DELETE FROM changes WHERE number <= 2")
    for forged in (unsealed, copied):
        await both.submit(write, forged)
        assert await faults(both) == [
            "changes: change 5 (chg_9, retention.changes) is not sealed by a gateway: it explains nothing",
            "changes: the first 2 rows are gone, and no retention says so",
        ]
        column.sql("DELETE FROM changes WHERE number = 5")
    await both.submit(write, removal(2, last, OTHER))
    assert "sealed with another key" in (await faults(both))[0]
    column.sql("DELETE FROM changes WHERE number = 5")
    await both.submit(write, genuine)
    assert await faults(both) == []
    column.sql("DELETE FROM changes WHERE number = 3")
    assert await faults(both) != [], "it says how far"


async def test_who_writes_the_database_only_cannot_replace_a_text_as_if_it_were_erased(
    column: Column, both: Database
) -> None:
    await filled(both)

    def replace(connection: Connection, _batch: list[None]) -> list[list[list[object]]]:
        return [change_chain.redact(connection, replacing("per_ada", "per_eve"))]

    done = await both.submit(replace, None)
    await both.submit(write, erasure(done, OTHER))
    assert any("sealed with another key" in fault for fault in await faults(both))
    column.sql("UPDATE changes SET after = ? WHERE number = 5", json.dumps({"redactions": done}))
    assert "altered" in (await faults(both))[0]
    column.sql("DELETE FROM changes WHERE number = 5")
    # A genuine row of another erasure vouches for nothing else.
    await both.submit(write, erasure(done, KEY, "chg_8"))
    ((after,),) = column.sql("SELECT after FROM changes WHERE number = 5")
    column.sql("DELETE FROM changes WHERE number = 5")
    moved = erasure(done, KEY)
    await both.submit(write, Change(moved.by, 5_000, moved.action, "person", "per_x", None, json.loads(after)))
    found = await faults(both)
    assert "is not sealed by a gateway" in found[0]
    assert len(found) == 5
