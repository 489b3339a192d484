"""Adds up old entries of the ledger and removes them: every sum over ledger and sums together is what it was.

What is left of a day is a row for each person, team, project and model that were charged to the same counters.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import delete, func, select

from llmgw_gateway.money.allowance import PREFIX
from llmgw_gateway.money.usage import DAY_MILLISECONDS, ENTRIES
from llmgw_gateway.store.schema import attempts, ledger, ledger_sums, payers
from llmgw_gateway.store.upsert import add_up

if TYPE_CHECKING:
    from collections import OrderedDict
    from collections.abc import Collection, Iterable
    from zoneinfo import ZoneInfo

    from sqlalchemy import Connection, RowMapping

LOCK: Final = 0x6C6C6D6772
"""The advisory lock of retention, so that one replica at a time works at it: "llmgr" in ASCII."""
MOST_ATTEMPTS: Final = 50
"""Of one transaction, at most."""
AHEAD: Final = 100
"""Entries among which further attempts of the same operations are looked for."""
MOST_REMEMBERED: Final = 10_000
PAYING: Final = ("person_id", "team", "project", "model")
OF: Final = ("day", "calls", "person_id", "team", "project", "model", "counters")
TOKENS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
)
SUMMED: Final = ("operations", "attempts", *TOKENS, "cost", "estimated_cost", "tokens", "weighted_tokens")


@dataclass(frozen=True, slots=True)
class Slice:
    """What is asked of one transaction."""

    before: int
    """Milliseconds since the epoch: attempts that were admitted on an earlier day (UTC)."""
    zone: ZoneInfo
    seen: Collection[str]
    """Operations of earlier slices: a retry is no operation of its own."""
    most: int = MOST_ATTEMPTS
    """Attempts, but for further ones of the same operations."""

    @property
    def day(self) -> int:
        """The first one that stays. Whole days go, because that is how the index has them."""
        return self.before // DAY_MILLISECONDS


class Rolled(NamedTuple):
    """What one transaction has done."""

    attempts: int
    """That were added up and removed; 0: none is left."""
    operations: tuple[str, ...] = ()
    """Those that were not seen before. They count as seen once the transaction is committed."""
    seconds: float = 0.0
    """How long whatever else wanted the store's writer had to wait."""


def roll_up(connection: Connection, batch: list[Slice]) -> list[Rolled | None]:
    """Add up and remove the oldest attempts; None when another replica is at it."""
    return [_roll_up(connection, each) for each in batch]


def waiting(connection: Connection, before: int) -> int:
    """How many entries of the ledger are that old."""
    query = select(func.count()).select_from(ledger).where(ledger.c.day < before // DAY_MILLISECONDS)
    return connection.scalar(query) or 0


def ours(connection: Connection) -> bool:
    """Whether this replica may work at retention, until its transaction ends."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(LOCK))))


def _roll_up(connection: Connection, asked: Slice) -> Rolled | None:
    began = time.perf_counter()
    if not ours(connection):
        return None
    found = _oldest(connection, asked)
    if not found:
        return Rolled(0)
    # What is left of an operation in the ledger would count as one of its own: its attempts go together.
    operations = {operation for _, operation in found[: asked.most]}
    ids = sorted({name for name, operation in found if operation in operations})
    query = select(ledger, *(payers.c[name] for name in PAYING)).select_from(ENTRIES)
    query = query.where(ledger.c.attempt_id.in_(ids)).order_by(ledger.c.admitted_at, ledger.c.entry_id)
    rows = connection.execute(query).mappings().all()
    new: dict[str, None] = {}
    add_up(connection, ledger_sums, _sums(rows, asked, new), SUMMED)
    connection.execute(delete(ledger).where(ledger.c.attempt_id.in_(ids)))
    return Rolled(len(ids), tuple(new), time.perf_counter() - began)


def remember(seen: OrderedDict[str, None], operations: Iterable[str]) -> None:
    """Keep the last operations in mind: attempts of one are minutes apart."""
    seen.update(dict.fromkeys(operations))
    while len(seen) > MOST_REMEMBERED:
        seen.popitem(last=False)


def _oldest(connection: Connection, asked: Slice) -> list[tuple[str, str]]:
    """Some attempts of the days that go which are over, each with its operation; none when none is left.

    The ledger begins with what was settled first, which is what was admitted first; what was settled late is found by
    its day once nothing else is left.
    """
    day, most = asked.day, asked.most + AHEAD
    oldest = connection.scalar(select(func.min(ledger.c.day)))
    if oldest is None or oldest >= day:
        return []
    first = select(ledger).order_by(ledger.c.entry_id).limit(most).subquery()
    open_ = select(attempts.c.attempt_id)
    for entries, order in ((first, first.c.entry_id), (ledger, ledger.c.day)):
        over = ~open_.where(attempts.c.attempt_id == entries.c.attempt_id).exists()
        query = select(entries.c.attempt_id, entries.c.operation_id).where(entries.c.day < day, over)
        if found := [(name, operation) for name, operation in connection.execute(query.order_by(order).limit(most))]:
            return found
    return []


def _sums(rows: Iterable[RowMapping], asked: Slice, new: dict[str, None]) -> list[dict[str, Any]]:
    """A settlement and its correction are one attempt; what it cost is known when either is exact."""
    whole: dict[str, list[RowMapping]] = {}
    for row in rows:
        whole.setdefault(row["attempt_id"], []).append(row)
    sums: dict[str, dict[str, Any]] = {}
    for attempt_id, entries in whole.items():
        first = entries[0]
        calls = not attempt_id.startswith(PREFIX)
        day = datetime.fromtimestamp(first["admitted_at"] / 1000, asked.zone).date().isoformat()
        of = {"day": day, "calls": calls} | {name: first[name] for name in OF[2:]}
        sum_id = sha256(json.dumps(list(of.values())).encode()).hexdigest()
        sums.setdefault(sum_id, {"sum_id": sum_id} | of | dict.fromkeys(SUMMED, 0))
        cost = sum(each["cost"] for each in entries)
        operation = first["operation_id"]
        sums[sum_id]["operations"] += operation not in asked.seen and operation not in new
        new.setdefault(operation)
        sums[sum_id]["attempts"] += 1
        sums[sum_id]["cost"] += cost
        sums[sum_id]["estimated_cost"] += cost if all(each["estimated"] for each in entries) else 0
        for name in (*TOKENS, "tokens", "weighted_tokens"):
            sums[sum_id][name] += sum(each[name] for each in entries)
    return [sums[key] for key in sorted(sums)]
