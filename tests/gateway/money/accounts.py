"""Admissions as tests ask for them, and the sums of a store computed from its rows, by other means than the store's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from llmgw_gateway.money.admission import Admission
from llmgw_gateway.money.decide import BudgetRef

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LEASE = 30_000


def budget(name: str, limit: int, overshoot: int = 0, period_key: str = "2026-11") -> BudgetRef:
    return BudgetRef(name, name, period_key, limit, overshoot, "2026-12-01T00:00:00Z")


def admission(
    attempt_id: str, budgets: Iterable[BudgetRef], hold: int, ceiling: int | None = None, now: int = 0
) -> Admission:
    return Admission(
        attempt_id=attempt_id,
        operation_id=f"req_of_{attempt_id}",
        person_id="per_1",
        model="m",
        target="v.m",
        price_version="1",
        hold=hold,
        ceiling=hold if ceiling is None else ceiling,
        budgets=tuple(budgets),
        now=now,
        lease_until=now + LEASE,
    )


def rows(store: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Read the file with the database's own driver and nothing of ours."""
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(statement, values).fetchall()


def counters(store: Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Spent, held and exposure as the counters say."""
    found = rows(store, "SELECT budget, period_key, spent, held, exposure FROM counters")
    return {(budget, key): (spent, held, exposure) for budget, key, spent, held, exposure in found}


def entries(store: Path) -> dict[tuple[str, str], tuple[int, bool]]:
    """The ledger: what was charged for each attempt and kind, and whether that was an estimate."""
    found = rows(store, "SELECT attempt_id, kind, cost, estimated FROM ledger")
    assert len({(attempt, kind) for attempt, kind, *_ in found}) == len(found)
    return {(attempt, kind): (cost, bool(estimated)) for attempt, kind, cost, estimated in found}
