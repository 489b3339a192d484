"""Rows about what administrators did: with the change or not at all, once, and without a name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe.changes import Author, Change, is_recorded, operator, record
from llmgw_gateway.store.schema import write_offs

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

ADA = Author("per_ada", "admin", "chg_1", "req_1")
GRANT = Change(ADA, 1_000, "budget.grant", "budget", "team/payments//month/usd", None, {"amount": 5})


def write(connection: Connection, batch: list[Change]) -> list[bool]:
    """Answers whether each was there before."""
    answers = []
    for change in batch:
        answers.append(is_recorded(connection, change.by))
        record(connection, change)
    return answers


async def test_a_row_tells_all_of_it_and_is_written_once(column: Column, both: Database) -> None:
    assert await both.submit(write, GRANT) is False
    assert await both.submit(write, GRANT) is True
    ((*row, before, after),) = column.sql(
        "SELECT change_id, at, actor, role, action, object_kind, object_id, outcome, request_id, before, after "
        "FROM changes"
    )
    assert row == [
        "chg_1",
        1_000,
        "per_ada",
        "admin",
        "budget.grant",
        "budget",
        "team/payments//month/usd",
        "allowed",
        "req_1",
    ]
    assert before is None
    assert json.loads(after) == {"amount": 5}


async def test_a_change_that_fails_leaves_no_row(column: Column, both: Database) -> None:
    def spoiled(connection: Connection, batch: list[Change]) -> list[None]:
        for change in batch:
            record(connection, change)
        connection.execute(insert(write_offs).values(allowance_id=None))
        return [None] * len(batch)

    with pytest.raises(GatewayError):
        await both.submit(spoiled, GRANT)
    assert column.sql("SELECT count(*) FROM changes") == [(0,)]


async def test_what_was_denied_is_not_taken_for_done(column: Column, both: Database) -> None:
    denied = Change(ADA, 1_000, "budget.grant", "budget", "b", None, {"amount": 5}, "denied")
    await both.submit(write, denied)
    assert await both.submit(write, denied) is False
    assert column.sql("SELECT outcome FROM changes") == [("denied",)]


def test_each_command_is_a_change_of_its_own() -> None:
    assert operator("ada@host").change_id != operator("ada@host").change_id
