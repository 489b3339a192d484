"""The invariants of the books (I1, I2), checked on a store as it stands: each fault is a sentence with its place.

Nothing here shares code with what writes the books: every row is read once, in one snapshot, and added up again. A
healthy store, however busy, has no fault at any commit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from llmgw_gateway.store.schema import attempts, counters, ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

ROWS_AT_ONCE = 5_000
KINDS = ("settlement", "correction")
CHARGES = ("cost", "tokens", "weighted_tokens")
HOLDS = ("hold", "hold_tokens", "hold_weighted")
CEILINGS = ("ceiling", "ceiling_tokens", "ceiling_weighted")


@dataclass
class _Sums:
    """What the rows come to, for each counter. Units are told apart when they are compared."""

    spent: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    held: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    exposure: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    kinds: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The entries of each attempt."""


def faults(connection: Connection) -> list[str]:
    """All faults: those of attempts and their entries (I1), then those of the sums (I2)."""
    sums = _Sums()
    for row in _all(connection, select(ledger)):
        sums.kinds[row.attempt_id].append(row.kind)
        _add(sums.spent, row, _amounts(row, CHARGES))
    found = [*_entries(sums.kinds), *_open(connection, sums)]
    for row in connection.execute(select(counters).order_by(counters.c.counter_id)):
        for name in ("spent", "held", "exposure"):
            says, is_so = getattr(row, name), getattr(sums, name)[row.counter_id][row.unit]
            if says != is_so:
                found.append(f"I2: {row.budget} {row.period_key}: {name} is {says}, but its rows sum to {is_so}")
    return found


def _entries(kinds: dict[str, list[str]]) -> Iterator[str]:
    for attempt_id, mine in kinds.items():
        for kind in sorted(set(mine)):
            if kind not in KINDS:
                yield f"I1: attempt {attempt_id} has an entry of the unknown kind {kind!r}"
            elif mine.count(kind) > 1:
                yield f"I1: attempt {attempt_id} has {mine.count(kind)} entries of the kind {kind}"
        if "correction" in mine and "settlement" not in mine:
            yield f"I1: attempt {attempt_id} has a correction, but no settlement"


def _open(connection: Connection, sums: _Sums) -> Iterator[str]:
    """Attempts that are not over hold money; swept ones hold what their truth may still bring."""
    estimate = ledger.alias("estimate")
    query = select(attempts, *(estimate.c[name].label(f"charged_{name}") for name in CHARGES)).outerjoin(
        estimate, (estimate.c.attempt_id == attempts.c.attempt_id) & (estimate.c.kind == "settlement")
    )
    for row in _all(connection, query):
        mine = sums.kinds.get(row.attempt_id, [])
        holds, ceilings = _amounts(row, HOLDS), _amounts(row, CEILINGS)
        if not row.swept:
            if mine:
                yield f"I1: there is a {mine[0]} of attempt {row.attempt_id}, which is still open"
            _add(sums.held, row, holds)
            _add(sums.exposure, row, [ceiling - hold for ceiling, hold in zip(ceilings, holds, strict=True)])
        elif mine != ["settlement"]:
            yield f"I1: attempt {row.attempt_id} was swept, but its entries are {mine or 'none'}"
        else:
            charged = _amounts(row, tuple(f"charged_{name}" for name in CHARGES))
            rest = [max(0, ceiling - amount) for ceiling, amount in zip(ceilings, charged, strict=True)]
            _add(sums.exposure, row, rest)


def _add(sums: defaultdict[int, list[int]], row: Row[Any], amounts: list[int]) -> None:
    for counter_id in json.loads(row.counters):
        mine = sums[counter_id]
        for unit, amount in enumerate(amounts):
            mine[unit] += amount


def _amounts(row: Row[Any], names: tuple[str, ...]) -> list[int]:
    return [int(getattr(row, name)) for name in names]


def _all(connection: Connection, query: Any) -> Iterator[Row[Any]]:  # noqa: ANN401 -- a SELECT
    yield from connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
