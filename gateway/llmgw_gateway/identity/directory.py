"""Who a `person_id` is, and whose budgets their calls concern: from the one erasable table, remembered briefly."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace
from sqlalchemy import select

from llmgw_gateway.call import NO_MEMBERSHIPS, Memberships
from llmgw_gateway.errors import StoreAwayError
from llmgw_gateway.identity.matching import DIRECTORY
from llmgw_gateway.store.schema import persons, team_members, teams

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from llmgw_gateway.call import Account, Caller
    from llmgw_gateway.store.database import Database

REMEMBER_SECONDS = 30
"""How long a change of groups may take to change the paying team."""
TEAMS_SECONDS = 2
"""How long a new team of the store may stay unknown."""
MOST_REMEMBERED = 10_000


class Resolver(Protocol):
    """Policy's part: teams and projects."""

    def resolve(
        self, caller: Caller, email: str, groups: frozenset[str] | None, project: str, stored: Memberships = ...
    ) -> Account:
        """The account; an error when the project may not be charged."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person as they may see themselves. Empty texts once the person was erased."""

    name: str = ""
    email: str = ""
    issuer: str = ""
    groups: frozenset[str] | None = frozenset()
    """Of the last sign-in; None: the provider had too many to say."""
    stored: Memberships = NO_MEMBERSHIPS
    """What the store's directory says."""


class Directory:
    """Looks people up."""

    def __init__(self, database: Database, accounts: Resolver) -> None:
        self._database = database
        self._accounts = accounts
        self._stored: tuple[Memberships, float] = NO_MEMBERSHIPS, 0.0
        """The teams that there are, and until when that is not asked again."""
        self._known: OrderedDict[str, tuple[Person, float]] = OrderedDict()
        self._resolved: dict[tuple[Caller, str], tuple[Person, Account]] = {}
        """Whose account a caller's is with a project, as long as the person is known as the same."""

    def follow(self, accounts: Resolver) -> None:
        """Resolve accounts by other teams, projects and policies from now on."""
        self._accounts = accounts
        self._resolved.clear()

    async def account(self, caller: Caller, project: str) -> Account:
        """Who pays for the caller's request; GatewayError when the project is not theirs to charge."""
        person = await self.person(caller.person_id)
        known = self._resolved.get((caller, project))
        if known is not None and known[0] is person:
            return known[1]
        account = self._accounts.resolve(caller, person.email, person.groups, project, person.stored)
        if len(self._resolved) >= MOST_REMEMBERED:
            self._resolved.clear()
        self._resolved[caller, project] = person, account
        return account

    def forget(self, person_id: str) -> None:
        """Somebody has signed in again: what the provider says of them now counts here at once."""
        self._known.pop(person_id, None)

    async def person(self, person_id: str) -> Person:
        """The person, or an empty one."""
        known = self._known.get(person_id)
        if known is not None and time.monotonic() < known[1]:
            return known[0]

        def query(connection: Connection) -> Person:
            row = connection.execute(select(persons).where(persons.c.person_id == person_id)).one_or_none()
            stored = memberships(connection, person_id, self._all_teams(connection))
            issuer = "" if row is None or row.issuer == DIRECTORY else row.issuer
            return Person(row.name, row.email, issuer, groups_of(row.groups), stored) if row else Person(stored=stored)

        try:
            person = await self._database.read(query)
        except StoreAwayError:
            if known is None:
                raise
            person = known[0]  # as last seen: whether the call is admitted without the store, its budgets say
        self._known[person_id] = (person, time.monotonic() + REMEMBER_SECONDS)
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
        return person

    def _all_teams(self, connection: Connection) -> Memberships:
        """Called by the store's reader only, one thread."""
        if time.monotonic() >= self._stored[1]:
            self._stored = all_teams(connection), time.monotonic() + TEAMS_SECONDS
        return self._stored[0]


def all_teams(connection: Connection) -> Memberships:
    """Every team of the store, and nobody in it."""
    rows = connection.execute(select(teams.c.name, teams.c.external_id)).all()
    return Memberships(known_teams=frozenset(row.name for row in rows), known_groups=_called(rows))


def memberships(connection: Connection, person_id: str, known: Memberships) -> Memberships:
    """Somebody's, among the known ones."""
    mine = team_members.c.person_id == person_id
    query = select(teams.c.name, teams.c.external_id).join(team_members, teams.c.team_id == team_members.c.team_id)
    rows = connection.execute(query.where(mine).order_by(teams.c.name)).all()
    return replace(known, teams=tuple(row.name for row in rows), groups=_called(rows))


def all_memberships(connection: Connection) -> dict[str, Memberships]:
    """Everybody's who has any; under the empty name that of the others."""
    known = all_teams(connection)
    query = select(team_members.c.person_id, teams.c.name, teams.c.external_id)
    found: dict[str, list[tuple[str, str]]] = {}
    for row in connection.execute(query.join(teams, teams.c.team_id == team_members.c.team_id)):
        found.setdefault(row.person_id, []).append((row.name, row.external_id))
    everybody = {
        person_id: replace(known, teams=tuple(sorted(name for name, _ in rows)), groups=_called(rows))
        for person_id, rows in found.items()
    }
    return everybody | {"": known}


def _called(rows: Iterable[Sequence[str]]) -> frozenset[str]:
    return frozenset(name for row in rows for name in row if name)


def groups_of(text: str) -> frozenset[str] | None:
    """The groups as the store has them; None where the provider did not say."""
    groups = json.loads(text)
    return None if groups is None else frozenset(groups)
