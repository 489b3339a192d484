"""Leases while attempts run: one attempt that cannot be priced, or a store that is away, costs no other its hold."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llmgw_gateway import settings
from llmgw_gateway.call import Account, Call, Grant, Target, Usage
from llmgw_gateway.money import catalogues
from llmgw_gateway.money.holds import LEASE_SECONDS, RENEW_SECONDS, Money
from llmgw_gateway.observe.audit import Audit
from llmgw_gateway.observe.chain import key_of
from llmgw_gateway.pipeline import Pipeline
from tests.gateway import configuration
from tests.gateway.money import accounts

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.store.database import Database

GRANT = Grant(Target("bedrock", "claude-sonnet-4-5", "v.m", "regional"), 1000)
CALL = Call("bedrock", "m", stream=True, max_tokens=1000, size=4000, body=b"", members={})
BAD: Any = Usage(input="many")  # type: ignore[arg-type] # what must never be there


@pytest.fixture
def money(database: Database, tmp_path: Path) -> Money:
    document = configuration.good() | {"budgets": [{"level": "user", "limit_usd": 100}]}
    read = settings.load(configuration.write(configuration.folder(tmp_path), document))
    return Money(database, catalogues.built_in(), read)


def leases(store: Path) -> list[int]:
    return [until for (until,) in accounts.rows(store, "SELECT lease_until FROM attempts ORDER BY attempt_id")]


async def test_an_attempt_that_cannot_be_priced_costs_no_other_its_lease_nor_its_own(money: Money, store: Path) -> None:
    async with AsyncExitStack() as running:
        held = [
            await running.enter_async_context(money.admit(Account(f"per_{n}"), GRANT, CALL, f"req_{n}"))
            for n in range(3)
        ]
        before = leases(store)
        for hold in held:
            hold.outcome.dispatched = True
        held[0].outcome.usage = BAD
        while time.time() * 1000 < max(before) - LEASE_SECONDS * 1000 + 1:
            pass  # leases are counted in milliseconds
        await money._renew(time.monotonic() + RENEW_SECONDS)
        assert all(later > earlier for later, earlier in zip(leases(store), before, strict=True))
    await money.drain()
    assert accounts.rows(store, "SELECT COUNT(*) FROM ledger") == [(3,)]


async def test_a_renewal_that_cannot_be_written_keeps_nobody_else_from_being_renewed_or_swept(
    money: Money, store: Path
) -> None:
    async with AsyncExitStack() as running:
        held = [
            await running.enter_async_context(money.admit(Account(f"per_{n}"), GRANT, CALL, f"req_{n}"))
            for n in range(3)
        ]
        held[0].outcome.dispatched = True
        held[0].outcome.usage = Usage(input=2**80)  # a number that no database takes
        at = time.monotonic() + RENEW_SECONDS
        await money._renew(at)  # and what follows in the same beat: the sweep
        assert [hold.renewed for hold in held] == [at] * 3
    await money.drain()
    assert accounts.rows(store, "SELECT COUNT(*) FROM ledger") == [(3,)]


async def test_an_outcome_that_cannot_be_priced_is_charged_as_unknown(money: Money, store: Path) -> None:
    async with money.admit(Account("per_1"), GRANT, CALL, "req_1") as hold:
        hold.outcome = msgspec.structs.replace(hold.outcome, dispatched=True, usage=BAD, completeness="complete")
        kept = hold.amounts[0]
    await money.drain()
    assert accounts.entries(store) == {(hold.attempt_id, "settlement"): (kept, True)}


async def test_what_a_store_that_is_away_does_not_take_in_time_is_left_and_counted(money: Money, store: Path) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as other:
        async with money.admit(Account("per_1"), GRANT, CALL, "req_1"):
            other.execute("BEGIN EXCLUSIVE")
        assert await money.drain(0.01) == 1
        other.execute("ROLLBACK")
    assert await money.drain() == 0
    assert accounts.rows(store, "SELECT COUNT(*) FROM ledger") == [(1,)]


async def test_a_replica_whose_leases_are_not_renewed_gets_no_requests(money: Money, tmp_path: Path) -> None:
    nothing: Any = None
    audit = Audit(tmp_path / "audit.jsonl", key_of(b"secret"), most_waiting=1)
    audit.start()
    pipeline = Pipeline(audit, nothing, nothing, nothing, nothing, nothing, money, nothing, nothing, nothing)
    await money.start()
    assert pipeline.unready() == ""
    heart = money._heart
    assert heart is not None
    heart.cancel()
    await asyncio.wait({heart})
    assert pipeline.unready() == "leases are not renewed"
    audit.close()
