"""The requests that were made: who asked which model when, what became of it and what it cost, from the ledger.

A row is one attempt that was settled, with its correction; a request with fallbacks has several. What was refused
before it was sent anywhere costs nothing and is no row: it stands in the audit trail (`llmgw-gateway audit show`).
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from msgspec import UNSET, UnsetType
from sqlalchemy import and_, or_, select, true, tuple_

from llmgw_gateway.admin.asking import ALL_SEEING, ANYBODY, Document, Line, Name, Page, Route, time_text
from llmgw_gateway.call import Usage
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money.items import CORRECTION, SETTLEMENT
from llmgw_gateway.money.usage import Span
from llmgw_gateway.store.schema import ledger, persons
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

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
    named = {"person_id": query.person, "team": query.team, "model": query.model, "outcome": query.outcome}
    where = [_visible(asking), ledger.c.kind == SETTLEMENT, *_span(asking, query)]
    where += [ledger.c[column] == text for column, text in named.items() if text]
    if query.cursor:
        where.append(tuple_(ledger.c.admitted_at, ledger.c.entry_id) < _place(query.cursor))
    newest = select(ledger).where(*where).order_by(ledger.c.admitted_at.desc(), ledger.c.entry_id.desc())
    rows = connection.execute(newest.limit(query.limit + 1)).all()
    shown = rows[: query.limit]
    corrected = _corrections(connection, [row.attempt_id for row in shown])
    called = _names(connection, {row.person_id for row in shown})
    last = shown[-1] if rows[query.limit :] else None
    return Requests(
        requests=tuple(_request(row, corrected.get(row.attempt_id), called) for row in shown),
        next=None if last is None else f"{last.admitted_at}.{last.entry_id}",
    )


def _visible(asking: Asking) -> ColumnElement[bool]:
    """The owner's check: everybody sees their own, a lead what their teams have paid for."""
    if asking.standing.roles & ALL_SEEING:
        return true()
    own = ledger.c.person_id == asking.caller.person_id
    teams = asking.standing.teams if "team_lead" in asking.standing.roles else frozenset()
    return or_(own, and_(ledger.c.team.in_(teams), ledger.c.team != "")) if teams else own


def _span(asking: Asking, query: RequestsQuery) -> tuple[ColumnElement[bool], ...]:
    zone = ZoneInfo(asking.settings.organisation.time_zone)
    until = query.until or datetime.fromtimestamp(asking.now / 1000, zone).date()
    since = query.since or max(until - timedelta(days=DAYS - 1), date(YEARS.start, 1, 1))
    if not all(day.year in YEARS for day in (since, until)):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`since` and `until` are days of the years 2000 to 2999.")
    if not timedelta() <= until - since < timedelta(days=MOST_DAYS):
        text = f"`until` must not be before `since`, and at most {MOST_DAYS} days are looked through at a time."
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, text)
    span = Span(zone, since, until)
    return span.filter(span.start)


def _place(cursor: str) -> Any:  # noqa: ANN401 -- a tuple of literals
    parts = cursor.split(".")
    if len(parts) != 2 or not all(  # noqa: PLR2004 -- as it was given
        part.isascii() and part.isdecimal() and len(part) <= LONGEST_NUMBER for part in parts
    ):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`cursor` is not one that was given here.")
    return tuple_(*map(int, parts))


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
