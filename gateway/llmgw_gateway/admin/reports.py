"""What is only read: policies and whom they concern, usage, the changes of administrators, the configuration."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date  # noqa: TC003 -- msgspec reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import select

from llmgw_gateway.admin.asking import (
    ALL_SEEING,
    READERS,
    Document,
    Id,
    Line,
    LongLine,
    Name,
    Nothing,
    Page,
    Route,
    missing,
    time_text,
)
from llmgw_gateway.call import Caller
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.people import KIND, found
from llmgw_gateway.money.usage import Span, total, usage
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.sections.permitting import Permission  # noqa: TC001 -- the same
from llmgw_gateway.store.schema import changes, persons
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from llmgw_gateway.admin.asking import Asking

By = Literal["user", "model", "day", "outcome", "team", "project", "key"]
YEARS: Final = range(2000, 3000)
LONGEST_NUMBER: Final = 18
MOST_ROWS: Final = 10_000


class Policies(Document, frozen=True):
    """The entries in the order in which they are read."""

    policies: tuple[Permission, ...]


class ExplainQuery(Document, frozen=True):
    """Whom and what a question is about."""

    person: Id
    model: Name


class Explanation(Document, frozen=True):
    """Whether somebody may use a model, and which entry says so."""

    person: str
    team: str
    model: str
    allowed: bool
    why: str
    policy: int | None
    """The place of the entry that decided, from 0."""
    name: str
    guardrail: str
    """Under which guardrail their calls are made; empty: under none."""


class UsageQuery(Document, frozen=True):
    """Which usage. Days in the organisation's time zone, both included."""

    by: By
    since: date | UnsetType = UNSET
    until: date | UnsetType = UNSET
    person: Line = ""
    limit: Annotated[int, Meta(ge=1, le=MOST_ROWS)] = MOST_ROWS
    """Of the lines. The total is of all, whatever is shown."""
    cursor: Line = ""
    """`next` of the page before."""


class Used(Document, frozen=True):
    """What one of the groups has used; cost in micro-USD."""

    of: dict[str, str]
    """What they are grouped by: for `user` the id, name and address."""
    operations: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    cost: int
    estimated: int
    """The share of the cost whose usage is not known."""


class Usage(Document, frozen=True):
    """Sums of what is settled."""

    by: str
    lines: tuple[Used, ...]
    """Days in their order, all else dearest first."""
    total: Used
    """Of all lines, those of other pages, too."""
    next: str | None
    """null: there are no more lines."""


class ChangesQuery(Page, frozen=True):
    """Which changes; the newest come first."""

    actor: Line = ""
    action: Line = ""
    kind: Line = ""
    id: LongLine = ""
    outcome: Literal["allowed", "denied"] | UnsetType = UNSET


class ChangeShown(Document, frozen=True):
    """One row."""

    number: int
    """Its place in the chain."""
    change: str
    at: str
    actor: str
    role: str
    action: str
    kind: str
    id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    outcome: str
    request_id: str


class Changes(Document, frozen=True):
    """A page of changes."""

    changes: tuple[ChangeShown, ...]
    next: str | None


class Configuration(Document, frozen=True):
    """What this replica has in force."""

    in_force_since: str
    faults: tuple[str, ...]
    """Why the file as it is now was refused; empty: it is in force."""
    waiting: tuple[str, ...]
    """What differs in the file and waits for a restart."""


def list_policies(asking: Asking, _connection: Connection, _query: Nothing) -> Policies:
    """Answer with all of them."""
    return Policies(policies=asking.settings.policies)


def explain(asking: Asking, connection: Connection, query: ExplainQuery) -> Explanation:
    """Say which entry decides."""
    people = found(connection, asking.visible_people(connection) & (persons.c.person_id == query.person))
    if not people:
        raise missing("person")
    served = [model.name for model in asking.settings.models]
    if query.model not in served:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"This model is not served. Served: {', '.join(served)}.")
    person, settings = people[0], asking.settings
    account = Accounts(settings.teams, settings.projects, settings.deciding).resolve(
        Caller(person.person_id, "", "", "", 0), person.email, person.groups, "", person.stored
    )
    verdict = asking.policy.permissions.decide(account, query.model)
    return Explanation(
        person=person.person_id,
        team=account.team,
        model=query.model,
        allowed=verdict.allowed,
        why=verdict.why,
        policy=verdict.number,
        name="" if verdict.entry is None else verdict.entry.name,
        guardrail=asking.policy.guardrail(account, query.model),
    )


def show_usage(asking: Asking, connection: Connection, query: UsageQuery) -> Usage:
    """Add up; for a team lead what their teams have paid for."""
    since, until = query.since or None, query.until or None
    if not all(day is None or day.year in YEARS for day in (since, until)):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`since` and `until` are days of the years 2000 to 2999.")
    if since and until and until < since:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`until` must not be before `since`.")
    span = Span(ZoneInfo(asking.settings.organisation.time_zone), since, until)
    lines = usage(connection, query.by, span, query.person, teams=asking.teams)
    begin = _number(query.cursor) if query.cursor else 0
    end = begin + query.limit
    return Usage(
        by=query.by,
        lines=tuple(Used(of=each.of, **asdict(each.sums)) for each in lines[begin:end]),
        total=Used(of={}, **asdict(total(lines))),
        next=str(end) if lines[end:] else None,
    )


def list_changes(_asking: Asking, connection: Connection, query: ChangesQuery) -> Changes:
    """Answer with a page, the newest first."""
    named = {"actor": query.actor, "action": query.action, "object_kind": query.kind, "object_id": query.id}
    where = [changes.c[column] == text for column, text in named.items() if text]
    if query.outcome:
        where.append(changes.c.outcome == query.outcome)
    if query.cursor:
        where.append(_before(query.cursor))
    newest = select(changes).where(*where).order_by(changes.c.number.desc())
    rows = connection.execute(newest.limit(query.limit + 1)).all()
    shown = rows[: query.limit]
    following = str(shown[-1].number) if rows[query.limit :] else None
    return Changes(changes=tuple(_change(row) for row in shown), next=following)


def show_configuration(asking: Asking, _connection: Connection, _query: Nothing) -> Configuration:
    """Answer with what `/readyz` says of it."""
    now = asking.reloading
    return Configuration(in_force_since=time_text(int(now.since * 1000)), faults=now.faults, waiting=now.waiting)


def _before(cursor: str) -> ColumnElement[bool]:
    return changes.c.number < _number(cursor)


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= LONGEST_NUMBER):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`cursor` is not one that was given here.")
    return int(cursor)


def _change(row: Any) -> ChangeShown:  # noqa: ANN401 -- a row
    return ChangeShown(
        number=row.number,
        change=row.change_id,
        at=time_text(row.at),
        actor=row.actor,
        role=row.role,
        action=row.action,
        kind=row.object_kind,
        id=row.object_id,
        before=None if row.before is None else json.loads(row.before),
        after=None if row.after is None else json.loads(row.after),
        outcome=row.outcome,
        request_id=row.request_id,
    )


ROUTES: Final = (
    Route(
        "GET", "/admin/v1/policies", "policies.list", "Who may use which models.",
        ALL_SEEING, list_policies, Policies,
    ),
    Route(
        "GET", "/admin/v1/policies/explain", "policy.explain", "Whether somebody may use a model, and why.",
        READERS, explain, Explanation, ExplainQuery, KIND,
    ),
    Route(
        "GET", "/admin/v1/usage", "usage.show", "Operations, tokens and cost of what is settled.",
        READERS, show_usage, Usage, UsageQuery,
    ),
    Route(
        "GET", "/admin/v1/changes", "changes.list", "What administrators changed and were refused.",
        ALL_SEEING, list_changes, Changes, ChangesQuery,
    ),
    Route(
        "GET", "/admin/v1/configuration", "configuration.show", "What this replica has in force.",
        ALL_SEEING, show_configuration, Configuration,
    ),
)  # fmt: skip
