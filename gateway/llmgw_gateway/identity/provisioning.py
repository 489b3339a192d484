"""What directories write: people before their first sign-in, who has left, teams with their members.

Each function is a part of its caller's transaction and writes a row into `changes` beside each change. Those rows name
nobody: they say which attributes changed, never to what.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import case, delete, select, update

from llmgw_gateway.identity.joining import DIRECTORY_ID, is_called, join
from llmgw_gateway.identity.matching import DIRECTORY, folded, person_of, subjects
from llmgw_gateway.identity.people import end_sessions
from llmgw_gateway.observe.changes import Change, record, record_all
from llmgw_gateway.store.schema import persons, team_members, teams
from llmgw_gateway.store.upsert import insert_if_absent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from llmgw_gateway.identity.entries import Entry, Group, Source
    from llmgw_gateway.observe.changes import Author

_TOLD: Final = ("user_name", "external_id", "email", "name", "attributes")


@dataclass(frozen=True, slots=True)
class Writing:
    """Who writes what kind of directory."""

    by: Author
    source: Source
    home: str
    """The provider whose directory it is: nobody else's people are seen or touched."""
    now: int
    """Milliseconds since the epoch, by the store's clock."""


def also(writing: Writing, what: str = "also") -> Writing:
    """For a further change that belongs to the same order: it has a row of its own."""
    return replace(writing, by=replace(writing.by, change_id=f"{writing.by.change_id}-{what}"))


def new_person_id() -> str:
    """As everywhere."""
    return f"per_{secrets.token_hex(12)}"


def new_team_id() -> str:
    """A team that is not configured has an id of its own: its name may change."""
    return f"tem_{secrets.token_hex(12)}"


def person(connection: Connection, home: str, directory_id: str) -> Row[Any] | None:
    """Somebody in this directory, by the id that it knows them by, locked against other writers."""
    mine = is_called(directory_id) & (persons.c.home == home) & persons.c.user_key.is_not(None)
    return connection.execute(select(persons).where(mine).with_for_update()).one_or_none()


def is_taken(connection: Connection, home: str, user_name: str, person_id: str = "") -> bool:
    """Whether somebody else has the user name."""
    theirs = (persons.c.home == home) & (persons.c.user_key == folded(user_name)) & (persons.c.person_id != person_id)
    return connection.execute(select(persons.c.person_id).where(theirs)).first() is not None


def add_person(connection: Connection, writing: Writing, person_id: str, entry: Entry) -> str | None:
    """Put somebody into the directory: whoever has signed in already and is meant, or else a new person of this id.

    Returns the person's id; None when the user name is taken.
    """
    if is_taken(connection, writing.home, entry.user_name):
        return None
    signed_in = _signed_in(connection, writing.home, entry)
    if signed_in is not None:
        alter_person(connection, writing, signed_in, entry)
        return str(signed_in.person_id)
    if not insert_if_absent(connection, persons, _new_row(writing, person_id, entry)):
        return None
    record(connection, _added(writing, person_id, entry))
    return person_id


def add_people(connection: Connection, people: Sequence[tuple[Writing, str, Entry]]) -> dict[str, str]:
    """The same for many, with few statements: their ids by the ids that they were to have; not there: taken."""
    meant = _any_signed_in(connection, people)
    alone = [each for each in people if _may_be_meant(each[0].home, each[2], meant)]
    together = [each for each in people if each not in alone]
    found = {new: name for writing, new, entry in alone if (name := add_person(connection, writing, new, entry))}
    if together:
        insert_if_absent(connection, persons, [_new_row(*each) for each in together])
        wanted = [new for _, new, _ in together]
        there = frozenset(connection.scalars(select(persons.c.person_id).where(persons.c.person_id.in_(wanted))))
        record_all(connection, [_added(*each) for each in together if each[1] in there])
        found |= {new: new for new in wanted if new in there}
    return found


def _new_row(writing: Writing, person_id: str, entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"person_id": person_id, "issuer": DIRECTORY, "subject": person_id, "home": writing.home}
    row |= _columns(entry) | {"name": entry.name, "email": entry.email, "email_key": folded(entry.email)}
    row |= {"source": writing.source, "first_seen": writing.now, "last_seen": 0, "changed_at": writing.now}
    return row | {"inactive_at": None if entry.active else writing.now}


def _added(writing: Writing, person_id: str, entry: Entry) -> Change:
    return Change(writing.by, writing.now, "person.add", "person", person_id, None, {"active": entry.active})


def alter_person(connection: Connection, writing: Writing, row: Row[Any], entry: Entry) -> bool:
    """Write down what the directory says now; False when that is what it said before.

    Whoever becomes inactive is out: their sessions end with the same transaction.
    """
    new = _columns(entry)
    # Where the directory does not say, what the provider said at the last sign-in stays.
    new |= {"name": entry.name or row.name, "email": entry.email or row.email}
    changed = {name: value for name, value in new.items() if getattr(row, name) != value}
    was_active = row.inactive_at is None
    if was_active != entry.active:
        changed["inactive_at"] = None if entry.active else writing.now
    if not changed and row.source == writing.source:
        return False
    values = changed | {"source": writing.source, "home": writing.home, "email_key": folded(new["email"])}
    values["changed_at"] = max(writing.now, row.changed_at + 1)
    connection.execute(update(persons).where(persons.c.person_id == row.person_id).values(values))
    if not entry.active:
        end_sessions(connection, row.person_id, writing.now)
    before: dict[str, Any] = {"source": row.source, "active": was_active}
    told = sorted(name for name in changed if name in _TOLD)
    after = {"source": writing.source, "active": entry.active} | ({"changed": told} if told else {})
    _record(connection, writing, _action(was_active, entry.active), "person", row.person_id, before, after)
    return True


def joined(connection: Connection, writing: Writing, row: Row[Any], entry: Entry) -> Row[Any]:
    """The row that a change of an entry is about: that of the person who signs in as another row until now.

    That is so where what the directory says from now on makes certain who is meant.
    """
    signed_in = _signed_in(connection, writing.home, entry) if row.issuer == DIRECTORY else None
    if signed_in is None:
        return row
    return join(connection, row, signed_in, also(writing, "join").by, writing.now)


def remove_person(connection: Connection, writing: Writing, row: Row[Any]) -> None:
    """Take somebody out of the directory, and let nobody in as them until it has them again.

    Whoever has signed in stays a row: the ledger knows them by its id.
    """
    mine = persons.c.person_id == row.person_id
    connection.execute(delete(team_members).where(team_members.c.person_id == row.person_id))
    if row.issuer == DIRECTORY:
        connection.execute(delete(persons).where(mine))
    else:
        left = {"inactive_at": row.inactive_at or writing.now, "user_key": None, "source": "", "attributes": "{}"}
        left |= {"directory_id": None}
        connection.execute(update(persons).where(mine).values(left | {"changed_at": writing.now}))
        end_sessions(connection, row.person_id, writing.now)
    _record(connection, writing, "person.remove", "person", row.person_id, {"active": row.inactive_at is None}, None)


def team(connection: Connection, home: str, team_id: str) -> Row[Any] | None:
    """A team of this directory, locked against other writers."""
    mine = (teams.c.team_id == team_id) & (teams.c.home == home)
    return connection.execute(select(teams).where(mine).with_for_update()).one_or_none()


def is_named(connection: Connection, name: str, team_id: str = "") -> bool:
    """Whether another team is called so: budgets and policies know teams by their names."""
    other = (teams.c.name_key == folded(name)) & (teams.c.team_id != team_id)
    return connection.execute(select(teams.c.team_id).where(other)).first() is not None


def add_team(connection: Connection, writing: Writing, team_id: str, group: Group) -> str | None:
    """A new team; None when its name is taken."""
    row = {"team_id": team_id, "home": writing.home, "source": writing.source, "name": group.name}
    row |= {"name_key": folded(group.name), "external_id": group.external_id}
    if not insert_if_absent(connection, teams, row | {"made_at": writing.now, "changed_at": writing.now}):
        return None
    _record(connection, writing, "team.add", "team", team_id, None, {"name": group.name})
    return team_id


def alter_team(connection: Connection, writing: Writing, row: Row[Any], group: Group) -> bool:
    """Write down what a team is called now; False when nothing changed."""
    if (row.name, row.external_id, row.source) == (group.name, group.external_id, writing.source):
        return False
    values = {"name": group.name, "name_key": folded(group.name), "external_id": group.external_id}
    values["source"] = writing.source
    _touch(connection, writing, row, values)
    before, after = {"name": row.name, "source": row.source}, {"name": group.name, "source": writing.source}
    _record(connection, writing, "team.change", "team", row.team_id, before, after)
    return True


def remove_team(connection: Connection, writing: Writing, row: Row[Any]) -> None:
    """A team without which its members go on."""
    connection.execute(delete(team_members).where(team_members.c.team_id == row.team_id))
    connection.execute(delete(teams).where(teams.c.team_id == row.team_id))
    _record(connection, writing, "team.remove", "team", row.team_id, {"name": row.name}, None)


def member_ids(connection: Connection, team_id: str) -> dict[str, str]:
    """Who is in a team: their ids by those that the directory knows them by."""
    query = select(DIRECTORY_ID, persons.c.person_id).join(
        team_members, team_members.c.person_id == persons.c.person_id
    )
    rows = connection.execute(query.where(team_members.c.team_id == team_id))
    return {row[0]: row[1] for row in rows}


def ids_of(connection: Connection, home: str, directory_ids: Sequence[str]) -> dict[str, str]:
    """The ids of people of a directory by those that it knows them by."""
    mine = (persons.c.home == home) & persons.c.user_key.is_not(None) & DIRECTORY_ID.in_(directory_ids)
    rows = connection.execute(select(DIRECTORY_ID, persons.c.person_id).where(mine))
    return {row[0]: row[1] for row in rows}


def members(connection: Connection, team_id: str) -> frozenset[str]:
    """Who is in a team."""
    query = select(team_members.c.person_id).where(team_members.c.team_id == team_id)
    return frozenset(connection.scalars(query))


def set_members(connection: Connection, writing: Writing, row: Row[Any], wanted: Collection[str]) -> bool:
    """Let a team have these members, all of them people of the directory; False when it had."""
    had = members(connection, row.team_id)
    added, removed = sorted(frozenset(wanted) - had), sorted(had - frozenset(wanted))
    if not (added or removed):
        return False
    if added:
        rows = [{"team_id": row.team_id, "person_id": each} for each in added]
        insert_if_absent(connection, team_members, rows)
    for start in range(0, len(removed), 500):
        some = team_members.c.person_id.in_(removed[start : start + 500])
        connection.execute(delete(team_members).where(team_members.c.team_id == row.team_id, some))
    _touch(connection, writing, row, {"source": writing.source})
    _record(connection, writing, "team.members", "team", row.team_id, {"removed": removed}, {"added": added})
    return True


def set_teams(
    connection: Connection, changes: Sequence[tuple[Writing, str, frozenset[str], frozenset[str]]], now: int
) -> None:
    """Let people leave teams and join others: for each who writes, the person, the teams they had and are to have."""
    joined = [(team_id, who) for _, who, had, wanted in changes for team_id in sorted(wanted - had)]
    left = [(team_id, who) for _, who, had, wanted in changes for team_id in sorted(had - wanted)]
    if joined:
        insert_if_absent(connection, team_members, [{"team_id": each, "person_id": who} for each, who in joined])
    for team_id, who in left:
        theirs = (team_members.c.person_id == who) & (team_members.c.team_id == team_id)
        connection.execute(delete(team_members).where(theirs))
    made = [
        Change(
            *(writing.by, writing.now, "person.teams", "person", who),
            {"left": sorted(had - wanted)},
            {"joined": sorted(wanted - had)},
        )
        for writing, who, had, wanted in changes
    ]
    record_all(connection, made)
    _touch_all(connection, {team_id for team_id, _ in joined + left}, now)


def _touch_all(connection: Connection, team_ids: Collection[str], now: int) -> None:
    """Give teams another version, because their members are others."""
    if team_ids:
        later = case((teams.c.changed_at >= now, teams.c.changed_at + 1), else_=now)
        connection.execute(update(teams).where(teams.c.team_id.in_(sorted(team_ids))).values(changed_at=later))


def _touch(connection: Connection, writing: Writing, row: Row[Any], values: Mapping[str, Any]) -> None:
    stamped = dict(values) | {"changed_at": max(writing.now, row.changed_at + 1)}
    connection.execute(update(teams).where(teams.c.team_id == row.team_id).values(stamped))


def _signed_in(connection: Connection, home: str, entry: Entry) -> Row[Any] | None:
    """Whoever has signed in at this provider, is in no directory, and is meant by an entry."""
    keys = _keys(entry)
    means = persons.c.email_key.in_(keys) | persons.c.subject.in_(subjects(home, entry.external_id))
    if entry.external_id:
        means |= persons.c.external_id == entry.external_id
    theirs = (persons.c.issuer == home) & persons.c.user_key.is_(None) & means
    rows = connection.execute(select(persons).where(theirs).order_by(persons.c.person_id).with_for_update()).all()
    found = person_of(rows, home, entry.external_id, keys)
    return next((row for row in rows if found is row), None)


def _any_signed_in(connection: Connection, people: Sequence[tuple[Writing, str, Entry]]) -> Sequence[Row[Any]]:
    """Whoever could be meant by some of these entries."""
    keys = {key for _, _, entry in people for key in _keys(entry)}
    own = {name for writing, _, entry in people for name in subjects(writing.home, entry.external_id)}
    ids = {entry.external_id for _, _, entry in people} - {""}
    means = persons.c.email_key.in_(keys) | persons.c.subject.in_(own) | persons.c.external_id.in_(ids)
    homes = {writing.home for writing, _, _ in people}
    theirs = persons.c.issuer.in_(homes) & persons.c.user_key.is_(None) & means
    return connection.execute(select(persons).where(theirs)).all()


def _may_be_meant(home: str, entry: Entry, rows: Sequence[Row[Any]]) -> bool:
    keys, own = _keys(entry), subjects(home, entry.external_id)
    return any(
        row.issuer == home
        and (row.email_key in keys or row.subject in own or (row.external_id and row.external_id == entry.external_id))
        for row in rows
    )


def _keys(entry: Entry) -> frozenset[str]:
    return frozenset({folded(entry.user_name), folded(entry.email)}) - {""}


def _columns(entry: Entry) -> dict[str, Any]:
    return {
        "user_name": entry.user_name,
        "user_key": folded(entry.user_name),
        "external_id": entry.external_id,
        "attributes": entry.attributes,
    }


def _action(was_active: bool, active: bool) -> str:  # noqa: FBT001 -- two states of one thing
    if was_active == active:
        return "person.change"
    return "person.activate" if active else "person.deactivate"


def _record(
    connection: Connection,
    writing: Writing,
    action: str,
    kind: str,
    name: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    record(connection, Change(writing.by, writing.now, action, kind, name, before, after))
