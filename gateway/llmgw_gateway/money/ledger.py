"""The ledger: append-only. Whatever crashes, an attempt ends as one settlement and at most one correction (I1).

Settling moves a hold into `spent` in the same transaction that writes the entry, so that at every commit
`spent = SUM(charges)` and `held = SUM(open holds)` for each counter (I2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from llmgw_gateway.call import Usage
from llmgw_gateway.store.schema import attempts, charges, counters, holds, ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, Row

SETTLEMENT = "settlement"
CORRECTION = "correction"
LEASE_EXPIRED = "lease_expired"
"""The outcome of a swept attempt: whoever sent it may still be alive and bring the truth."""
TRUTH_MILLISECONDS = 2 * 3600 * 1000
"""How long the truth about a swept attempt may take: longer than any answer. Until then its worst case counts."""
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an attempt cost in the end. `cost` None: unknown, charged at the larger of hold and what was observed."""

    attempt_id: str
    outcome: str
    now: int
    cost: int | None
    usage: Usage = field(default_factory=Usage)
    observed: int = 0


_MOVE = (
    update(counters)
    .where(counters.c.counter_id == bindparam("counter"))
    .values(
        spent=counters.c.spent + bindparam("cost"),
        held=counters.c.held - bindparam("hold"),
        exposure=counters.c.exposure - bindparam("beyond"),
    )
)
_CLOSE = update(attempts).where(attempts.c.attempt_id == bindparam("attempt")).values(settled=True)


def settle(connection: Connection, batch: list[Settlement]) -> list[bool]:
    """Settle a batch. True: a settlement or correction was written; False: it had been, nothing changed (I6)."""
    rows = _attempts(connection, {each.attempt_id for each in batch})
    fresh: dict[str, Settlement] = {}
    winners: set[int] = set()
    for number, each in enumerate(batch):
        row = rows.get(each.attempt_id)
        if row is not None and not row.settled and each.attempt_id not in fresh:
            fresh[each.attempt_id] = each
            winners.add(number)
    if fresh:
        _write(connection, rows, fresh)
    # What is left of the batch comes after: a truth that was committed together with its estimate still corrects it.
    answers: list[bool] = []
    for number, each in enumerate(batch):
        row = rows.get(each.attempt_id)
        answers.append(number in winners or (row is not None and _correct(connection, row, each)))
    return answers


def sweep(connection: Connection, batch: list[int]) -> list[int]:
    """Settle every attempt whose lease ended before the given time: its outcome is unknown, so it is never refunded."""
    now = max(batch)
    lost = connection.scalars(
        select(attempts.c.attempt_id).where(attempts.c.settled.is_(False), attempts.c.lease_until < now)
    ).all()
    if lost:
        settle(connection, [Settlement(each, outcome=LEASE_EXPIRED, now=now, cost=None) for each in lost])
    _forget(connection, now)
    return [len(lost)] * len(batch)


def verify(connection: Connection) -> list[str]:
    """Check I1 and I2 on the store as it stands; each fault is a sentence. An empty list is a healthy ledger."""
    spent = (
        select(charges.c.counter_id, func.sum(charges.c.amount).label("sum")).group_by(charges.c.counter_id).subquery()
    )
    held = select(holds.c.counter_id, func.sum(holds.c.amount).label("sum")).group_by(holds.c.counter_id).subquery()
    query = (
        select(
            counters,
            func.coalesce(spent.c.sum, 0).label("charged"),
            func.coalesce(held.c.sum, 0).label("holding"),
        )
        .outerjoin(spent, spent.c.counter_id == counters.c.counter_id)
        .outerjoin(held, held.c.counter_id == counters.c.counter_id)
    )
    faults = []
    for row in connection.execute(query):
        if row.spent != row.charged:
            faults.append(f"I2: {row.budget} {row.period_key}: spent {row.spent}, but its charges sum to {row.charged}")
        if row.held != row.holding:
            faults.append(
                f"I2: {row.budget} {row.period_key}: held {row.held}, but its open holds sum to {row.holding}"
            )
    unsettled = (
        select(attempts.c.attempt_id)
        .outerjoin(ledger, (ledger.c.attempt_id == attempts.c.attempt_id) & (ledger.c.kind == SETTLEMENT))
        .where(attempts.c.settled.is_(True), ledger.c.attempt_id.is_(None))
    )
    faults += [f"I1: attempt {each} is settled, but has no entry" for each in connection.scalars(unsettled)]
    return faults


def _attempts(connection: Connection, ids: Iterable[str]) -> dict[str, Row[Any]]:
    rows = connection.execute(select(attempts).where(attempts.c.attempt_id.in_(list(ids))))
    return {row.attempt_id: row for row in rows}


def _write(connection: Connection, rows: dict[str, Row[Any]], fresh: dict[str, Settlement]) -> None:
    costs = {each.attempt_id: _cost(rows[each.attempt_id], each) for each in fresh.values()}
    connection.execute(
        insert(ledger),
        [_entry(rows[each.attempt_id], each, costs[each.attempt_id], SETTLEMENT) for each in fresh.values()],
    )
    taken = connection.execute(select(holds).where(holds.c.attempt_id.in_(list(fresh)))).all()
    if taken:
        connection.execute(insert(charges), [_charge(row, costs[row.attempt_id]) for row in taken])
        kept = [_remainder(row, costs[row.attempt_id], fresh[row.attempt_id]) for row in taken]
        connection.execute(
            _MOVE, [_move(row, costs[row.attempt_id], rest) for row, rest in zip(taken, kept, strict=True)]
        )
        connection.execute(delete(holds).where(holds.c.attempt_id.in_(list(fresh))))
        if rests := [rest for rest in kept if rest["exposure"]]:
            connection.execute(insert(holds), rests)
    connection.execute(_CLOSE, [{"attempt": attempt_id} for attempt_id in fresh])


def _charge(row: Row[Any], cost: int) -> dict[str, Any]:
    return {"attempt_id": row.attempt_id, "kind": SETTLEMENT, "counter_id": row.counter_id, "amount": cost}


def _move(row: Row[Any], cost: int, rest: dict[str, Any]) -> dict[str, Any]:
    return {"counter": row.counter_id, "cost": cost, "hold": row.amount, "beyond": row.exposure - rest["exposure"]}


def _remainder(row: Row[Any], cost: int, settlement: Settlement) -> dict[str, Any]:
    """What a swept attempt may still cost beyond its estimate: without it a late truth could pass the bound (I5)."""
    ceiling = row.amount + row.exposure
    exposure = max(0, ceiling - cost) if settlement.outcome == LEASE_EXPIRED else 0
    return {"attempt_id": row.attempt_id, "counter_id": row.counter_id, "amount": 0, "exposure": exposure}


def _release(connection: Connection, taken: Sequence[Row[Any]]) -> None:
    """Stop counting what is left of these holds."""
    if taken:
        rows = [{"counter": row.counter_id, "cost": 0, "hold": row.amount, "beyond": row.exposure} for row in taken]
        connection.execute(_MOVE, rows)
        connection.execute(delete(holds).where(holds.c.attempt_id.in_({row.attempt_id for row in taken})))


def _forget(connection: Connection, now: int) -> None:
    """The truth about attempts swept long ago will not come any more: their worst case is no longer counted."""
    query = (
        select(holds)
        .join(attempts, attempts.c.attempt_id == holds.c.attempt_id)
        .where(attempts.c.settled.is_(True), attempts.c.admitted_at < now - TRUTH_MILLISECONDS)
    )
    _release(connection, connection.execute(query).all())


def _correct(connection: Connection, row: Row[Any], exact: Settlement) -> bool:
    """A swept attempt whose truth arrived late gets one correction; anything else is a replay."""
    if exact.cost is None:
        return False
    entries = connection.execute(select(ledger).where(ledger.c.attempt_id == row.attempt_id)).all()
    if len(entries) != 1 or entries[0].outcome != LEASE_EXPIRED:
        return False
    difference = exact.cost - entries[0].cost
    entry = _entry(row, exact, difference, CORRECTION)
    # Tokens are corrected like money, by the difference: a sum over the ledger is right for both.
    connection.execute(insert(ledger), entry | {name: entry[name] - getattr(entries[0], name) for name in TOKENS})
    _release(connection, connection.execute(select(holds).where(holds.c.attempt_id == row.attempt_id)).all())
    charged = connection.scalars(select(charges.c.counter_id).where(charges.c.attempt_id == row.attempt_id)).all()
    for counter_id in charged:
        connection.execute(
            insert(charges),
            {
                "attempt_id": row.attempt_id,
                "kind": CORRECTION,
                "counter_id": counter_id,
                "amount": difference,
            },
        )
        connection.execute(_MOVE, {"counter": counter_id, "cost": difference, "hold": 0, "beyond": 0})
    return True


def _cost(row: Row[Any], settlement: Settlement) -> int:
    if settlement.cost is not None:
        return settlement.cost
    return int(max(row.hold, row.observed, settlement.observed))


def _entry(row: Row[Any], settlement: Settlement, cost: int, kind: str) -> dict[str, Any]:
    return {
        "attempt_id": row.attempt_id,
        "kind": kind,
        "operation_id": row.operation_id,
        "person_id": row.person_id,
        "model": row.model,
        "target": row.target,
        "input_tokens": settlement.usage.input,
        "output_tokens": settlement.usage.output,
        "cache_read_tokens": settlement.usage.cache_read,
        "cache_write_5m_tokens": settlement.usage.cache_write_5m,
        "cache_write_1h_tokens": settlement.usage.cache_write_1h,
        "cost": cost,
        "price_version": row.price_version,
        "estimated": settlement.cost is None,
        "outcome": settlement.outcome,
        "settled_at": settlement.now,
    }
