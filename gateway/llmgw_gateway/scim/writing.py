"""What clients change: one order each, read, decided and written within one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import select

from llmgw_gateway.identity import provisioning
from llmgw_gateway.identity.entries import Group, entry
from llmgw_gateway.identity.matching import folded
from llmgw_gateway.observe.changes import is_recorded
from llmgw_gateway.scim import documents, filters, listing, patching, resources
from llmgw_gateway.scim.attributes import GROUPS, USERS
from llmgw_gateway.scim.refusals import ScimError, invalid_value, not_found
from llmgw_gateway.store.schema import persons, teams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

    from llmgw_gateway.identity.provisioning import Writing

ANY: Final = "*"


class Order(Protocol):
    """A change that was asked for."""

    def __call__(self, connection: Connection) -> dict[str, Any]:
        """Make it, and return the resource as it is afterwards. ScimError before anything was written."""


def carry_out(connection: Connection, batch: list[Order]) -> list[dict[str, Any] | ScimError]:
    """Work of the store's writer."""
    return [_done(connection, order) for order in batch]


def _done(connection: Connection, order: Order) -> dict[str, Any] | ScimError:
    try:
        return order(connection)
    except ScimError as error:
        return error


@dataclass(frozen=True, slots=True)
class _Change:
    writing: Writing
    base: str
    name: str
    """The id of the resource: for a new one the one that it is to have."""
    body: Any = None
    match: str = ""
    """`If-Match`; empty: whatever it is now."""

    def _check_version(self, row: Row[Any]) -> None:
        """A change for another version is refused. One that was made already is run again: it made this one."""
        wanted = {each.strip().removeprefix("W/") for each in self.match.split(",")} - {""}
        if wanted and ANY not in wanted and resources.version(row.changed_at).removeprefix("W/") not in wanted:
            raise ScimError(412, "It was changed meanwhile: read it again.")


@dataclass(frozen=True, slots=True)
class CreateUser(_Change):
    """POST /Users."""

    def __call__(self, connection: Connection) -> dict[str, Any]:
        """The new person, or the one who has signed in already and is meant."""
        said = entry(documents.read(self.body, USERS))
        if not is_recorded(connection, self.writing.by):
            made = provisioning.add_person(connection, self.writing, self.name, said)
            if made is None:
                raise ScimError(409, f"There is a user {said.user_name!r} already.", "uniqueness")
        home = self.writing.home
        mine = (persons.c.home == home) & (persons.c.user_key == folded(said.user_name))
        return listing.users(connection, connection.execute(select(persons).where(mine)).all(), self.base)[0]


@dataclass(frozen=True, slots=True)
class ChangeUser(_Change):
    """PUT and PATCH /Users/{id}."""

    patch: bool = True

    def __call__(self, connection: Connection) -> dict[str, Any]:
        """The person as they are now."""
        row = provisioning.person(connection, self.writing.home, self.name)
        if row is None:
            raise not_found("user", self.name)
        if not is_recorded(connection, self.writing.by):
            self._check_version(row)
            old = resources.user_document(row)
            # A PUT that says nothing of `active` lets nobody in again.
            new = patching.patched(old, self.body, USERS) if self.patch else self._put(old["active"])
            said = entry(new)
            if provisioning.is_taken(connection, self.writing.home, said.user_name, row.person_id):
                raise ScimError(409, f"There is a user {said.user_name!r} already.", "uniqueness")
            row = provisioning.joined(connection, self.writing, row, said)
            provisioning.alter_person(connection, self.writing, row, said)
            row = provisioning.person(connection, self.writing.home, self.name)
        return listing.users(connection, [] if row is None else [row], self.base)[0]

    def _put(self, active: bool) -> dict[str, Any]:  # noqa: FBT001 -- what stays
        return documents.read(self.body, USERS, kept={"active": active})


@dataclass(frozen=True, slots=True)
class DeleteUser(_Change):
    """DELETE /Users/{id}."""

    def __call__(self, connection: Connection) -> dict[str, Any]:
        """Nothing."""
        row = provisioning.person(connection, self.writing.home, self.name)
        if row is not None:
            self._check_version(row)
            provisioning.remove_person(connection, self.writing, row)
        elif not is_recorded(connection, self.writing.by):
            raise not_found("user", self.name)
        return {}


@dataclass(frozen=True, slots=True)
class CreateGroup(_Change):
    """POST /Groups."""

    def __call__(self, connection: Connection) -> dict[str, Any]:
        """The new team."""
        new = documents.read(self.body, GROUPS)
        if not is_recorded(connection, self.writing.by):
            wanted = _members(connection, self.writing.home, new)
            named = Group(new["displayName"], new.get("externalId", ""))
            if provisioning.add_team(connection, self.writing, self.name, named) is None:
                raise ScimError(409, f"There is a group {named.name!r} already.", "uniqueness")
            row = connection.execute(select(teams).where(teams.c.team_id == self.name)).one()
            provisioning.set_members(connection, provisioning.also(self.writing), row, wanted)
        return _shown(connection, self)


@dataclass(frozen=True, slots=True)
class ChangeGroup(_Change):
    """PUT and PATCH /Groups/{id}."""

    patch: bool = True

    def __call__(self, connection: Connection) -> dict[str, Any]:
        """The team as it is now."""
        row = provisioning.team(connection, self.writing.home, self.name)
        if row is None:
            raise not_found("group", self.name)
        if not is_recorded(connection, self.writing.by):
            self._check_version(row)
            had = provisioning.member_ids(connection, self.name)
            old = resources.group_document(row, had)
            new = patching.patched(old, self.body, GROUPS) if self.patch else documents.read(self.body, GROUPS)
            named = Group(new["displayName"], new.get("externalId", ""))
            if provisioning.is_named(connection, named.name, self.name):
                raise ScimError(409, f"There is a group {named.name!r} already.", "uniqueness")
            wanted = _members(connection, self.writing.home, new, had)
            renamed = provisioning.alter_team(connection, self.writing, row, named)
            writing = provisioning.also(self.writing) if renamed else self.writing
            provisioning.set_members(connection, writing, row, wanted)
        return _shown(connection, self, members=not self.patch)  # of a PATCH nobody is told them


@dataclass(frozen=True, slots=True)
class DeleteGroup(_Change):
    """DELETE /Groups/{id}."""

    def __call__(self, connection: Connection) -> dict[str, Any]:
        """Nothing."""
        row = provisioning.team(connection, self.writing.home, self.name)
        if row is not None:
            self._check_version(row)
            provisioning.remove_team(connection, self.writing, row)
        elif not is_recorded(connection, self.writing.by):
            raise not_found("group", self.name)
        return {}


def _members(
    connection: Connection, home: str, document: dict[str, Any], known: Mapping[str, str] | None = None
) -> frozenset[str]:
    """The people whom a team is to have, by our ids; ScimError when one of them is nobody here.

    `known` are those whom it has, by the directory's ids.
    """
    found = dict(known or {})
    wanted = frozenset(each.get("value", "") for each in document.get("members", ()))
    new: Sequence[str] = sorted(wanted - found.keys())
    for start in range(0, len(new), listing.TOGETHER):
        some = new[start : start + listing.TOGETHER]
        found |= provisioning.ids_of(connection, home, [each for each in some if not filters.has_controls(each)])
        if missing := [each for each in some if each not in found]:
            raise invalid_value(f"members: there is no user {missing[0]!r}; only users can be members.")
    return frozenset(found[each] for each in wanted)


def _shown(connection: Connection, change: _Change, *, members: bool = True) -> dict[str, Any]:
    row = connection.execute(select(teams).where(teams.c.team_id == change.name)).one()
    return listing.shown_group(connection, row, change.base, members=members)
