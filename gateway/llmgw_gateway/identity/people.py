"""People as administrators see them, and what they may do to one: disable, enable, end every session.

Whoever is disabled gets no further token, and the tokens they have are refused by every replica within two seconds: all
their sessions are ended in the same transaction.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import and_, collate, exists, false, func, not_, or_, select, update

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.directory import all_memberships, all_teams, groups_of, memberships
from llmgw_gateway.identity.revocation import end_session
from llmgw_gateway.identity.service_keys import ISSUER
from llmgw_gateway.observe.changes import Author, Change, is_recorded, record
from llmgw_gateway.store.schema import persons, sessions, team_members, teams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from llmgw_gateway.call import Memberships
    from llmgw_gateway.sections.organizing import Team
    from llmgw_gateway.store.database import Database

Verb = Literal["disable", "enable", "revoke"]
KIND: Final = "person"
"""What people are called in the rows of changes."""
FEW: Final = 20
"""So many people's teams are asked for one by one."""
log = logging.getLogger("llmgw.identity")


@dataclass(frozen=True, slots=True)
class Known:
    """One person as the store has them. Times in milliseconds since the epoch."""

    person_id: str
    name: str
    email: str
    issuer: str
    subject: str
    groups: frozenset[str] | None
    """Of the last sign-in; None: the provider had too many to say."""
    first_seen: int
    last_seen: int
    disabled_at: int | None
    inactive_at: int | None
    """Since when the directory says that they have left."""
    stored: Memberships
    """What the store's directory says of their teams."""


@dataclass(frozen=True, slots=True)
class Session:
    """One device of a person that is signed in. Times in milliseconds since the epoch."""

    session: str
    access_key: str
    enrolled_at: int
    last_exchange: int


@dataclass(frozen=True, slots=True)
class PersonOrder:
    """What is to be done to one person."""

    verb: Verb
    person_id: str
    by: Author
    now: int
    """Milliseconds since the epoch."""


class People:
    """Carries out orders in one process. `told` is awaited after each: this replica need not wait for its poll."""

    def __init__(self, database: Database, told: Callable[[], Awaitable[None]] | None = None) -> None:
        self._database = database
        self._told = told

    async def carry_out(self, order: PersonOrder) -> int | None:
        """How many sessions that ended; None when there is no such person.

        StoreAwayError tells whether it may have been done.
        """
        order = replace(order, now=int(self._database.now() * 1000))
        ended = await self._database.submit(carry_out, order)
        await self.tell()
        if ended is not None:
            log.info("%s: %s by %s", order.person_id, order.verb, order.by.actor)
        return ended

    async def tell(self) -> None:
        """Have this replica read at once whose sessions have ended."""
        if self._told is not None:
            with contextlib.suppress(GatewayError):  # it is written: it counts here with the next round
                await self._told()


def carry_out(connection: Connection, batch: list[PersonOrder]) -> list[int | None]:
    """For each the number of sessions that ended; None for somebody who is not there."""
    # In one order at all replicas: two that close the same people would otherwise wait for each other.
    order = sorted(range(len(batch)), key=lambda number: batch[number].person_id)
    answers = {number: _carry_out(connection, batch[number]) for number in order}
    return [answers[number] for number in range(len(batch))]


def _carry_out(connection: Connection, order: PersonOrder) -> int | None:
    mine = is_person() & (persons.c.person_id == order.person_id)
    row = connection.execute(select(persons).where(mine).with_for_update()).one_or_none()
    if row is None or is_recorded(connection, order.by):
        return None if row is None else 0
    disabled_at = {"disable": row.disabled_at or order.now, "enable": None, "revoke": row.disabled_at}[order.verb]
    if disabled_at != row.disabled_at:
        connection.execute(update(persons).where(mine).values(disabled_at=disabled_at))
    ended: list[str] = []
    if order.verb != "enable":
        ended = end_sessions(connection, order.person_id, order.now)
    before = {"disabled_at": row.disabled_at, "sessions": ended}
    after = {"disabled_at": disabled_at, "sessions": []}
    record(connection, Change(order.by, order.now, f"person.{order.verb}", KIND, order.person_id, before, after))
    return len(ended)


def end_sessions(connection: Connection, person_id: str, now: int) -> list[str]:
    """End every session that a person has; their ids. The caller has locked the person's row."""
    mine = select(sessions.c.sid).where(sessions.c.person_id == person_id, sessions.c.ended_at.is_(None))
    ended = list(connection.scalars(mine.order_by(sessions.c.sid)).all())
    for session in ended:
        end_session(connection, session, now)
    return ended


def found(
    connection: Connection, where: ColumnElement[bool], *, after: str = "", most: int | None = None
) -> list[Known]:
    """People in the order of their ids, beginning behind `after`."""
    query = select(persons).where(is_person(), where, persons.c.person_id > after).order_by(persons.c.person_id)
    rows = connection.execute(query.limit(most)).all()
    if len(rows) <= FEW:
        teams = all_teams(connection)
        return [_known(row, memberships(connection, row.person_id, teams)) for row in rows]
    stored = all_memberships(connection)
    return [_known(row, stored.get(row.person_id, stored[""])) for row in rows]


def sessions_of(connection: Connection, person_id: str) -> list[Session]:
    """The devices on which a person is signed in, the latest first."""
    query = select(sessions).where(sessions.c.person_id == person_id, sessions.c.ended_at.is_(None))
    rows = connection.execute(query.order_by(sessions.c.last_exchange.desc(), sessions.c.sid)).all()
    return [Session(row.sid, row.access_key, row.enrolled_at, row.last_exchange) for row in rows]


def is_person() -> ColumnElement[bool]:
    """Not a service key, which has a row among the people."""
    return persons.c.issuer != ISSUER


def means(text: str) -> ColumnElement[bool]:
    """Whom an operator means: by e-mail address, id, or subject at the provider."""
    return or_(persons.c.email == text, persons.c.person_id == text, persons.c.subject == text)


def matches(text: str) -> ColumnElement[bool]:
    """Who is found by a part of their name or address, in whatever case, or by their whole id or subject."""
    part = text.lower()
    likely = [func.lower(column).contains(part, autoescape=True) for column in (persons.c.name, persons.c.email)]
    return or_(*likely, persons.c.person_id == text, persons.c.subject == text)


def is_paid_by(connection: Connection, configured: Sequence[Team], names: Collection[str]) -> ColumnElement[bool]:
    """Whose calls one of the named teams pays for: as `Accounts.team_of` says it, in the database's words.

    The owner's check of every query that a team lead asks.
    """
    chosen: list[ColumnElement[bool]] = []
    earlier: list[ColumnElement[bool]] = []
    for team in configured:
        has = _has(team)
        if team.name in names:
            chosen.append(and_(has, *(not_(each) for each in earlier)))
        earlier.append(has)
    # Of the store's teams that are not configured the first by name, compared as Python compares.
    ordered = collate(teams.c.name, "C") if connection.dialect.name == "postgresql" else teams.c.name
    for name in set(names) - {team.name for team in configured}:
        first = _is_in(teams.c.name == name) & not_(_is_in(ordered < name))
        chosen.append(and_(first, *(not_(each) for each in earlier)))
    return or_(false(), *chosen)


def _has(team: Team) -> ColumnElement[bool]:
    named = [and_(persons.c.email != "", persons.c.email.in_(team.members))] if team.members else []
    return or_(_is_in(teams.c.name == team.name), *(_is_in_group(group) for group in team.groups), *named)


def _is_in_group(group: str) -> ColumnElement[bool]:
    """By the store's directory where that knows the group, else by the last sign-in."""
    of_store = or_(teams.c.name == group, teams.c.external_id == group)
    # Not LIKE, which ignores case in SQLite. A quote within a name is escaped in JSON: the needle is an element whole.
    told = func.replace(persons.c.groups, json.dumps(group), "") != persons.c.groups
    return or_(_is_in(of_store), and_(told, ~exists().where(of_store)))


def _is_in(which: ColumnElement[bool]) -> ColumnElement[bool]:
    mine = (team_members.c.person_id == persons.c.person_id) & (team_members.c.team_id == teams.c.team_id)
    return exists().where(mine, which)


def _known(row: Row[Any], stored: Memberships) -> Known:
    return Known(
        person_id=row.person_id,
        name=row.name,
        email=row.email,
        issuer=row.issuer,
        subject=row.subject,
        groups=groups_of(row.groups),
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        disabled_at=row.disabled_at,
        inactive_at=row.inactive_at,
        stored=stored,
    )
