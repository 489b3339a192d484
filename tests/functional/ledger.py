"""Looks into a gateway's store from outside, as an auditor would: read-only, while the gateway runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import NullPool, create_engine, select

from llmgw_gateway.store.schema import attempts, ledger, payers
from tests.gateway.money.accounts import faults
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Row

DEADLINE_SECONDS = 15
Result = TypeVar("Result")


def read(db: Path, query: Callable[[Connection], Result]) -> Result:
    engine = create_engine(f"sqlite:///{db}", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = 1")
        return query(connection)


def rows(db: Path) -> list[Row[Any]]:
    """Every ledger entry and who pays for it, oldest first."""
    query = select(ledger, payers).join(payers, ledger.c.payer_id == payers.c.payer_id).order_by(ledger.c.entry_id)
    return read(db, lambda connection: list(connection.execute(query)))


def settled(db: Path, count: int, *, seconds: float = DEADLINE_SECONDS) -> list[Row[Any]]:
    """The entries, as soon as there are `count` and no attempt is open: settlement is off the response path."""
    deadline = time.monotonic() + seconds
    while True:
        found = rows(db)
        open_attempts = read(db, lambda c: c.scalars(select(attempts.c.attempt_id).where(~attempts.c.swept)).all())
        if len(found) >= count and not open_attempts:
            break
        assert time.monotonic() < deadline, f"{len(found)} of {count} entries, open: {open_attempts}"
        time.sleep(0.02)
    assert len(found) == count
    assert read(db, faults) == []
    return found


def at_rest(db: Path, *, seconds: float = DEADLINE_SECONDS) -> int:
    """How many entries there are once no attempt is open."""
    deadline = time.monotonic() + seconds
    while read(db, lambda c: c.scalars(select(attempts.c.attempt_id).where(~attempts.c.swept)).all()):
        assert time.monotonic() < deadline, "an attempt stays open"
        time.sleep(0.02)
    return len(rows(db))


def usage_of(row: Row[Any]) -> Usage:
    """The token classes of an entry."""
    return Usage(
        input=row.input_tokens,
        output=row.output_tokens,
        cache_read=row.cache_read_tokens,
        cache_write_5m=row.cache_write_5m_tokens,
        cache_write_1h=row.cache_write_1h_tokens,
    )
