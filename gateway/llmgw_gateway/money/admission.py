"""Admission: one batched transaction that locks the counters of all levels, decides, and writes holds and attempts.

The attempt row is the durable mark that something may be dispatched: no upstream byte precedes its commit. Replaying an
admission with the same attempt id changes nothing (I6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert

from llmgw_gateway.money.decide import BudgetRef, Counter, Denial, decide
from llmgw_gateway.store.schema import attempts, counters, holds

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Admission:
    """What is asked of the store before an attempt is dispatched. Times in milliseconds since the epoch."""

    attempt_id: str
    operation_id: str
    person_id: str
    model: str
    target: str
    price_version: str
    hold: int
    ceiling: int
    budgets: tuple[BudgetRef, ...]
    now: int
    lease_until: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """What is left in the tightest budget after this attempt's hold; None without a budget."""

    remaining: int | None


@dataclass(frozen=True, slots=True)
class Renewal:
    """Keep an attempt's hold until `lease_until`, and remember what it has cost so far."""

    attempt_id: str
    observed: int
    lease_until: int


_TAKE = (
    update(counters)
    .where(counters.c.counter_id == bindparam("counter"))
    .values(held=counters.c.held + bindparam("hold"), exposure=counters.c.exposure + bindparam("beyond"))
)
_RENEW = (
    update(attempts)
    .where(attempts.c.attempt_id == bindparam("attempt"), attempts.c.settled.is_(False))
    .values(lease_until=bindparam("until"), observed=bindparam("seen"))
)


def admit(connection: Connection, batch: list[Admission]) -> list[Admitted | Denial]:
    """Decide a batch in order, as if one after another, with a constant number of statements."""
    known = _known(connection, [each.attempt_id for each in batch])
    table = _lock(connection, batch)
    answers: list[Admitted | Denial] = []
    new: list[Admission] = []
    for each in batch:
        levels = [(budget, table[budget.budget, budget.period_key]) for budget in each.budgets]
        if each.attempt_id not in known:
            denial = decide(levels, each.hold, each.ceiling)
            if denial is not None:
                answers.append(denial)
                continue
            for _, counter in levels:
                counter.take(each.hold, each.ceiling)
            new.append(each)
            known.add(each.attempt_id)
        left = [budget.limit - counter.spent - counter.held for budget, counter in levels]
        answers.append(Admitted(min(left) if left else None))
    if new:
        _write(connection, new, table)
    return answers


def renew(connection: Connection, batch: list[Renewal]) -> list[None]:
    """Extend leases; an attempt that was settled meanwhile stays settled."""
    connection.execute(
        _RENEW,
        [{"attempt": each.attempt_id, "until": each.lease_until, "seen": each.observed} for each in batch],
    )
    return [None] * len(batch)


def _known(connection: Connection, ids: list[str]) -> set[str]:
    return set(connection.scalars(select(attempts.c.attempt_id).where(attempts.c.attempt_id.in_(ids))))


def _lock(connection: Connection, batch: list[Admission]) -> dict[tuple[str, str], Counter]:
    """The counters of all levels of the batch, created where missing, locked in id order."""
    keys = sorted({(budget.budget, budget.period_key) for each in batch for budget in each.budgets})
    if not keys:
        return {}
    query = (
        select(counters)
        .where(tuple_(counters.c.budget, counters.c.period_key).in_(keys))
        .order_by(counters.c.counter_id)
        .with_for_update()
    )
    rows = connection.execute(query).all()
    if len(rows) < len(keys):
        fresh = [
            {"budget": budget, "period_key": period, "spent": 0, "held": 0, "exposure": 0} for budget, period in keys
        ]
        connection.execute(insert(counters).on_conflict_do_nothing(), fresh)
        rows = connection.execute(query).all()
    return {(row.budget, row.period_key): Counter(row.counter_id, row.spent, row.held, row.exposure) for row in rows}


def _write(connection: Connection, new: list[Admission], table: dict[tuple[str, str], Counter]) -> None:
    connection.execute(
        insert(attempts),
        [
            {
                "attempt_id": each.attempt_id,
                "operation_id": each.operation_id,
                "person_id": each.person_id,
                "model": each.model,
                "target": each.target,
                "price_version": each.price_version,
                "hold": each.hold,
                "ceiling": each.ceiling,
                "observed": 0,
                "admitted_at": each.now,
                "lease_until": each.lease_until,
                "settled": False,
            }
            for each in new
        ],
    )
    taken = [
        {
            "attempt_id": each.attempt_id,
            "counter_id": table[budget.budget, budget.period_key].counter_id,
            "amount": each.hold,
            "exposure": each.ceiling - each.hold,
        }
        for each in new
        for budget in each.budgets
    ]
    if taken:
        connection.execute(insert(holds), taken)
        connection.execute(
            _TAKE, [{"counter": t["counter_id"], "hold": t["amount"], "beyond": t["exposure"]} for t in taken]
        )
