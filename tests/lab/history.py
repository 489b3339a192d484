"""Decides whether a history of money was right, without a line of the code under test.

Three witnesses: what each client was answered, what the provider's own books say (the scripted cloud), and the store,
read by plain SQL. `watch` puts triggers into the store first: every state that a counter ever had is then on record, in
the transactions that made it, so that a bound is judged at every moment and not only in the end.

The store's tables and columns are named in the first part of this file and nowhere else.
"""

from __future__ import annotations

import json
from collections import Counter as Multiset
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.lab.usage import Usage

Sql = Callable[[str], list[tuple[Any, ...]]]
"""Runs a statement on the store, in the words of its own driver, and commits."""

# What the store calls things. -------------------------------------------------------------------------------------

ENTRIES = """SELECT attempt_id, kind, operation_id, counters, input_tokens, output_tokens, cache_read_tokens,
    cache_write_5m_tokens, cache_write_1h_tokens, cost, tokens, weighted_tokens, estimated, outcome
    FROM ledger ORDER BY entry_id"""
OPEN = """SELECT attempt_id, counters, swept, hold, hold_tokens, hold_weighted,
    ceiling, ceiling_tokens, ceiling_weighted FROM attempts"""
COUNTERS = "SELECT counter_id, budget, period_key, unit, spent, held, exposure FROM counters ORDER BY counter_id"
RUNNING = "SELECT attempt_id FROM attempts WHERE NOT swept"
LAST_LEASE = "SELECT MAX(lease_until) FROM attempts WHERE NOT swept"
WATCHED = "SELECT what, subject, counters, one, two, three FROM watched ORDER BY moment"
SETTLEMENT, CORRECTION, RELEASED, SWEPT = "settlement", "correction", "released", "lease_expired"

_COLUMNS = "what TEXT, subject TEXT, counters TEXT, one BIGINT, two BIGINT, three BIGINT"
_TABLE = f"(moment INTEGER PRIMARY KEY AUTOINCREMENT, {_COLUMNS})"
_AS_WRITTEN = f"(moment BIGINT GENERATED ALWAYS AS IDENTITY, {_COLUMNS}, of_commit XID8 DEFAULT pg_current_xact_id())"
# PostgreSQL writes the parts of one statement in no order: within a commit the counters stand behind what moved them.
_IN_ORDER = """SELECT row_number() OVER (ORDER BY last, what = 'counter', moment) AS moment,
    what, subject, counters, one, two, three
    FROM (SELECT *, max(moment) OVER (PARTITION BY of_commit) AS last FROM written) AS written"""
_COUNTER = "'counter', new.budget || ' ' || new.period_key, '[]', new.spent, new.held, new.exposure"
_EVENTS = {
    "counter_made": ("INSERT ON counters", _COUNTER),
    "counter_moved": ("UPDATE ON counters", _COUNTER),
    "admitted": (
        "INSERT ON attempts",
        "'admitted', new.attempt_id, new.counters, new.hold, new.hold_tokens, new.hold_weighted",
    ),
    "entry_made": (
        "INSERT ON ledger",
        "'entry', new.attempt_id, new.counters, new.cost, new.tokens, new.weighted_tokens",
    ),
    "entry_changed": ("UPDATE ON ledger", "'changed', new.attempt_id, '[]', 0, 0, 0"),
    "entry_deleted": ("DELETE ON ledger", "'deleted', old.attempt_id, '[]', 0, 0, 0"),
    "counter_deleted": ("DELETE ON counters", "'deleted', old.budget, '[]', 0, 0, 0"),
}


def watch(sql: Sql, *, postgres: bool = False) -> None:
    """Put the triggers into a store that is migrated. They write in the transaction that they watch."""
    if postgres:
        sql(f"CREATE TABLE written {_AS_WRITTEN}")
        sql(f"CREATE VIEW watched AS {_IN_ORDER}")
    else:
        sql(f"CREATE TABLE watched {_TABLE}")
    table = "written" if postgres else "watched"
    for name, (event, values) in _EVENTS.items():
        insert = f"INSERT INTO {table} (what, subject, counters, one, two, three) VALUES ({values});"  # noqa: S608 -- our own words
        if postgres:
            body = f"BEGIN {insert} RETURN NULL; END"
            sql(f"CREATE FUNCTION watch_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
            sql(f"CREATE TRIGGER watch_{name} AFTER {event} FOR EACH ROW EXECUTE FUNCTION watch_{name}()")
        else:
            sql(f"CREATE TRIGGER watch_{name} AFTER {event} BEGIN {insert} END")


def running(sql: Sql) -> list[str]:
    """Attempts whose end is not in the ledger yet."""
    return [attempt for (attempt,) in sql(RUNNING)]


def last_lease(sql: Sql) -> int:
    """When the last lease of these ends, in milliseconds since the epoch; 0 when there is none."""
    ((moment,),) = sql(LAST_LEASE)
    return moment or 0


@dataclass(frozen=True)
class Entry:
    """A row of the ledger."""

    attempt: str
    kind: str
    operation: str
    counters: tuple[int, ...]
    usage: Usage
    charge: tuple[int, int, int]
    estimated: bool
    outcome: str


@dataclass(frozen=True)
class Open:
    """An attempt that is not over."""

    attempt: str
    counters: tuple[int, ...]
    swept: bool
    hold: tuple[int, int, int]
    ceiling: tuple[int, int, int]


@dataclass(frozen=True)
class Moment:
    """One thing that happened in the store."""

    what: str
    """counter: it has these sums now. admitted: so much is held, entry: so much is charged, in each unit."""
    subject: str
    counters: tuple[int, ...]
    amounts: tuple[int, int, int]
    """Of a counter: spent, held, exposure."""


@dataclass(frozen=True)
class Books:
    """The store as it stands."""

    entries: list[Entry]
    open: list[Open]
    counters: dict[int, tuple[str, int, tuple[int, int, int]]]
    """Name, unit, and spent, held and exposure."""
    moments: list[Moment]
    """Empty: nobody watched."""

    @classmethod
    def read(cls, sql: Sql, *, watched: bool = True) -> Books:
        """Take it down. The four statements see one moment only when nobody writes."""
        entries = [
            Entry(
                row[0], row[1], row[2], tuple(json.loads(row[3])), Usage(*row[4:9]), row[9:12], bool(row[12]), row[13]
            )
            for row in sql(ENTRIES)
        ]
        still = [Open(row[0], tuple(json.loads(row[1])), bool(row[2]), row[3:6], row[6:9]) for row in sql(OPEN)]
        counters = {row[0]: (f"{row[1]} {row[2]}", row[3], row[4:7]) for row in sql(COUNTERS)}
        moments = (
            [Moment(row[0], row[1], tuple(json.loads(row[2])), row[3:6]) for row in sql(WATCHED)] if watched else []
        )
        return cls(entries, still, counters, moments)


# What clients and the provider saw. --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Price:
    """Micro-USD for a million tokens of each class, as the test gave it to the gateway."""

    input: int
    output: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int

    def cost(self, usage: Usage) -> int:
        """Whole micro-USD; a part of one counts as one."""
        millionths: int = sum(getattr(usage, each) * getattr(self, each) for each in self.__annotations__)
        return millionths // 1_000_000 + (1 if millionths % 1_000_000 else 0)


@dataclass(frozen=True)
class Bound:
    """The published bound of a budget, in its unit."""

    limit: int
    overshoot: int


@dataclass(frozen=True)
class Answered:
    """What one client got. `name` is what its prompt said, for finding the call among the provider's."""

    name: str
    status: int
    """0: no head arrived."""
    operation: str = ""
    whole: bool = False
    """The answer arrived to its last byte."""


@dataclass(frozen=True)
class Dispatched:
    """What the provider knows of one call."""

    name: str
    usage: Usage | None
    """What it bills; None: nothing, it was refused."""
    told: bool = True
    """It sent its last event, or tried to."""


@dataclass
class History:
    """Everything about one run. `crashes`: some process died or was stopped, so that outcomes may be unknown."""

    price: Price
    bounds: Mapping[str, Bound]
    """By the beginning of a budget's name."""
    crashes: bool = False
    clients: list[Answered] = field(default_factory=list)
    calls: list[Dispatched] = field(default_factory=list)

    def faults(self, books: Books) -> list[str]:
        """What is wrong with it, once everything has come to rest; empty: nothing."""
        return [
            *attempts_are_settled_once(books),
            *sums_agree(books),
            *self._bounds_hold(books),
            *self._nothing_is_lost(books),
            *self._nothing_is_doubled(books),
            *self._the_refused_reached_nobody(),
        ]

    def _bounds_hold(self, books: Books) -> Iterator[str]:
        """I4 and I5, in every state that a counter ever had.

        A commit may hold several admissions and settlements, and shows only their sum. A settlement that is dearer than
        its hold may pass the limit, and may have come last: I4 is judged as if it had.
        """
        places = {name: (counter, unit) for counter, (name, unit, _) in books.counters.items()}
        commits = _Commits()
        for number, moment in enumerate(books.moments):
            bound = self._bound(moment.subject) if moment.what == "counter" else None
            if bound is None:
                commits.gather(moment)
                continue
            spent, held, exposure = moment.amounts
            most = commits.admitted_up_to(*places[moment.subject], spent, held)
            if most > bound.limit:
                yield f"I4: moment {number}: {moment.subject} admitted up to {most} of {bound.limit}"
            worst = spent + held + exposure
            if worst > bound.limit + bound.overshoot:
                yield f"I5: moment {number}: {moment.subject} may cost {worst} of {bound.limit} + {bound.overshoot}"
            if min(moment.amounts) < 0:
                yield f"I2: moment {number}: {moment.subject} is below zero: {moment.amounts}"
        for name, _, (spent, _, _) in books.counters.values():
            bound = self._bound(name)
            if bound is not None and spent > bound.limit + bound.overshoot:
                yield f"I5: {name} spent {spent} of {bound.limit} + {bound.overshoot}"

    def _bound(self, name: str) -> Bound | None:
        return next((bound for begin, bound in self.bounds.items() if name.startswith(begin)), None)

    def _nothing_is_lost(self, books: Books) -> Iterator[str]:
        """Every call that the provider billed is in the ledger, at its price where its usage was told."""
        by_operation: dict[str, list[Entry]] = defaultdict(list)
        for entry in books.entries:
            by_operation[entry.operation].append(entry)
        operations = {client.name: client.operation for client in self.clients if client.operation}
        for client in self.clients:
            if client.whole and client.operation and client.operation not in by_operation:
                yield f"lost: {client.name} was answered, but {client.operation} has no entry"
        for call in self.calls:
            if call.name in operations:
                yield from self._charged(call, by_operation[operations[call.name]])

    def _charged(self, call: Dispatched, entries: list[Entry]) -> Iterator[str]:
        if not entries:
            yield f"lost: the call of {call.name} was dispatched, but has no entry"
            return
        cost = sum(entry.charge[0] for entry in entries)
        if call.usage is None:
            if cost:
                yield f"{call.name} was refused by the provider, but charged {cost}"
        elif not entries[-1].estimated:
            expected = self.price.cost(call.usage)
            if cost != expected:
                yield f"{call.name} cost {expected}, but was charged {cost}"
            if _total(entries) != call.usage:
                yield f"{call.name} used {call.usage}, but the ledger says {_total(entries)}"
        elif call.told and not self.crashes:
            yield f"{call.name} is an estimate, although the provider told its usage and nobody crashed"

    def _nothing_is_doubled(self, books: Books) -> Iterator[str]:
        """As many charged attempts as calls; exact ones are calls of the provider, each once."""
        exact: dict[str, list[Entry]] = defaultdict(list)
        for entry in books.entries:
            exact[entry.attempt].append(entry)
        charged = [mine for mine in exact.values() if sum(entry.charge[0] for entry in mine)]
        known = Multiset(_total(mine) for mine in charged if not mine[-1].estimated)
        billed = Multiset(call.usage for call in self.calls if call.usage is not None and self.price.cost(call.usage))
        for usage, count in known.items():
            if count > billed[usage]:
                yield f"doubled: {usage} is charged {count} times, the provider counted it {billed[usage]} times"
        estimates = sum(1 for mine in charged if mine[-1].estimated)
        uncounted = billed.total() - known.total()
        if estimates < uncounted:
            yield f"lost: {uncounted} calls have no exact entry, but there are only {estimates} estimates"
        if estimates > uncounted and not self.crashes:
            yield f"doubled: {estimates} estimates for {uncounted} calls without an exact entry"

    def _the_refused_reached_nobody(self) -> Iterator[str]:
        """A client that was refused for its budget cost nothing. (A 429 may be the provider's own.)"""
        reached = {402: {call.name for call in self.calls}}
        reached[429] = {call.name for call in self.calls if call.usage is not None}
        for client in self.clients:
            if client.name in reached.get(client.status, ()):
                yield f"{client.name} was refused with {client.status}, but the provider was called"


class _Commits:
    """What was admitted and settled since a counter was last written: that was in the same commit as its new sums."""

    def __init__(self) -> None:
        self._holds: dict[str, tuple[int, int, int]] = {}
        self._held: dict[int, int] = defaultdict(int)
        self._dearer: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._admitted: set[int] = set()

    def gather(self, moment: Moment) -> None:
        if moment.what == "admitted":
            self._holds[moment.subject] = moment.amounts
            self._admitted.update(moment.counters)
        elif moment.what == "entry":
            held = self._holds.pop(moment.subject, (0, 0, 0))  # for a correction nothing is held any more
            for counter in moment.counters:
                for unit, (cost, hold) in enumerate(zip(moment.amounts, held, strict=True)):
                    self._dearer[counter][unit] += max(0, cost - hold)

    def admitted_up_to(self, counter: int, unit: int, spent: int, held: int) -> int:
        """Spent and held when the last of the commit's admissions was decided, at the least; 0 without any."""
        extra = self._dearer.pop(counter, [0, 0, 0])[unit]
        grown = counter in self._admitted or held > self._held[counter]
        self._admitted.discard(counter)
        self._held[counter] = held
        return spent + held - extra if grown else 0


def attempts_are_settled_once(books: Books) -> Iterator[str]:
    """I1: one settlement, at most one correction, which follows an estimate; entries are never changed."""
    mine: dict[str, list[Entry]] = defaultdict(list)
    for entry in books.entries:
        mine[entry.attempt].append(entry)
    for attempt, entries in mine.items():
        kinds = [entry.kind for entry in entries]
        if kinds not in ([SETTLEMENT], [SETTLEMENT, CORRECTION]):
            yield f"I1: attempt {attempt} has the entries {kinds}"
        smaller = entries[-1].estimated and min(entries[-1].charge) < 0
        if len(kinds) > 1 and (smaller or not entries[0].estimated):
            yield f"I1: attempt {attempt} has a correction of what was exact, or by a smaller estimate"
        if entries[0].outcome == RELEASED and entries[0].charge != (0, 0, 0):
            yield f"I1: attempt {attempt} was released, but charged {entries[0].charge}"
        if len({(entry.operation, entry.counters) for entry in entries}) > 1:
            yield f"I1: the entries of attempt {attempt} disagree on whom to charge"
    running = {each.attempt for each in books.open if not each.swept}
    yield from (f"I1: attempt {each} is open and settled" for each in sorted(running & mine.keys()))
    yield from (
        f"I1: attempt {each.attempt} was swept, but has no entry"
        for each in books.open
        if each.swept and each.attempt not in mine
    )
    if books.moments:
        admitted = Multiset(moment.subject for moment in books.moments if moment.what == "admitted")
        yield from (f"I1: attempt {each} was admitted {count} times" for each, count in admitted.items() if count > 1)
        gone = admitted.keys() - mine.keys() - running
        yield from (f"I1: attempt {each} was admitted and has vanished" for each in sorted(gone))
        strange = mine.keys() - admitted.keys()
        yield from (f"I1: attempt {each} has entries, but was never admitted" for each in sorted(strange))
        for moment in books.moments:
            if moment.what in ("changed", "deleted"):
                yield f"I1: the entry or counter {moment.subject} was {moment.what}"


def sums_agree(books: Books) -> Iterator[str]:
    """I2: counters are the sums of what they count."""
    sums: dict[int, list[list[int]]] = defaultdict(lambda: [[0, 0, 0] for _ in range(3)])
    first = {entry.attempt: entry for entry in books.entries if entry.kind == SETTLEMENT}
    for entry in books.entries:
        _add(sums, entry.counters, 0, entry.charge)
    for each in books.open:
        if each.swept:
            charge = first[each.attempt].charge if each.attempt in first else (0, 0, 0)
            _add(sums, each.counters, 2, [max(0, most - cost) for most, cost in zip(each.ceiling, charge, strict=True)])
        else:
            _add(sums, each.counters, 1, each.hold)
            _add(sums, each.counters, 2, [most - hold for most, hold in zip(each.ceiling, each.hold, strict=True)])
    for counter, (name, unit, says) in books.counters.items():
        found = tuple(sums[counter][column][unit] for column in range(3))
        if found != tuple(says):
            yield f"I2: {name} says {tuple(says)} are spent, held and exposed, but the rows sum to {found}"


def _add(sums: dict[int, list[list[int]]], counters: Iterable[int], column: int, amounts: Iterable[int]) -> None:
    listed = list(amounts)
    for counter in counters:
        for unit, amount in enumerate(listed):
            sums[counter][column][unit] += amount


def _total(entries: list[Entry]) -> Usage:
    """What an attempt used: a correction carries the difference."""
    return Usage(*(sum(getattr(entry.usage, each) for entry in entries) for each in Usage.__annotations__))
