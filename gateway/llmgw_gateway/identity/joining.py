"""Two rows of one person become one: who has signed in, and the entry of a directory that was found to be theirs late.

A sign-in may come before anything certain links it to its entry: an address that the provider does not vouch for yet,
an `externalId` that is mapped wrongly at first. Left as they are, the directory could never put that person out: its
`active: false` would reach a row as which nobody signs in. The ledger knows the person by the id of the row that has
signed in, so that row stays; the directory goes on calling them by the id that it was given (`persons.directory_id`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select, update

from llmgw_gateway.identity.matching import DIRECTORY, folded
from llmgw_gateway.identity.people import end_sessions
from llmgw_gateway.observe.changes import Change, record
from llmgw_gateway.store.schema import persons, role_grants, team_members
from llmgw_gateway.store.upsert import insert_if_absent

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

    from llmgw_gateway.observe.changes import Author

DIRECTORY_ID: ColumnElement[str] = func.coalesce(persons.c.directory_id, persons.c.person_id)
"""By which id a directory knows somebody."""
_MOVED = ("home", "source", "user_name", "user_key", "external_id", "attributes", "inactive_at")


def is_called(directory_id: str) -> ColumnElement[bool]:
    """Whom a directory means by an id."""
    own = (persons.c.person_id == directory_id) & persons.c.directory_id.is_(None)
    return own | (persons.c.directory_id == directory_id)


def join(connection: Connection, entry: Row[Any], person: Row[Any], by: Author, now: int) -> Row[Any]:
    """Give a person the entry that is theirs, with its teams and roles; both rows are locked. The row as it is then.

    Whom the directory has put out is out with the same transaction.
    """
    if entry.issuer != DIRECTORY or person.user_key is not None:
        raise ValueError("only an entry that nobody has taken is joined, with somebody who is in no directory")
    theirs = team_members.c.person_id == entry.person_id
    teams = connection.scalars(select(team_members.c.team_id).where(theirs)).all()
    connection.execute(delete(team_members).where(theirs))
    connection.execute(delete(persons).where(persons.c.person_id == entry.person_id))
    values: dict[str, Any] = {name: getattr(entry, name) for name in _MOVED}
    values |= {"name": entry.name or person.name, "email": entry.email or person.email}
    values |= {"email_key": folded(values["email"]), "directory_id": entry.directory_id or entry.person_id}
    values |= {"disabled_at": person.disabled_at or entry.disabled_at}
    values |= {"changed_at": max(now, entry.changed_at + 1, person.changed_at + 1)}
    mine = persons.c.person_id == person.person_id
    connection.execute(update(persons).where(mine).values(values))
    if teams:
        rows = [{"team_id": each, "person_id": person.person_id} for each in teams]
        insert_if_absent(connection, team_members, rows)
    held = role_grants.c.holder == entry.person_id
    connection.execute(update(role_grants).where(held).values(holder=person.person_id))
    if values["inactive_at"] is not None or values["disabled_at"] is not None:
        end_sessions(connection, person.person_id, now)
    before, after = {"entry": entry.person_id}, {"active": entry.inactive_at is None}
    record(connection, Change(by, now, "person.join", "person", person.person_id, before, after))
    return connection.execute(select(persons).where(mine)).one()
