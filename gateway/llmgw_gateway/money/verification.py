"""The invariants of the books (I1, I2), checked on a store as it stands: each fault is a sentence with its place.

Nothing here shares code with what writes the books: every row is read in one snapshot, in the order of the attempts,
and added up again. What is kept in memory grows with the counters, not with the attempts. A healthy store, however
busy, has no fault at any commit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from llmgw_gateway.store import schema
from llmgw_gateway.store.schema import attempts, ledger, payers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

ROWS_AT_ONCE = 1_000
DAY_MILLISECONDS = 86_400_000
KINDS = ("settlement", "correction")
CHARGES = ("cost", "tokens", "weighted_tokens")
HOLDS = ("hold", "hold_tokens", "hold_weighted")
CEILINGS = ("ceiling", "ceiling_tokens", "ceiling_weighted")
Triple = tuple[int, ...]


@dataclass
class _Counter:
    """What a counter says, and what its rows come to."""

    name: str
    unit: int
    says: dict[str, int]
    sums: dict[str, int] = field(default_factory=lambda: {"spent": 0, "held": 0, "exposure": 0})


def faults(connection: Connection) -> Iterator[str]:
    """All faults: those of attempts and their entries (I1), then those of the sums (I2)."""
    counters = _counters(connection)
    yield from _entries(connection, counters)
    yield from _lost(connection)
    yield from _sums(connection, counters)
    yield from _open(connection, counters)
    for counter in counters.values():
        for name, says in counter.says.items():
            if says != counter.sums[name]:
                yield f"I2: {counter.name}: {name} is {says}, but its rows sum to {counter.sums[name]}"


def _counters(connection: Connection) -> dict[int, _Counter]:
    return {
        row.counter_id: _Counter(
            f"{row.budget} {row.period_key}",
            row.unit,
            {"spent": row.spent, "held": row.held, "exposure": row.exposure},
        )
        for row in _all(connection, select(schema.counters).order_by(schema.counters.c.counter_id))
    }


def _entries(connection: Connection, counters: dict[int, _Counter]) -> Iterator[str]:
    query = select(ledger).order_by(ledger.c.attempt_id, ledger.c.kind)
    for attempt_id, rows in groupby(_all(connection, query), key=lambda row: str(row.attempt_id)):
        kinds = []
        for row in rows:
            kinds.append(row.kind)
            yield from _add(counters, row, f"the {row.kind} of attempt {attempt_id}", spent=_amounts(row, CHARGES))
        for kind in sorted(set(kinds)):
            if kind not in KINDS:
                yield f"I1: attempt {attempt_id} has an entry of the unknown kind {kind!r}"
            elif kinds.count(kind) > 1:
                yield f"I1: attempt {attempt_id} has {kinds.count(kind)} entries of the kind {kind}"
        if "correction" in kinds and "settlement" not in kinds:
            yield f"I1: attempt {attempt_id} has a correction, but no settlement"


def _lost(connection: Connection) -> Iterator[str]:
    """Entries that no report would find: nobody is named who pays, or another day than that of the admission."""
    ids = set(connection.scalars(select(payers.c.payer_id)))
    for table in (ledger, attempts):
        for payer_id in connection.scalars(select(table.c.payer_id).distinct().order_by(table.c.payer_id)):
            if payer_id not in ids:
                yield f"I2: the {table.name} name payer {payer_id}, which is not there"
    wrong = select(ledger.c.attempt_id).where(ledger.c.day != ledger.c.admitted_at // DAY_MILLISECONDS)
    for attempt_id in connection.scalars(wrong.order_by(ledger.c.attempt_id)):
        yield f"I2: an entry of attempt {attempt_id} stands under another day than that of its admission"


def _sums(connection: Connection, counters: dict[int, _Counter]) -> Iterator[str]:
    """What retention has removed from the ledger is still spent."""
    sums = schema.ledger_sums
    for row in _all(connection, select(sums).order_by(sums.c.sum_id)):
        yield from _add(counters, row, f"the sum {row.sum_id[:12]} of {row.day}", spent=_amounts(row, CHARGES))


def _open(connection: Connection, counters: dict[int, _Counter]) -> Iterator[str]:
    """Attempts that are not over hold money; swept ones hold what their truth may still bring."""
    entry = ledger.alias("entry")
    charges = [entry.c[name].label(f"charged_{name}") for name in CHARGES]
    joined = attempts.outerjoin(entry, entry.c.attempt_id == attempts.c.attempt_id)
    query = select(attempts, entry.c.kind, *charges).select_from(joined).order_by(attempts.c.attempt_id, entry.c.kind)
    for attempt_id, rows in groupby(_all(connection, query), key=lambda row: str(row.attempt_id)):
        found = list(rows)
        row, kinds = found[0], [each.kind for each in found if each.kind is not None]
        holds, ceilings = _amounts(row, HOLDS), _amounts(row, CEILINGS)
        if not row.swept:
            if kinds:
                yield f"I1: there is a {kinds[0]} of attempt {attempt_id}, which is still open"
            rest = tuple(ceiling - hold for ceiling, hold in zip(ceilings, holds, strict=True))
            yield from _add(counters, row, f"attempt {attempt_id}", held=holds, exposure=rest)
        elif kinds != ["settlement"]:
            yield f"I1: attempt {attempt_id} was swept, but its entries are {kinds or 'none'}"
        else:
            charged = _amounts(row, tuple(f"charged_{name}" for name in CHARGES))
            rest = tuple(max(0, ceiling - amount) for ceiling, amount in zip(ceilings, charged, strict=True))
            yield from _add(counters, row, f"attempt {attempt_id}", exposure=rest)


def _add(counters: dict[int, _Counter], row: Row[Any], what: str, **sums: Triple) -> Iterator[str]:
    """Add amounts to the counters that a row names; a counter that is not there, or no list of them, is a fault."""
    try:
        ids = json.loads(row.counters)
    except ValueError:
        ids = None
    if not isinstance(ids, list):
        yield f"I2: {what} has no list of counters"
        return
    for counter_id in ids:
        counter = counters.get(counter_id) if isinstance(counter_id, int) else None
        if counter is None:
            yield f"I2: {what} is counted in counter {counter_id}, which is not there"
            continue
        for name, amounts in sums.items():
            counter.sums[name] += amounts[counter.unit]


def _amounts(row: Row[Any], names: tuple[str, ...]) -> Triple:
    return tuple(int(getattr(row, name)) for name in names)


def _all(connection: Connection, query: Any) -> Iterator[Row[Any]]:  # noqa: ANN401 -- a SELECT
    # Only this query: as an option of the connection, it would hold for all that follow.
    yield from connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE})
