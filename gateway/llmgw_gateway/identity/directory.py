"""Who a `person_id` is, and whose budgets their calls concern: from the one erasable table, remembered briefly."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import select

from llmgw_gateway.errors import StoreAwayError
from llmgw_gateway.store.schema import persons

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.call import Account, Caller
    from llmgw_gateway.store.database import Database

REMEMBER_SECONDS = 30
"""How long a change of groups may take to change the paying team."""
MOST_REMEMBERED = 10_000


class Resolver(Protocol):
    """Policy's part: teams and projects."""

    def resolve(self, caller: Caller, email: str, groups: frozenset[str] | None, project: str) -> Account:
        """The account; an error when the project may not be charged."""


@dataclass(frozen=True, slots=True)
class Person:
    """A person as they may see themselves. Empty texts once the person was erased."""

    name: str = ""
    email: str = ""
    issuer: str = ""
    groups: frozenset[str] | None = frozenset()
    """Of the last sign-in; None: the provider had too many to say."""


class Directory:
    """Looks people up."""

    def __init__(self, database: Database, accounts: Resolver) -> None:
        self._database = database
        self._accounts = accounts
        self._known: OrderedDict[str, tuple[Person, float]] = OrderedDict()

    def follow(self, accounts: Resolver) -> None:
        """Resolve accounts by other teams, projects and policies from now on."""
        self._accounts = accounts

    async def account(self, caller: Caller, project: str) -> Account:
        """Who pays for the caller's request; GatewayError when the project is not theirs to charge."""
        person = await self.person(caller.person_id)
        return self._accounts.resolve(caller, person.email, person.groups, project)

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
            return Person(row.name, row.email, row.issuer, groups_of(row.groups)) if row else Person()

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


def groups_of(text: str) -> frozenset[str] | None:
    """The groups as the store has them; None where the provider did not say."""
    groups = json.loads(text)
    return None if groups is None else frozenset(groups)
