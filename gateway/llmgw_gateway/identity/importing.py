"""People and teams from files: what each line means for what is there, and the lines of a batch in one transaction.

The same decision is made twice: over the whole file before anything is written, so that a bad line can stop it, and
again for each line within its transaction, because the store may have changed since.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import select

from llmgw_gateway.identity import provisioning
from llmgw_gateway.identity.entries import Group, email_of, entry, name_of
from llmgw_gateway.identity.matching import folded
from llmgw_gateway.identity.provisioning import Writing
from llmgw_gateway.observe.changes import Author  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.store.schema import persons, team_members, teams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

    from llmgw_gateway.identity.entries import Entry
    from llmgw_gateway.store.database import Database

What = Literal["created", "changed", "unchanged", "bad"]
TOGETHER: Final = 100
"""Lines in one transaction: calls wait for it as long as for any other."""
ELSEWHERE: Final = "is provisioned by SCIM: change that at the identity provider"


@dataclass(frozen=True, slots=True)
class PersonLine:
    """A line about a person. None: the file has no such column, and what is there stays."""

    number: int
    home: str
    user_name: str
    email: str | None = None
    name: str | None = None
    external_id: str | None = None
    active: bool | None = None
    teams: tuple[str, ...] | None = None
    new_id: str = ""
    """What the person is called, if new."""


@dataclass(frozen=True, slots=True)
class TeamLine:
    """A line about a team."""

    number: int
    home: str
    name: str
    external_id: str | None = None
    new_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line, or would become of it."""

    number: int
    what: What
    why: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines of one file."""

    by: Author
    people: tuple[PersonLine, ...] = ()
    teams: tuple[TeamLine, ...] = ()
    now: int = 0
    """Milliseconds since the epoch: set by whoever writes."""


class Importing:
    """Writes batches in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, batch: Batch) -> list[dict[str, Any]]:
        """The outcome of each line, as a command reads it."""
        stamped = replace(batch, now=int(self._database.now() * 1000))
        outcomes = await self._database.submit(write, stamped)
        return [{"number": each.number, "what": each.what, "why": each.why} for each in outcomes]


@dataclass(frozen=True, slots=True)
class Present:
    """What the store has of the lines' people and teams."""

    people: Mapping[tuple[str, str], Row[Any]]
    """By provider and folded user name."""
    memberships: Mapping[str, frozenset[str]]
    """Names of teams by person."""
    teams: Mapping[str, Row[Any]]
    """By folded name."""


def present(connection: Connection, lines: Sequence[PersonLine | TeamLine] | None = None) -> Present:
    """Read it: of these lines, or all there is."""
    of_people, of_teams = select(persons).where(persons.c.user_key.is_not(None)), select(teams)
    joined = select(team_members.c.person_id, teams.c.name).join(teams, teams.c.team_id == team_members.c.team_id)
    if lines is not None:
        keys = {folded(line.user_name) for line in lines if isinstance(line, PersonLine)}
        of_people = of_people.where(persons.c.user_key.in_(keys)).order_by(persons.c.person_id).with_for_update()
    rows = connection.execute(of_people).all()
    if lines is not None:
        joined = joined.where(team_members.c.person_id.in_([row.person_id for row in rows]))
    found: dict[str, set[str]] = {}
    for person_id, name in connection.execute(joined):
        found.setdefault(person_id, set()).add(name)
    return Present(
        people={(row.home, row.user_key): row for row in rows},
        memberships={person_id: frozenset(names) for person_id, names in found.items()},
        teams={row.name_key: row for row in connection.execute(of_teams)},
    )


def person_outcome(line: PersonLine, known: Present) -> Outcome:
    """What a line about a person comes to."""
    row = known.people.get((line.home, folded(line.user_name)))
    had = known.memberships.get(row.person_id, frozenset()) if row is not None else frozenset()
    wanted = had if line.teams is None else frozenset(line.teams)
    for name in sorted(wanted ^ had):
        team = known.teams.get(folded(name))
        if team is None or team.name != name or team.home != line.home:
            return Outcome(line.number, "bad", f"there is no team {name!r}: import teams first")
        if team.source == "scim":
            return Outcome(line.number, "bad", f"the team {name!r} {ELSEWHERE}")
    if row is None:
        return Outcome(line.number, "created")
    differs = differing(row, said(line, row))
    if differs and row.source == "scim":
        return Outcome(line.number, "bad", f"{line.user_name!r} {ELSEWHERE}")
    differs += ["teams"] if wanted != had else []
    return Outcome(line.number, "changed", ", ".join(differs)) if differs else Outcome(line.number, "unchanged")


def team_outcome(line: TeamLine, known: Present) -> Outcome:
    """What a line about a team comes to."""
    row = known.teams.get(folded(line.name))
    if row is None:
        return Outcome(line.number, "created")
    if row.home != line.home:
        return Outcome(line.number, "bad", f"there is a team {row.name!r} of another provider already")
    group = _group(line, row)
    if (row.name, row.external_id) == (group.name, group.external_id):
        return Outcome(line.number, "unchanged")
    if row.source == "scim":
        return Outcome(line.number, "bad", f"{line.name!r} {ELSEWHERE}")
    return Outcome(line.number, "changed", "name" if row.name != group.name else "external_id")


def said(line: PersonLine, row: Row[Any] | None) -> Entry:
    """What the directory says of a person with this line: the rest of what it said before stays as it came."""
    document: dict[str, Any] = json.loads(row.attributes) if row is not None else {}
    document["active"] = row is None or row.inactive_at is None
    document["userName"] = line.user_name
    if line.email is not None and line.email != email_of(document):
        document["emails"] = [{"value": line.email, "type": "work", "primary": True}] if line.email else []
    if line.name is not None and line.name != name_of(document):
        document |= {"displayName": line.name, "name": {}}
    if line.external_id is not None:
        document["externalId"] = line.external_id
    if line.active is not None:
        document["active"] = line.active
    return entry({name: value for name, value in document.items() if value not in ("", [], {})})


def differing(row: Row[Any], new: Entry) -> list[str]:
    """Which columns of a file differ from what is there."""
    old = json.loads(row.attributes)
    pairs = {
        "user_name": (row.user_name, new.user_name),
        "email": (email_of(old), new.email),
        "name": (name_of(old), new.name),
        "external_id": (row.external_id, new.external_id),
        "active": (row.inactive_at is None, new.active),
    }
    return [name for name, (before, after) in pairs.items() if before != after]


def write(connection: Connection, batch: list[Batch]) -> list[list[Outcome]]:
    """Work of the store's writer."""
    return [_write(connection, each) for each in batch]


def _write(connection: Connection, batch: Batch) -> list[Outcome]:
    known = present(connection, [*batch.people, *batch.teams])
    outcomes = [_write_team(connection, batch, line, known) for line in batch.teams]
    return outcomes + _write_people(connection, batch, known)


def _writing(batch: Batch, line: PersonLine | TeamLine) -> Writing:
    by = replace(batch.by, change_id=f"{batch.by.change_id}-{line.number}")
    return Writing(by, "csv", line.home, batch.now)


def _write_team(connection: Connection, batch: Batch, line: TeamLine, known: Present) -> Outcome:
    outcome, writing = team_outcome(line, known), _writing(batch, line)
    row = known.teams.get(folded(line.name))
    if outcome.what == "created":
        provisioning.add_team(connection, writing, line.new_id, _group(line, None))
    elif outcome.what == "changed" and row is not None:
        provisioning.alter_team(connection, writing, row, _group(line, row))
    return outcome


def _write_people(connection: Connection, batch: Batch, known: Present) -> list[Outcome]:
    """New people together, changed ones each by itself, then everybody's teams together."""
    outcomes = {line: person_outcome(line, known) for line in batch.people}
    new = [line for line, outcome in outcomes.items() if outcome.what == "created"]
    added = provisioning.add_people(
        connection, [(_writing(batch, line), line.new_id, said(line, None)) for line in new]
    )
    moves = []
    for line, outcome in outcomes.items():
        row = known.people.get((line.home, folded(line.user_name)))
        if outcome.what == "changed" and row is not None and differing(row, entry := said(line, row)):
            provisioning.alter_person(connection, _writing(batch, line), row, entry)
        person_id = added.get(line.new_id, "") if row is None else row.person_id
        if outcome.what == "created" and not person_id:
            outcomes[line] = Outcome(line.number, "bad", "somebody else was given this user name just now")
        elif outcome.what in {"created", "changed"} and line.teams is not None:
            had, wanted = known.memberships.get(person_id, frozenset()), frozenset(line.teams)
            if had != wanted:
                ids = [frozenset(known.teams[folded(name)].team_id for name in names) for names in (had, wanted)]
                moves.append((provisioning.also(_writing(batch, line), "t"), person_id, ids[0], ids[1]))
    provisioning.set_teams(connection, moves, batch.now)
    return list(outcomes.values())


def _group(line: TeamLine, row: Row[Any] | None) -> Group:
    old = "" if row is None else row.external_id
    return Group(line.name, old if line.external_id is None else line.external_id)
