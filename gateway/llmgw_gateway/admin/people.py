"""People and teams: who is known, who is in which team, and taking access away from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from llmgw_gateway.admin.asking import ADMIN, READERS, Document, Line, Nothing, Page, Route, missing, time_text
from llmgw_gateway.identity.directory import all_teams
from llmgw_gateway.identity.people import (
    KIND,
    Known,
    PersonOrder,
    carry_out,
    found,
    is_paid_by,
    matches,
    sessions_of,
)
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.store.schema import persons

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.admin.asking import Asking
    from llmgw_gateway.identity.people import Verb


class Person(Document, frozen=True):
    """One person."""

    person: str
    name: str
    email: str
    issuer: str
    subject: str
    groups: tuple[str, ...] | None
    """Of the last sign-in; null: the provider had too many to say."""
    team: str
    """Which team pays for their calls; empty: none."""
    first_seen: str
    last_seen: str
    disabled_at: str | None
    left_at: str | None
    """Since when a directory says that they have left."""


class DeviceSession(Document, frozen=True):
    """A device on which somebody is signed in."""

    session: str
    access_key: str
    since: str
    last_exchange: str


class PersonShown(Document, frozen=True):
    """One person with their devices."""

    person: Person
    sessions: tuple[DeviceSession, ...]


class People(Document, frozen=True):
    """A page of people."""

    people: tuple[Person, ...]
    next: str | None
    """The cursor of the next page; null: this is the last one."""


class PeopleQuery(Page, frozen=True):
    """Which people."""

    search: Line = ""
    """A part of the name or address, or the whole id or subject."""
    team: Line = ""
    """Only whose calls this team pays for."""


class SessionsEnded(Document, frozen=True):
    """What became of an order."""

    person: str
    disabled: bool
    sessions_ended: int


class TeamShown(Document, frozen=True):
    """One team."""

    team: str
    configured: bool
    """Whether the configuration has it; else a directory."""
    groups: tuple[str, ...]
    """Of the identity provider, by which people come into it."""


class Teams(Document, frozen=True):
    """All teams that may be seen."""

    teams: tuple[TeamShown, ...]


class Members(Document, frozen=True):
    """A page of whom one team pays for."""

    team: TeamShown
    members: tuple[Person, ...]
    next: str | None


def list_people(asking: Asking, connection: Connection, query: PeopleQuery) -> People:
    """Answer with a page."""
    where = asking.visible_people(connection)
    if query.search:
        where &= matches(query.search)
    if query.team:
        where &= is_paid_by(connection, asking.settings.teams, [query.team])
    people = found(connection, where, after=query.cursor, most=query.limit + 1)
    shown, behind = people[: query.limit], people[query.limit :]
    following = shown[-1].person_id if behind else None
    return People(people=tuple(_person(asking, each) for each in shown), next=following)


def show_person(asking: Asking, connection: Connection, _query: Nothing) -> PersonShown:
    """Answer with one."""
    mine = persons.c.person_id == asking.places["person"]
    people = found(connection, asking.visible_people(connection) & mine)
    if not people:
        raise missing("person")
    devices = sessions_of(connection, people[0].person_id)
    return PersonShown(
        person=_person(asking, people[0]),
        sessions=tuple(
            DeviceSession(
                session=each.session,
                access_key=each.access_key,
                since=time_text(each.enrolled_at),
                last_exchange=time_text(each.last_exchange),
            )
            for each in devices
        ),
    )


def disable(asking: Asking, connection: Connection, _body: Nothing) -> SessionsEnded:
    """Refuse somebody, and end their sessions."""
    return _order(asking, connection, "disable")


def enable(asking: Asking, connection: Connection, _body: Nothing) -> SessionsEnded:
    """Let somebody sign in again."""
    return _order(asking, connection, "enable")


def revoke(asking: Asking, connection: Connection, _body: Nothing) -> SessionsEnded:
    """End somebody's sessions."""
    return _order(asking, connection, "revoke")


def _order(asking: Asking, connection: Connection, verb: Verb) -> SessionsEnded:
    person = asking.places["person"]
    ended = carry_out(connection, [PersonOrder(verb, person, asking.by, asking.now)])[0]
    if ended is None:
        raise missing("person")
    disabled = connection.scalar(select(persons.c.disabled_at).where(persons.c.person_id == person)) is not None
    return SessionsEnded(person=person, disabled=disabled, sessions_ended=ended)


def list_teams(asking: Asking, connection: Connection, _query: Nothing) -> Teams:
    """Answer with all, or those that the caller leads."""
    return Teams(teams=tuple(_teams(asking, connection)))


def show_team(asking: Asking, connection: Connection, query: Page) -> Members:
    """Answer with a page of its members."""
    team = next((each for each in _teams(asking, connection) if each.team == asking.places["team"]), None)
    if team is None:
        raise missing("team")
    where = is_paid_by(connection, asking.settings.teams, [team.team])
    people = found(connection, where, after=query.cursor, most=query.limit + 1)
    shown = people[: query.limit]
    following = shown[-1].person_id if people[query.limit :] else None
    return Members(team=team, members=tuple(_person(asking, each) for each in shown), next=following)


def _teams(asking: Asking, connection: Connection) -> list[TeamShown]:
    configured = {team.name: team.groups for team in asking.settings.teams}
    names = sorted(configured.keys() | all_teams(connection).known_teams)
    return [
        TeamShown(team=name, configured=name in configured, groups=configured.get(name, ()))
        for name in names
        if asking.teams is None or name in asking.teams
    ]


def _person(asking: Asking, each: Known) -> Person:
    accounts = Accounts(asking.settings.teams, asking.settings.projects)
    return Person(
        person=each.person_id,
        name=each.name,
        email=each.email,
        issuer=each.issuer,
        subject=each.subject,
        groups=None if each.groups is None else tuple(sorted(each.groups)),
        team=accounts.team_of(each.email, each.groups, each.stored),
        first_seen=time_text(each.first_seen),
        last_seen=time_text(each.last_seen),
        disabled_at=None if each.disabled_at is None else time_text(each.disabled_at),
        left_at=None if each.inactive_at is None else time_text(each.inactive_at),
    )


_ONE: Final = "/admin/v1/people/{person}"
ROUTES: Final = (
    Route("GET", "/admin/v1/people", "people.list", "Find people.", READERS, list_people, People, PeopleQuery, KIND),
    Route("GET", _ONE, "person.show", "One person with their devices.", READERS, show_person, PersonShown, kind=KIND),
    Route(
        "POST", f"{_ONE}/disable", "person.disable", "Refuse somebody from now on, and end every session they have.",
        ADMIN, disable, SessionsEnded, kind=KIND,
    ),
    Route(
        "POST", f"{_ONE}/enable", "person.enable", "Let somebody sign in again.",
        ADMIN, enable, SessionsEnded, kind=KIND,
    ),
    Route(
        "POST", f"{_ONE}/revoke", "person.revoke", "End every session of somebody.",
        ADMIN, revoke, SessionsEnded, kind=KIND,
    ),
    Route("GET", "/admin/v1/teams", "teams.list", "The teams.", READERS, list_teams, Teams, kind="team"),
    Route(
        "GET", "/admin/v1/teams/{team}", "team.show", "One team, and for whom it pays.",
        READERS, show_team, Members, Page, "team",
    ),
)  # fmt: skip
