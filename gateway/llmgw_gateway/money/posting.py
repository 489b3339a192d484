"""One transaction of the books: lock what the items concern, let `book.py` apply them, write what changed.

Everything that is locked is locked here and in one order in every transaction of every replica (missing counters,
missing payers, attempts by id, counters by id), so that two of them never wait for each other in a circle. The attempt
row is the durable mark that something may be dispatched: no upstream byte precedes its commit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import astuple
from sqlalchemy import select

from llmgw_gateway.call import Usage
from llmgw_gateway.money.amounts import NOTHING, UNITS
from llmgw_gateway.money.book import Book
from llmgw_gateway.money.items import (
    SETTLEMENT,
    Admission,
    Answer,
    Attempt,
    Entry,
    Estimate,
    Item,
    Payer,
    Replay,
    Sweep,
    Undo,
)
from llmgw_gateway.money.levels import Counter
from llmgw_gateway.store.bulk import (
    POSTGRESQL,
    DeleteRows,
    InsertRows,
    SelectRows,
    SelectTogether,
    UpdateRows,
    WriteTogether,
)
from llmgw_gateway.store.schema import attempts, counters, events, ledger, payers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from llmgw_gateway.money.amounts import Unit

    Place = tuple[str, str]
    Found = tuple[dict[str, Attempt], dict[str, Estimate], dict[int, Counter]]

MOST_SWEPT: Final = 500
"""Attempts settled by one sweep: one transaction must not hold all counters for long."""
MOST_PLACES: Final = 50_000
MOST_PAYERS: Final = 50_000
DAY: Final = 86_400_000
"""Milliseconds."""
PAYING: Final = ("operation_id", "payer_id", "admitted_at")
PAYER: Final = Payer.__struct_fields__
USAGE: Final = tuple(f"{name}_tokens" for name in Usage.__annotations__)

_find_counters: Final = SelectRows(counters.c.budget, counters.c.budget, counters.c.period_key, counters.c.counter_id)
_make_counters: Final = InsertRows(
    counters, "budget", "period_key", "unit", "spent", "held", "exposure",
    "limit_amount", "thresholds", "crossed", "paced_at", ignore=True,
)  # fmt: skip
_lock_counters: Final = SelectRows(
    counters.c.counter_id, counters.c.counter_id, counters.c.unit, counters.c.spent, counters.c.held,
    counters.c.exposure, counters.c.limit_amount, counters.c.thresholds, counters.c.crossed, counters.c.paced_at,
    lock=True,
)  # fmt: skip
_write_counters: Final = UpdateRows(
    counters, "counter_id", "spent", "held", "exposure", "limit_amount", "thresholds", "crossed", "paced_at"
)
_find_payers: Final = SelectRows(payers.c.person_id, payers.c.payer_id, *(payers.c[name] for name in PAYER))
_make_payers: Final = InsertRows(payers, *PAYER, ignore=True)
_lock_attempts: Final = SelectRows(
    attempts.c.attempt_id, attempts.c.attempt_id, *(attempts.c[name] for name in PAYING), attempts.c.counters,
    attempts.c.hold, attempts.c.hold_tokens, attempts.c.hold_weighted,
    attempts.c.ceiling, attempts.c.ceiling_tokens, attempts.c.ceiling_weighted,
    attempts.c.observed, attempts.c.observed_tokens, attempts.c.observed_weighted,
    attempts.c.lease_until, attempts.c.swept, lock=True,
)  # fmt: skip
ATTEMPT: Final = (
    "attempt_id", *PAYING, "counters", "hold", "hold_tokens", "hold_weighted",
    "ceiling", "ceiling_tokens", "ceiling_weighted", "lease_until",
)  # fmt: skip
"""Of a new one: nothing was observed of it yet."""
_add_attempts: Final = InsertRows(attempts, *ATTEMPT)
_take_places: Final = InsertRows(attempts, *ATTEMPT, ignore=True)
_write_attempts: Final = UpdateRows(
    attempts, "attempt_id", "hold", "hold_tokens", "hold_weighted", "ceiling", "ceiling_tokens", "ceiling_weighted",
    "observed", "observed_tokens", "observed_weighted", "lease_until", "swept",
)  # fmt: skip
_close_attempts: Final = DeleteRows(attempts.c.attempt_id)
ENTRY: Final = (
    "attempt_id", "kind", *PAYING, "counters", "day", *USAGE,
    "cost", "tokens", "weighted_tokens", "estimated", "outcome", "settled_at",
)  # fmt: skip
_settled: Final = SelectRows(
    ledger.c.attempt_id, ledger.c.attempt_id, ledger.c.kind, ledger.c.cost, ledger.c.tokens, ledger.c.weighted_tokens,
    *(ledger.c[name] for name in USAGE),
)  # fmt: skip
_look_up: Final = SelectTogether(_lock_attempts, _settled, _lock_counters)
_lock_up: Final = SelectTogether(_settled, _lock_counters)
_add_entries: Final = InsertRows(ledger, *ENTRY)
# A row is in place of another before it is in a place of its own: SQLite reuses the pages, and writes fewer.
_write_all: Final = WriteTogether(_add_entries, _close_attempts, _add_attempts, _write_attempts, _write_counters)
_add_events: Final = InsertRows(
    events, "kind", "budget", "period_key", "percent", "limit_amount", "spent", "created_at", ignore=True
)
_name_counters: Final = SelectRows(
    counters.c.counter_id, counters.c.counter_id, counters.c.budget, counters.c.period_key
)


class Books:
    """The books of one store. `post` is the batch function of everything that moves money."""

    def __init__(self) -> None:
        self._places: dict[Place, int] = {}
        """Which counter stands for a budget and period. Rows of counters are never deleted or renumbered."""
        self._payers: dict[Payer, int] = {}
        """Their ids. These rows, too, are never deleted or renumbered."""

    def post(self, connection: Connection, items: list[Item]) -> list[Answer]:
        """Apply items in order, in the connection's transaction."""
        asked, undone, concerned = _sorted_out(connection, items)
        places, ids = self._find(connection, asked)
        named = self._find_payers(connection, [*asked, *undone.values()])
        if undone:
            missing = undone.keys() - _entries(_settled(connection, undone)).keys()
            _take_places(connection, [_attempt_row(_empty(undone[name], named)) for name in sorted(missing)])
        look = _lock if connection.dialect.name == POSTGRESQL else _look
        locked, written, found = look(connection, concerned, {item.attempt_id for item in asked} | undone.keys(), ids)
        # What was settled before needs no place any more: it cannot be admitted again.
        over = {name for name in undone.keys() & written.keys() if name in locked and not locked[name].swept}
        for name in over:
            del locked[name]
        if len(found) < len(ids):
            self._places.clear()
            raise LookupError("counters have gone: the store was exchanged for another while the gateway runs")
        book = Book(
            counters=found,
            attempts=locked,
            finished=written.keys() - locked.keys(),
            estimates={name: entry for name, entry in written.items() if name in locked},
            places=places,
            payers=named,
            closed=over,
        )
        answers = [book.apply(item) for item in items]
        _write(connection, book)
        return answers

    def _find(self, connection: Connection, asked: list[Admission | Replay]) -> tuple[dict[Place, int], set[int]]:
        """The counters of all budgets that are asked, created where missing: by budget and period, and their ids."""
        if len(self._places) > MOST_PLACES:
            self._places.clear()  # of past periods, mostly
        # Calls of one person come with the same tuple of budgets: it is looked at once.
        distinct = {id(each.budgets if isinstance(each, Admission) else each): each for each in asked}
        wanted = {place: unit for each in distinct.values() for place, unit in _units(each)}
        places = self._places
        if missing := wanted.keys() - places.keys():
            # Only what was there before this transaction is remembered: it may still be rolled back.
            places.update(_present(connection, missing))
            if missing := wanted.keys() - places.keys():
                made = [(*key, UNITS.index(wanted[key]), 0, 0, 0, 0, "[]", 0, 0) for key in sorted(missing)]
                _make_counters(connection, made)
                places = places | _present(connection, missing)
        return places, {places[key] for key in wanted}

    def _find_payers(self, connection: Connection, asked: list[Admission | Replay | Undo]) -> dict[Payer, int]:
        """The payers of all that are asked, created where missing, with their ids."""
        if len(self._payers) > MOST_PAYERS:
            self._payers.clear()
        given = [each.draw.paying.payer if isinstance(each, Replay) else each.paying.payer for each in asked]
        # Calls of one person come with the same payer: it is hashed once.
        wanted = set({id(each): each for each in given}.values())
        named = self._payers
        if missing := wanted - named.keys():
            # As for counters: what this transaction makes may be rolled back.
            named.update(_named(connection, missing))
            if missing := wanted - named.keys():
                _make_payers(connection, sorted(map(astuple, missing)))
                named = named | _named(connection, missing)
        return named


def _named(connection: Connection, wanted: set[Payer]) -> dict[Payer, int]:
    found = (
        (Payer(*row), payer_id) for payer_id, *row in _find_payers(connection, {each.person_id for each in wanted})
    )
    return {payer: payer_id for payer, payer_id in found if payer in wanted}


def _units(item: Admission | Replay) -> Iterator[tuple[Place, Unit]]:
    """The budgets and periods that an item is counted in, and what each counts. Allowances are of money only."""
    if isinstance(item, Replay):
        return ((place, "usd") for place in item.draw.places)
    return (((budget.budget, budget.period_key), budget.unit) for budget in item.budgets)


def _present(connection: Connection, keys: Iterable[Place]) -> dict[Place, int]:
    wanted = set(keys)
    found = _find_counters(connection, sorted({budget for budget, _ in wanted}))
    return {(budget, period): counter_id for budget, period, counter_id in found if (budget, period) in wanted}


def _lock(connection: Connection, concerned: set[str], named: set[str], ids: set[int]) -> Found:
    """Attempts, what of them and of those `named` was settled, and the counters of all: `ids` grow by the attempts'.

    Attempts are locked before counters, and both in the order of their ids.
    """
    locked = _attempts(_lock_attempts(connection, sorted(concerned)) if concerned else ())
    for attempt in locked.values():
        ids.update(attempt.counters)
    # A settled attempt is no longer among the attempts: its ledger entry says so. Swept ones are in both.
    unknown = (named - locked.keys()) | _swept(locked)
    if not unknown or not ids:
        written = _settled(connection, unknown) if unknown else ()
        return locked, _entries(written), _counters(_lock_counters(connection, sorted(ids)) if ids else ())
    entry_rows, counter_rows = _lock_up(connection, unknown, sorted(ids))
    return locked, _entries(entry_rows), _counters(counter_rows)


def _look(connection: Connection, concerned: set[str], named: set[str], ids: set[int]) -> Found:
    """The same on SQLite, where the whole file is locked: nearly always one statement."""
    attempt_rows, settled_rows, counter_rows = _look_up(connection, concerned, named, ids)
    locked, written, found = _attempts(attempt_rows), _entries(settled_rows), _counters(counter_rows)
    for attempt in locked.values():
        ids.update(attempt.counters)
    if swept := _swept(locked) - named:
        written.update(_entries(_settled(connection, swept)))
    if more := ids - found.keys():
        found.update(_counters(_lock_counters(connection, more)))
    return locked, written, found


def _attempts(rows: Iterable[tuple[Any, ...]]) -> dict[str, Attempt]:
    return {row[0]: _attempt(row) for row in rows}


def _swept(locked: dict[str, Attempt]) -> set[str]:
    return {attempt.attempt_id for attempt in locked.values() if attempt.swept}


def _counters(rows: Iterable[tuple[Any, ...]]) -> dict[int, Counter]:
    return {
        counter_id: Counter(counter_id, unit, spent, held, exposure, limit, _numbers(thresholds), crossed, paced_at)
        for counter_id, unit, spent, held, exposure, limit, thresholds, crossed, paced_at in rows
    }


def _sorted_out(
    connection: Connection, items: Sequence[Item]
) -> tuple[list[Admission | Replay], dict[str, Undo], set[str]]:
    """What names its counters by budget and period; what is taken back; and the attempts that all items concern."""
    asked: list[Admission | Replay] = []
    undone: dict[str, Undo] = {}
    concerned: set[str] = set()
    for item in items:
        if isinstance(item, Sweep):
            concerned.update(_expired(connection, item.now))
        elif isinstance(item, Replay):
            asked.append(item)
            concerned.update(item.draw.allowances)
        else:
            concerned.add(item.attempt_id)
            if isinstance(item, Admission):
                asked.append(item)
            elif isinstance(item, Undo):
                undone[item.attempt_id] = item
    return asked, undone, concerned


def _expired(connection: Connection, now: int) -> Sequence[str]:
    """Attempts whose lease has ended. Not locked yet: all attempts are locked together, in one order."""
    query = select(attempts.c.attempt_id).where(attempts.c.lease_until < now)
    return connection.scalars(query.order_by(attempts.c.attempt_id).limit(MOST_SWEPT)).all()


def _entries(rows: Iterable[tuple[Any, ...]]) -> dict[str, Estimate]:
    """What attempts were settled at, by rows of `_settled`."""
    return {
        attempt_id: Estimate((cost, tokens, weighted), Usage(*usage))
        for attempt_id, kind, cost, tokens, weighted, *usage in rows
        if kind == SETTLEMENT
    }


def _write(connection: Connection, book: Book) -> None:
    _write_all(
        connection,
        [_entry_row(entry) for entry in book.entries],
        book.closed,
        [_attempt_row(attempt) for attempt in book.added.values()],
        [_changed_row(attempt) for attempt in book.changed.values() if attempt.attempt_id not in book.added],
        [_counter_row(book.counters[each]) for each in sorted(book.dirty)],
    )
    if both := book.changed.keys() & book.added.keys():  # seldom: it has to be there before it can be changed
        _write_attempts(connection, [_changed_row(book.changed[each]) for each in sorted(both)])
    if book.crossings:
        found = _name_counters(connection, {crossing.counter_id for crossing in book.crossings})
        names = {counter_id: (budget, period) for counter_id, budget, period in found}
        _add_events(
            connection,
            [("threshold", *names[c.counter_id], c.percent, c.limit, c.spent, c.at) for c in book.crossings],
        )


def _attempt(row: tuple[Any, ...]) -> Attempt:
    """From a row of `_lock_attempts`."""
    (
        attempt_id, operation_id, payer_id, admitted_at, counted,
        hold, hold_tokens, hold_weighted, ceiling, ceiling_tokens, ceiling_weighted,
        observed, observed_tokens, observed_weighted, lease_until, swept,
    ) = row  # fmt: skip
    return Attempt(
        attempt_id, operation_id, payer_id, admitted_at, _numbers(counted),
        (hold, hold_tokens, hold_weighted), (ceiling, ceiling_tokens, ceiling_weighted),
        (observed, observed_tokens, observed_weighted), lease_until, bool(swept),
    )  # fmt: skip


def _empty(undo: Undo, named: dict[Payer, int]) -> Attempt:
    """What stands in the place of an attempt that must not be admitted any more."""
    paying = undo.paying
    payer_id = named[paying.payer]
    return Attempt(
        undo.attempt_id, paying.operation_id, payer_id, paying.admitted_at, (), NOTHING, NOTHING, NOTHING, undo.now
    )


def _attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    return (
        attempt.attempt_id, attempt.operation_id, attempt.payer_id, attempt.admitted_at, _text(attempt.counters),
        *attempt.hold, *attempt.ceiling, attempt.lease_until,
    )  # fmt: skip


def _changed_row(attempt: Attempt) -> tuple[Any, ...]:
    return (
        *attempt.hold, *attempt.ceiling, *attempt.observed, attempt.lease_until, attempt.swept, attempt.attempt_id,
    )  # fmt: skip


def _entry_row(entry: Entry) -> tuple[Any, ...]:
    attempt, usage, end = entry.attempt, entry.usage, entry.end
    admitted_at = attempt.admitted_at
    return (
        attempt.attempt_id, entry.kind,
        attempt.operation_id, attempt.payer_id, admitted_at, _text(attempt.counters), admitted_at // DAY,
        usage.input, usage.output, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h,
        *entry.charge, end.charge is None, end.outcome, end.now,
    )  # fmt: skip


def _counter_row(counter: Counter) -> tuple[Any, ...]:
    return (
        counter.spent, counter.held, counter.exposure, counter.limit,
        _text(counter.thresholds), counter.crossed, counter.paced_at, counter.counter_id,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _numbers(text: str) -> tuple[int, ...]:
    """A JSON list; the same few stand in thousands of rows."""
    return msgspec.json.decode(text, type=tuple[int, ...])


@lru_cache(maxsize=4096)
def _text(numbers: tuple[int, ...]) -> str:
    """The same list as JSON."""
    return str(list(numbers))
