"""What was used and what it cost, added up from the ledger. Queries only; the same for SQLite and PostgreSQL.

An attempt is counted as a whole, with its correction, on the day it was admitted: that is where its budgets were
charged, so that a month here is a month there. An operation counts where its first attempt does. Hence every grouping
of the same period has the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, literal, select

from llmgw_gateway.money.allowance import PREFIX
from llmgw_gateway.money.items import CORRECTION
from llmgw_gateway.store.schema import ledger, ledger_sums, payers, persons

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from zoneinfo import ZoneInfo

    from sqlalchemy import ColumnElement, Connection, Row, Subquery

DAY_MILLISECONDS = 86_400_000
SUMMED_BY = frozenset({"user", "team", "project", "model", "day"})
"""What is still known of attempts that retention has removed."""
REMOVED = "(removed)"
"""What they are called in groups by something else."""

# Entries with who pays for them.
ENTRIES = ledger.join(payers, ledger.c.payer_id == payers.c.payer_id)
# Of each attempt: when it was admitted, and whether what it cost is known.
ADMITTED = ledger.c.admitted_at
# Only an estimate is ever corrected, and perhaps by a larger one: what it cost is known when any of the two is exact.
UNKNOWN: ColumnElement[Any] = func.min(case((ledger.c.estimated, 1), else_=0))

# By what attempts can be grouped: for each its expression over the one or two ledger rows of an attempt.
DIMENSIONS: dict[str, ColumnElement[Any]] = {
    "user": func.min(payers.c.person_id),
    "team": func.min(payers.c.team),
    "project": func.min(payers.c.project),
    "key": func.min(payers.c.access_key),
    "model": func.min(payers.c.model),
    "day": func.min(ADMITTED),
    "outcome": func.coalesce(
        func.max(case((ledger.c.kind == CORRECTION, ledger.c.outcome))), func.min(ledger.c.outcome)
    ),
}


@dataclass(frozen=True, slots=True)
class Sums:
    """What some attempts came to. Money in micro-USD."""

    operations: int = 0
    """Requests of clients."""
    attempts: int = 0
    """Dispatches to a provider: retries and fallbacks are attempts of the same operation."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cost: int = 0
    estimated: int = 0
    """The part of the cost whose usage is not known: charged at what was held or observed."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Sums)))


@dataclass(frozen=True, slots=True)
class Line:
    """One group: what it is called, by column, and its sums."""

    of: dict[str, str]
    sums: Sums

    @property
    def label(self) -> str:
        """What a person calls it: an e-mail address, else a name, else the value itself; "-" for no team or project."""
        return self.of.get("email") or self.of.get("name") or next(iter(self.of.values())) or "-"


@dataclass(frozen=True, slots=True)
class Span:
    """Some days, both ends included, in the time zone of the organisation; None: open."""

    zone: ZoneInfo
    since: date | None = None
    until: date | None = None

    @property
    def start(self) -> int:
        """Milliseconds since the epoch."""
        return 0 if self.since is None else _midnight(self.since, self.zone)

    @property
    def end(self) -> int | None:
        """The first millisecond after it."""
        return None if self.until is None else _midnight(self.until + timedelta(days=1), self.zone)

    def filter(self, begins: int) -> tuple[ColumnElement[bool], ...]:
        """The ledger rows of attempts that were admitted from `begins` to the end of the span."""
        # Allowances are no calls: what was spent of them is there as the calls that spent it.
        calls = ~ledger.c.attempt_id.startswith(PREFIX, autoescape=True)
        # The days are what the index knows, each a little longer than asked for at both ends of the span.
        day = ledger.c.day
        lower = (calls, day >= begins // DAY_MILLISECONDS, begins <= ADMITTED) if begins > 0 else (calls,)
        return lower if self.end is None else (*lower, day <= self.end // DAY_MILLISECONDS, self.end > ADMITTED)


def usage(
    connection: Connection, by: str, span: Span, person_id: str = "", *, teams: Collection[str] | None = None
) -> list[Line]:
    """Sums of the settled attempts of a span, grouped by one of DIMENSIONS; days in order, all else dearest first.

    Of everybody, or of one person; of all teams, or of what these have paid for.
    """
    # A day more than asked for, so that an operation whose first attempt was yesterday is not counted again today.
    begins = span.start - DAY_MILLISECONDS
    whose = _whose(connection, span, begins, person_id) if person_id else []
    if teams is not None:
        whose.append(payers.c.team.in_(teams) & (payers.c.team != ""))
    facts = _facts(by, [*span.filter(begins), *whose])
    part = _day(connection, facts.c.part, span.zone) if by == "day" else facts.c.part
    groups = _groups(facts, part, span.start)
    shown = _date if by == "day" else str
    found = {shown(row.part): _sums(row) for row in connection.execute(select(groups))}
    for name, sums in _removed(connection, by, span, person_id, teams).items():
        found[name] = found.get(name, Sums()) + sums
    if by == "user":
        lines = [Line({"user": name} | known, found[name]) for name, known in _names(connection, found).items()]
    else:
        lines = [Line({by: name}, sums) for name, sums in found.items()]
    if by == "day":
        return sorted(lines, key=lambda line: line.label)
    return sorted(lines, key=lambda line: (-line.sums.cost, line.label))


def _names(connection: Connection, found: Iterable[str]) -> dict[str, dict[str, str]]:
    """What people are called: all of them are read, which is less than to ask for each."""
    query = select(persons.c.person_id, persons.c.name, persons.c.email)
    known = {row.person_id: {"name": row.name, "email": row.email} for row in connection.execute(query)}
    return {each: known.get(each, {"name": "", "email": ""}) for each in found}


def _removed(
    connection: Connection, by: str, span: Span, person_id: str, teams: Collection[str] | None
) -> dict[str, Sums]:
    """The sums of attempts that retention has removed, whose single entries, devices and outcomes are not known."""
    part = ledger_sums.c[{"user": "person_id"}.get(by, by)] if by in SUMMED_BY else literal(REMOVED)
    columns = {each.name: each.name for each in fields(Sums)} | {"estimated": "estimated_cost"}
    where: list[ColumnElement[bool]] = [ledger_sums.c.calls]
    if span.since is not None:
        where.append(ledger_sums.c.day >= span.since.isoformat())
    if span.until is not None:
        where.append(ledger_sums.c.day <= span.until.isoformat())
    if person_id:
        where.append(ledger_sums.c.person_id == person_id)
    if teams is not None:
        where.append(ledger_sums.c.team.in_(teams) & (ledger_sums.c.team != ""))
    sums = (func.sum(ledger_sums.c[column]).label(name) for name, column in columns.items())
    query = select(part.label("part"), *sums).where(*where).group_by("part" if by not in SUMMED_BY else part)
    return {row.part: _sums(row) for row in connection.execute(query)}


def total(lines: list[Line]) -> Sums:
    """The sum over all groups."""
    return sum((line.sums for line in lines), Sums())


def _whose(connection: Connection, span: Span, begins: int, person_id: str) -> list[ColumnElement[bool]]:
    """The entries of one person. Each day is named, so that the index finds them without reading everybody's."""
    first, last = _days(connection)
    if first is None or last is None:
        return [payers.c.person_id == person_id]
    first = max(first, begins // DAY_MILLISECONDS)
    last = last if span.end is None else min(last, span.end // DAY_MILLISECONDS)
    return [payers.c.person_id == person_id, ledger.c.day.in_(range(first, last + 1))]


def _facts(by: str, where: Sequence[ColumnElement[bool]]) -> Subquery:
    """One row for each attempt: settlement and correction together."""
    query = (
        select(
            ledger.c.attempt_id,
            func.min(ledger.c.operation_id).label("operation_id"),
            func.min(ADMITTED).label("admitted"),
            DIMENSIONS[by].label("part"),
            UNKNOWN.label("unknown"),
            *(func.sum(ledger.c[name]).label(name) for name in _SUMMED),
        )
        .select_from(ENTRIES)
        .where(*where)
        .group_by(ledger.c.attempt_id)
    )
    return query.subquery("facts")


_SUMMED = (*(each.name for each in fields(Sums) if each.name.endswith("_tokens")), "cost")


def _groups(facts: Subquery, part: ColumnElement[Any], start: int) -> Subquery:
    order = func.row_number().over(partition_by=facts.c.operation_id, order_by=(facts.c.admitted, facts.c.attempt_id))
    ranked = select(
        part.label("part"),
        facts.c.admitted,
        case((order == 1, 1), else_=0).label("operations"),
        literal(1).label("attempts"),
        case((facts.c.unknown == 1, facts.c.cost), else_=0).label("estimated"),
        *(facts.c[name] for name in _SUMMED),
    ).subquery("ranked")
    sums = (func.sum(ranked.c[each.name]).label(each.name) for each in fields(Sums))
    return select(ranked.c.part, *sums).where(ranked.c.admitted >= start).group_by(ranked.c.part).subquery("groups")


def _sums(row: Row[Any]) -> Sums:
    # PostgreSQL adds whole numbers up to a decimal.
    return Sums(*(int(getattr(row, each.name)) for each in fields(Sums)))


def _day(connection: Connection, moment: ColumnElement[Any], zone: ZoneInfo) -> ColumnElement[Any]:
    """The local day of a moment, as a number. Databases differ in what they know of time zones, so none is asked.

    Between two changes of the clock days are equally long, and the number is a division; the days of 23 or 25 hours
    are cases of their own. That makes a handful of cases for years of days.
    """
    first, last = _days(connection)
    if first is None or last is None:
        return literal(0)
    cases = []
    begin = day = _local(first * DAY_MILLISECONDS, zone)
    length = _length(day, zone)
    end = _local((last + 1) * DAY_MILLISECONDS, zone)
    while day <= end:
        following = day + timedelta(days=1)
        if _length(following, zone) != length or following > end:
            cases.append((moment < _midnight(following, zone), _number(moment, begin, length, zone)))
            begin, length = following, _length(following, zone)
        day = following
    return case(*cases)


def _days(connection: Connection) -> tuple[int | None, int | None]:
    """The first and the last of the ledger, in days since the epoch. A statement of its own each takes no scan."""
    return connection.scalar(select(func.min(ledger.c.day))), connection.scalar(select(func.max(ledger.c.day)))


def _number(moment: ColumnElement[Any], begin: date, length: int, zone: ZoneInfo) -> ColumnElement[Any]:
    if length != DAY_MILLISECONDS:
        return literal(begin.toordinal())
    return literal(begin.toordinal()) + (moment - _midnight(begin, zone)) // DAY_MILLISECONDS


def _date(number: int) -> str:
    return date.fromordinal(int(number)).isoformat()


def _local(milliseconds: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(milliseconds / 1000, zone).date()


def _midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp() * 1000)


def _length(day: date, zone: ZoneInfo) -> int:
    return _midnight(day + timedelta(days=1), zone) - _midnight(day, zone)
