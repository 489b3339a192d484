"""Admissions as tests ask for them, and the sums of a store computed from its rows, by other means than the store's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmgw_gateway.call import MICRO, Usage
from llmgw_gateway.money import verification
from llmgw_gateway.money.amounts import NOTHING
from llmgw_gateway.money.estimate import Terms
from llmgw_gateway.money.items import Admission, Payer, Paying, Renewal, Settlement
from llmgw_gateway.money.levels import BudgetRef
from llmgw_gateway.money.posting import Books

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from llmgw_gateway.money.amounts import Amounts
    from llmgw_gateway.money.items import Item
    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

LEASE = 30_000


class Desk:
    """Hands items to the books of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._post = Books().post

    async def __call__(self, item: Item) -> Any:
        return await self._database.submit(self._post, item)


def budget(name: str, limit: int, overshoot: int = 0, period_key: str = "2026-11", **more: Any) -> BudgetRef:
    return BudgetRef(name, name, period_key, limit, overshoot, "2026-12-01T00:00:00Z", **more)


def terms(hold: int, ceiling: int | None = None) -> Terms:
    """A hold and a ceiling, however much output is asked for."""
    most = hold if ceiling is None else ceiling
    return Terms(
        max_tokens=1,
        least_tokens=1,
        likely_output=0,
        likely_prompt=every(hold * MICRO),
        likely_rate=NOTHING,
        most_prompt=(most * MICRO, (2 * most - 1) * MICRO, 3 * most * MICRO),
        most_rate=(0, MICRO, 0),
    )


def every(amount: int) -> Amounts:
    """Another multiple in every unit, so that one is never taken for another."""
    return (amount, 2 * amount, 3 * amount)


def admission(
    attempt_id: str, budgets: Iterable[BudgetRef], hold: int, ceiling: int | None = None, now: int = 0
) -> Admission:
    return Admission(
        attempt_id=attempt_id,
        paying=paying(attempt_id, now),
        terms=terms(hold, ceiling),
        budgets=tuple(budgets),
        lease_until=now + LEASE,
    )


def paying(attempt_id: str, now: int = 0) -> Paying:
    return Paying(f"req_of_{attempt_id}", Payer("per_1", "ses_1", "", "", "m", "v.m", "1"), now)


def settlement(
    attempt_id: str,
    cost: int | None,
    *,
    outcome: str = "ok",
    now: int = 1,
    usage: Usage | None = None,
    observed: int = 0,
    swept: bool = False,
) -> Settlement:
    charge = None if cost is None else every(cost)
    return Settlement(attempt_id, outcome, now, charge, usage or Usage(), every(observed), swept)


def renewal(attempt_id: str, observed: int, lease_until: int, hold: int = 0) -> Renewal:
    return Renewal(attempt_id, every(observed), lease_until, every(hold))


def faults(connection: Connection) -> list[str]:
    """Everything that is wrong with the books, by the gateway's own command."""
    return list(verification.faults(connection))


def rows(store: Path | Column, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Read the store with the database's own driver and nothing of ours."""
    if not isinstance(store, Path):
        return store.sql(statement, *values)
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(statement, values).fetchall()


def counters(store: Path | Column) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Spent, held and exposure as the counters say."""
    found = rows(store, "SELECT budget, period_key, spent, held, exposure FROM counters")
    return {(budget, key): (spent, held, exposure) for budget, key, spent, held, exposure in found}


def entries(store: Path | Column) -> dict[tuple[str, str], tuple[int, bool]]:
    """The ledger: what was charged for each attempt and kind, and whether that was an estimate."""
    found = rows(store, "SELECT attempt_id, kind, cost, estimated FROM ledger")
    assert len({(attempt, kind) for attempt, kind, *_ in found}) == len(found)
    return {(attempt, kind): (cost, bool(estimated)) for attempt, kind, cost, estimated in found}
