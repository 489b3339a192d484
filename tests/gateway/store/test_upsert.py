"""How many rows were new: replay protection rests on this number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_gateway.store.schema import proofs
from llmgw_gateway.store.upsert import insert_if_absent
from tests.gateway.store.keeping import kept, row

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database


def one(connection: Connection, batch: list[str]) -> list[int]:
    return [insert_if_absent(connection, proofs, row(name)) for name in batch]


def many(connection: Connection, batch: list[list[str]]) -> list[int]:
    return [insert_if_absent(connection, proofs, [row(name) for name in names]) for names in batch]


async def test_a_row_is_new_once(both: Database) -> None:
    assert [await both.submit(one, name) for name in ("a", "a", "b", "a")] == [1, 0, 1, 0]
    assert await both.read(kept) == {"a", "b"}


async def test_of_several_rows_those_that_were_new_are_counted(both: Database) -> None:
    assert [await both.submit(many, names) for names in (["a", "b"], ["a", "b", "c"], ["a", "c"])] == [2, 1, 0]
    assert await both.read(kept) == {"a", "b", "c"}
