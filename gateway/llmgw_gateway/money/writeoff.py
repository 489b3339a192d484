"""Allowances in the store, and writing one off whose replica's journal is lost: nobody else can say what it cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select

from llmgw_gateway.money.allowance import PREFIX
from llmgw_gateway.money.items import Settlement
from llmgw_gateway.money.posting import Books
from llmgw_gateway.observe.changes import Author, Change, is_recorded, record
from llmgw_gateway.store.schema import attempts, counters, write_offs

if TYPE_CHECKING:
    from sqlalchemy import Connection

WRITTEN_OFF: Final = "written_off"


@dataclass(frozen=True, slots=True)
class Held:
    """One allowance as the store has it. Micro-USD; milliseconds since the epoch."""

    allowance_id: str
    replica: str
    budget: str
    period_key: str
    amount: int
    taken_at: int


@dataclass(frozen=True, slots=True)
class WriteOff:
    """Charge an allowance to its budget as if all of it had been spent."""

    allowance_id: str
    reason: str
    by: Author
    now: int
    """Milliseconds since the epoch."""


def allowances(connection: Connection) -> list[Held]:
    """All that are held, oldest first."""
    query = select(attempts).where(attempts.c.attempt_id.startswith(PREFIX, autoescape=True))
    rows = connection.execute(query.order_by(attempts.c.admitted_at, attempts.c.attempt_id)).all()
    names = {row.counter_id: row for row in connection.execute(select(counters))}
    found = []
    for row in rows:
        counter = names[json.loads(row.counters)[0]]
        place = (counter.budget, counter.period_key)
        found.append(Held(row.attempt_id, row.operation_id, *place, row.hold, row.admitted_at))
    return found


def write_off(connection: Connection, batch: list[WriteOff]) -> list[int | None]:
    """What each charged, in micro-USD; None for an allowance that is not held. Run again, it answers the same."""
    return [_write_off(connection, each) for each in batch]


def _write_off(connection: Connection, asked: WriteOff) -> int | None:
    done = connection.execute(select(write_offs).where(write_offs.c.allowance_id == asked.allowance_id)).one_or_none()
    if done is not None:
        # The same command again, after an answer that was lost; anybody else comes too late.
        return int(done.amount) if is_recorded(connection, asked.by) else None
    # Locked: what a replica enters meanwhile is taken from the allowance, and is not part of what is written off.
    query = select(attempts.c.hold).where(attempts.c.attempt_id == asked.allowance_id).with_for_update()
    amount = connection.scalar(query) if asked.allowance_id.startswith(PREFIX) else None
    settlement = Settlement(asked.allowance_id, WRITTEN_OFF, asked.now, charge=None)
    if amount is None or not Books().post(connection, [settlement])[0]:
        return None
    connection.execute(
        insert(write_offs).values(
            allowance_id=asked.allowance_id,
            amount=amount,
            reason=asked.reason,
            made_by=asked.by.actor,
            made_at=asked.now,
        )
    )
    record(
        connection,
        Change(asked.by, asked.now, "allowance.write_off", "allowance", asked.allowance_id, {"held": amount}),
    )
    return int(amount)
