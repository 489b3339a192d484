"""The invariants of the books (I1, I2), checked on a store as it stands: each fault is a sentence with its place.

`ledger.verify` compares counters with what they count. Here every row is followed to the rows that it needs, so that a
fault names the attempt. Queries only; a healthy store, however busy, has none of these at any commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from llmgw_gateway.money import ledger as book
from llmgw_gateway.store.schema import attempts, charges, counters, holds, ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection


def faults(connection: Connection) -> list[str]:
    """All faults, those of the sums first."""
    return [*book.verify(connection), *_entries(connection), *_holds(connection), *_charges(connection)]


def _entries(connection: Connection) -> Iterator[str]:
    """I1 from the other side: no entry without an attempt that is closed, no correction of nothing."""
    query = (
        select(ledger.c.attempt_id, ledger.c.kind, attempts.c.settled)
        .outerjoin(attempts, attempts.c.attempt_id == ledger.c.attempt_id)
        .where(attempts.c.settled.is_(None) | attempts.c.settled.is_(False))
    )
    for row in connection.execute(query):
        state = "that was never admitted" if row.settled is None else "that is still open"
        yield f"I1: there is a {row.kind} of attempt {row.attempt_id}, {state}"
    settlement = ledger.alias("settlement")
    orphans = (
        select(ledger.c.attempt_id)
        .outerjoin(
            settlement,
            (settlement.c.attempt_id == ledger.c.attempt_id) & (settlement.c.kind == book.SETTLEMENT),
        )
        .where(ledger.c.kind == book.CORRECTION, settlement.c.attempt_id.is_(None))
    )
    for attempt_id in connection.scalars(orphans):
        yield f"I1: attempt {attempt_id} has a correction, but no settlement"
    strange = select(ledger.c.attempt_id, ledger.c.kind).where(ledger.c.kind.not_in((book.SETTLEMENT, book.CORRECTION)))
    for attempt_id, kind in connection.execute(strange):
        yield f"I1: attempt {attempt_id} has an entry of the unknown kind {kind!r}"


def _holds(connection: Connection) -> Iterator[str]:
    """Money held for a closed attempt would be blocked for ever. What a swept one may still cost is no held money."""
    query = (
        select(holds.c.attempt_id, holds.c.amount, counters.c.budget, counters.c.period_key)
        .join(attempts, attempts.c.attempt_id == holds.c.attempt_id)
        .join(counters, counters.c.counter_id == holds.c.counter_id)
        .where(attempts.c.settled.is_(True), holds.c.amount != 0)
    )
    for row in connection.execute(query):
        yield (
            f"I2: attempt {row.attempt_id} is settled, but still holds {row.amount} in {row.budget} {row.period_key}"
        )


def _charges(connection: Connection) -> Iterator[str]:
    """Every budget is charged what the entry says, for an entry that is there."""
    query = (
        select(charges, counters.c.budget, counters.c.period_key, ledger.c.cost)
        .join(counters, counters.c.counter_id == charges.c.counter_id)
        .outerjoin(ledger, (ledger.c.attempt_id == charges.c.attempt_id) & (ledger.c.kind == charges.c.kind))
        .where(ledger.c.cost.is_(None) | (ledger.c.cost != charges.c.amount))
    )
    for row in connection.execute(query):
        says = "there is no such entry" if row.cost is None else f"its entry says {row.cost}"
        yield (
            f"I2: {row.budget} {row.period_key} was charged {row.amount} for the {row.kind} of attempt "
            f"{row.attempt_id}, but {says}"
        )
