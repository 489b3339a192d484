"""The requests that were made: who asked which model when, what became of it and what it cost, from the ledger.

A row is one attempt that was settled, with its correction; a request with fallbacks has several. What was refused
before it was sent anywhere costs nothing and is no row: it stands in the audit trail (`llmgw-gateway audit show`).
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from msgspec import UNSET, UnsetType
from sqlalchemy import and_, func, literal, or_, select, true, tuple_

from llmgw_gateway.admin.asking import ALL_SEEING, ANYBODY, Document, Line, Name, Page, Route, time_text
from llmgw_gateway.call import Usage
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money.items import CORRECTION, SETTLEMENT
from llmgw_gateway.money.posting import PAYER
from llmgw_gateway.money.usage import DAY_MILLISECONDS, ENTRIES, Span
from llmgw_gateway.store.schema import ledger, payers, persons
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

    from llmgw_gateway.admin.asking import Asking

DAYS: Final = 7
"""How far back it is looked where nobody says since when."""
MOST_DAYS: Final = 92
"""Between the first and the last day: a rare team must not have the whole ledger read."""
YEARS: Final = range(2000, 3000)
LONGEST_NUMBER: Final = 18
TOKENS: Final = tuple(f"{name}_tokens" for name in Usage.__struct_fields__)


class RequestsQuery(Page, frozen=True):
    """Which requests; the newest come first. Days in the organisation's time zone, both included."""

    since: date | UnsetType = UNSET
    """Without it the last seven days; at most 92 days in all."""
    until: date | UnsetType = UNSET
    person: Line = ""
    team: Line = ""
    model: Line = ""
    outcome: Line = ""


class Request(Document, frozen=True):
    """One attempt; cost in micro-USD."""

    request: str
    """As the audit trail, and the header `x-llmgw-request-id`, have it."""
    attempt: str
    at: str
    settled_at: str
    person: str
    name: Line
    email: Line
    team: Line
    project: Line
    key: str
    """The place among the person's devices, or the service key's own."""
    model: Name
    target: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cost: int
    estimated: bool
    """Whether what it cost is not known for certain."""
    outcome: str


class Requests(Document, frozen=True):
    """A page of requests."""

    requests: tuple[Request, ...]
    next: str | None


def list_requests(asking: Asking, connection: Connection, query: RequestsQuery) -> Requests:
    """Answer with a page: of everybody, of what a lead's teams have paid for, or of the caller's own."""
    span = _span(asking, query)
    named = {"person_id": query.person, "team": query.team, "model": query.model}
    whose = [_visible(asking), *(payers.c[column] == text for column, text in named.items() if text)]
    where = [*span.filter(span.start), ledger.c.kind == SETTLEMENT]
    # By their numbers, which the index has beside the day.
    where.append(ledger.c.payer_id.in_(select(payers.c.payer_id).where(*whose)))
    if query.outcome:
        where.append(ledger.c.outcome == query.outcome)
    last = span.end or 0
    if query.cursor:
        last, number = _place(query.cursor)
        where.append(tuple_(ledger.c.admitted_at, ledger.c.entry_id) < tuple_(literal(last), literal(number)))
    rows = _newest(connection, where, span.start // DAY_MILLISECONDS, last // DAY_MILLISECONDS, query.limit + 1)
    shown = rows[: query.limit]
    corrected = _corrections(connection, [row.attempt_id for row in shown])
    called = _names(connection, {row.person_id for row in shown})
    end = shown[-1] if rows[query.limit :] else None
    return Requests(
        requests=tuple(_request(row, corrected.get(row.attempt_id), called) for row in shown),
        next=None if end is None else f"{end.admitted_at}.{end.entry_id}",
    )


def _newest(
    connection: Connection, where: list[ColumnElement[bool]], first: int, last: int, most: int
) -> list[Row[Any]]:
    """The newest rows, day by day until there are enough: nothing is sorted but the rows of one day."""
    found: list[Row[Any]] = []
    oldest = connection.scalar(select(func.min(ledger.c.day)))
    newest = connection.scalar(select(func.max(ledger.c.day)))
    if oldest is None or newest is None:
        return found
    ordered = select(ledger, *(payers.c[name] for name in PAYER)).select_from(ENTRIES).where(*where)
    ordered = ordered.order_by(ledger.c.admitted_at.desc(), ledger.c.entry_id.desc())
    for day in range(min(last, newest), max(first, oldest) - 1, -1):
        found += connection.execute(ordered.where(ledger.c.day == day).limit(most - len(found))).all()
        if len(found) >= most:
            break
    return found


def _visible(asking: Asking) -> ColumnElement[bool]:
    """The owner's check: everybody sees their own, a lead what their teams have paid for."""
    if asking.standing.roles & ALL_SEEING:
        return true()
    own = payers.c.person_id == asking.caller.person_id
    teams = asking.standing.teams if "team_lead" in asking.standing.roles else frozenset()
    return or_(own, and_(payers.c.team.in_(teams), payers.c.team != "")) if teams else own


def _span(asking: Asking, query: RequestsQuery) -> Span:
    zone = ZoneInfo(asking.settings.organisation.time_zone)
    until = query.until or datetime.fromtimestamp(asking.now / 1000, zone).date()
    since = query.since or max(until - timedelta(days=DAYS - 1), date(YEARS.start, 1, 1))
    if not all(day.year in YEARS for day in (since, until)):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`since` and `until` are days of the years 2000 to 2999.")
    if not timedelta() <= until - since < timedelta(days=MOST_DAYS):
        text = f"`until` must not be before `since`, and at most {MOST_DAYS} days are looked through at a time."
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, text)
    return Span(zone, since, until)


def _place(cursor: str) -> tuple[int, int]:
    parts = cursor.split(".")
    if len(parts) != 2 or not all(  # noqa: PLR2004 -- as it was given
        part.isascii() and part.isdecimal() and len(part) <= LONGEST_NUMBER for part in parts
    ):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`cursor` is not one that was given here.")
    return int(parts[0]), int(parts[1])


def _corrections(connection: Connection, attempts: list[str]) -> dict[str, Any]:
    """What became known later of these attempts."""
    late = (ledger.c.kind == CORRECTION) & ledger.c.attempt_id.in_(attempts)
    return {row.attempt_id: row for row in connection.execute(select(ledger).where(late))}


def _names(connection: Connection, people: set[str]) -> dict[str, tuple[str, str]]:
    query = select(persons.c.person_id, persons.c.name, persons.c.email).where(persons.c.person_id.in_(sorted(people)))
    return {row.person_id: (row.name, row.email) for row in connection.execute(query)}


def _request(row: Any, late: Any, called: dict[str, tuple[str, str]]) -> Request:  # noqa: ANN401 -- rows
    name, email = called.get(row.person_id, ("", ""))
    tokens = {each: int(getattr(row, each)) + int(getattr(late, each, 0)) for each in TOKENS}
    return Request(
        request=row.operation_id,
        attempt=row.attempt_id,
        at=time_text(row.admitted_at),
        settled_at=time_text(row.settled_at),
        person=row.person_id,
        name=name,
        email=email,
        team=row.team,
        project=row.project,
        key=row.access_key,
        model=row.model,
        target=row.target,
        cost=int(row.cost) + int(getattr(late, "cost", 0)),
        estimated=bool(row.estimated) and (late is None or bool(late.estimated)),
        outcome=row.outcome if late is None else late.outcome,
        **tokens,
    )


ROUTES: Final = (
    Route(
        "GET", "/admin/v1/requests", "requests.list", "Who asked which model when, what became of it, what it cost.",
        ANYBODY, list_requests, Requests, RequestsQuery,
    ),
)  # fmt: skip
