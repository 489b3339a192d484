"""Roles: who may administer what. From the configuration, and granted at run time, maybe until a day.

What somebody may do is asked of the store at each request, in the transaction of what they do: a role that was taken
away is gone at once, on every replica.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import exists, or_, select, update

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.directory import groups_of
from llmgw_gateway.observe.changes import Author, Change, is_recorded, record
from llmgw_gateway.sections.administering import Role  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.store.schema import persons, role_grants, setup_codes, team_members, teams
from llmgw_gateway.store.upsert import insert_if_absent
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from llmgw_gateway.call import Caller
    from llmgw_gateway.sections.administering import RoleRule
    from llmgw_gateway.store.database import Database

KIND: Final = "role_grant"
"""What a granted role is called in the rows of changes."""
CODE: Final = "setup_code"
CODE_BYTES: Final = 24
log = logging.getLogger("llmgw.identity")


@dataclass(frozen=True, slots=True)
class Standing:
    """Who somebody is, and what they may administer, at one moment."""

    actor: str
    """A `person_id`, or the id of a service key."""
    service: bool
    roles: frozenset[Role]
    teams: frozenset[str]
    """Those that they lead."""

    @property
    def role(self) -> str:
        """The one that says most: what a change is recorded under."""
        for role in ("admin", "auditor", "team_lead"):
            if role in self.roles:
                return role
        return "service" if self.service else "developer"


@dataclass(frozen=True, slots=True)
class RoleGrant:
    """One granted role as the store has it. Times in milliseconds since the epoch."""

    grant_id: str
    holder: str
    role: Role
    team: str
    ends_at: int | None
    made_by: str
    made_at: int
    withdrawn_by: str | None = None
    withdrawn_at: int | None = None


@dataclass(frozen=True, slots=True)
class NewRole:
    """Grant a role."""

    grant: RoleGrant
    by: Author


@dataclass(frozen=True, slots=True)
class RoleEnd:
    """Take a granted role away."""

    grant_id: str
    by: Author
    now: int


@dataclass(frozen=True, slots=True)
class NewCode:
    """A code for the first administrator; those that were made before end."""

    digest: str
    expires_at: int
    by: Author
    now: int


@dataclass(frozen=True, slots=True)
class Redemption:
    """Somebody who has signed in brings a code."""

    digest: str
    grant: RoleGrant
    by: Author


class Roles:
    """Carries out orders in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def give(self, order: NewRole) -> None:
        """Write a grant; GatewayError(NOT_FOUND) when there is no such holder."""
        now = int(self._database.now() * 1000)
        order = replace(order, grant=replace(order.grant, made_at=now, made_by=order.by.actor))
        await self._database.submit(give, order)
        log.info("%s: role %s by %s", order.grant.holder, order.grant.role, order.by.actor)

    async def end(self, order: RoleEnd) -> bool:
        """Take a role away; False when there is none to take."""
        ended = await self._database.submit(end, replace(order, now=int(self._database.now() * 1000)))
        if ended:
            log.info("role grant %s was withdrawn by %s", order.grant_id, order.by.actor)
        return ended

    async def make_code(self, order: NewCode) -> bool:
        """Keep the digest of a code; False when there is an administrator already."""
        now = int(self._database.now() * 1000)
        return await self._database.submit(
            make_code, replace(order, now=now, expires_at=order.expires_at - order.now + now)
        )


def fresh_code() -> tuple[Secret, str]:
    """A code of 192 random bits, and the digest under which it is kept."""
    code = Secret(secrets.token_urlsafe(CODE_BYTES))
    return code, digest_of(code)


def digest_of(code: Secret) -> str:
    """What is kept of a code."""
    return hashlib.sha256(code.reveal().encode("utf-8", "surrogatepass")).hexdigest()


def new_grant(holder: str, role: Role, team: str, ends_at: int | None) -> RoleGrant:
    """A grant that is not written yet."""
    return RoleGrant(f"rol_{secrets.token_hex(12)}", holder, role, team, ends_at, "", 0)


def standing_of(connection: Connection, caller: Caller, rules: Sequence[RoleRule], now: int) -> Standing:
    """What a caller may administer; GatewayError(PERSON_DISABLED) when they were disabled, or have left."""
    person = connection.execute(select(persons).where(persons.c.person_id == caller.person_id)).one_or_none()
    if person is not None and not (person.disabled_at is None and person.inactive_at is None):
        raise GatewayError(
            ErrorCode.PERSON_DISABLED, "Your access to this gateway was withdrawn; ask the platform team."
        )
    held: set[tuple[Role, str]] = set()
    if person is not None and not caller.service:
        groups = _groups(connection, person)
        for rule in rules:
            if rule.issuer in ("", person.issuer) and (
                person.subject in rule.subjects or not groups.isdisjoint(rule.groups)
            ):
                held |= {(rule.role, team) for team in rule.teams or ("",)}
    mine = _in_force(now) & (role_grants.c.holder == caller.person_id)
    held |= {(row.role, row.team) for row in connection.execute(select(role_grants).where(mine))}
    return Standing(
        actor=caller.person_id,
        service=caller.service,
        roles=frozenset(role for role, _ in held),
        teams=frozenset(team for role, team in held if role == "team_lead"),
    )


def _groups(connection: Connection, person: Row[Any]) -> frozenset[str]:
    """Those of the last sign-in, but those that a directory of the same provider has without this person.

    Never a group that only a directory has: whoever may write that, by a key, could make administrators.
    """
    told = groups_of(person.groups) or frozenset()
    named = or_(teams.c.name.in_(told), teams.c.external_id.in_(told))
    mine = (team_members.c.team_id == teams.c.team_id) & (team_members.c.person_id == person.person_id)
    without = select(teams.c.name, teams.c.external_id).where(
        teams.c.home == person.issuer, named, ~exists().where(mine)
    )
    return told - {name for row in connection.execute(without) for name in row}


def grants(
    connection: Connection, where: ColumnElement[bool], *, after: str = "", most: int | None = None
) -> list[RoleGrant]:
    """Granted roles, also those that are over, in the order of their ids."""
    query = select(role_grants).where(where, role_grants.c.grant_id > after).order_by(role_grants.c.grant_id)
    return [RoleGrant(**row) for row in connection.execute(query.limit(most)).mappings()]


def holds_role(connection: Connection, holder: str, now: int) -> bool:
    """Whether a role that was granted to somebody, or to a service key, is in force."""
    granted = select(role_grants.c.grant_id).where(_in_force(now), role_grants.c.holder == holder)
    return connection.execute(granted).first() is not None


def give(connection: Connection, batch: list[NewRole]) -> list[GatewayError | None]:
    """Write grants; one that is there already stays as it is."""
    return [_give(connection, each.grant, each.by) for each in batch]


def _give(connection: Connection, grant: RoleGrant, by: Author) -> GatewayError | None:
    known = select(persons.c.person_id).where(persons.c.person_id == grant.holder)
    if connection.execute(known).first() is None:
        return GatewayError(ErrorCode.NOT_FOUND, "Nobody who has signed in, and no service key, has this id.")
    insert_if_absent(connection, role_grants, asdict(grant))
    after = {"holder": grant.holder, "role": grant.role, "team": grant.team, "ends_at": grant.ends_at}
    record(connection, Change(by, grant.made_at, "role.grant", KIND, grant.grant_id, None, after))
    return None


def end(connection: Connection, batch: list[RoleEnd]) -> list[bool]:
    """False for one that is not there or was withdrawn before. Run again, it answers the same."""
    return [is_recorded(connection, each.by) or _end(connection, each) for each in batch]


def _end(connection: Connection, order: RoleEnd) -> bool:
    mine = (role_grants.c.grant_id == order.grant_id) & role_grants.c.withdrawn_at.is_(None)
    row = connection.execute(select(role_grants).where(mine).with_for_update()).one_or_none()
    if row is None:
        return False
    connection.execute(update(role_grants).where(mine).values(withdrawn_at=order.now, withdrawn_by=order.by.actor))
    before = {"holder": row.holder, "role": row.role, "team": row.team, "ends_at": row.ends_at}
    record(connection, Change(order.by, order.now, "role.revoke", KIND, order.grant_id, before))
    return True


def make_code(connection: Connection, batch: list[NewCode]) -> list[bool]:
    """False where there is an administrator already: they grant further roles."""
    return [_make_code(connection, each) for each in batch]


def _make_code(connection: Connection, order: NewCode) -> bool:
    if _administrator_exists(connection, order.now):
        return False
    former = setup_codes.c.redeemed_at.is_(None) & (setup_codes.c.expires_at > order.now)
    others = former & (setup_codes.c.digest != order.digest)
    connection.execute(update(setup_codes).where(others).values(expires_at=order.now))
    row: dict[str, Any] = {"digest": order.digest, "expires_at": order.expires_at}
    insert_if_absent(connection, setup_codes, row | {"made_by": order.by.actor, "made_at": order.now})
    after = {"expires_at": order.expires_at}
    record(connection, Change(order.by, order.now, "setup_code.create", CODE, order.digest[:12], None, after))
    return True


def redeem(connection: Connection, batch: list[Redemption]) -> list[RoleGrant | GatewayError]:
    """The administrator's role for whoever brings a code that is good; each code once."""
    return [_redeem(connection, each) for each in batch]


def _redeem(connection: Connection, order: Redemption) -> RoleGrant | GatewayError:
    grant, now = order.grant, order.grant.made_at
    if is_recorded(connection, order.by):  # the batch is run again
        return grant
    good = (setup_codes.c.digest == order.digest) & (setup_codes.c.expires_at > now)
    values = {"redeemed_by": grant.holder, "redeemed_at": now}
    used = update(setup_codes).where(good, setup_codes.c.redeemed_at.is_(None)).values(values)
    if _administrator_exists(connection, now) or connection.execute(used).rowcount != 1:
        return GatewayError(
            ErrorCode.ROLE_REQUIRED,
            "This code is not good: it was used, has expired, or there is an administrator already. "
            "`llmgw-gateway init` prints another on the gateway's machine.",
        )
    insert_if_absent(connection, role_grants, asdict(grant))
    after = {"holder": grant.holder, "role": grant.role, "grant": grant.grant_id}
    record(connection, Change(order.by, now, "setup_code.redeem", CODE, order.digest[:12], None, after))
    return grant


def _administrator_exists(connection: Connection, now: int) -> bool:
    granted = select(role_grants.c.grant_id).where(_in_force(now), role_grants.c.role == "admin")
    return connection.execute(granted).first() is not None


def _in_force(now: int) -> ColumnElement[bool]:
    not_over = or_(role_grants.c.ends_at.is_(None), role_grants.c.ends_at > now)
    return role_grants.c.withdrawn_at.is_(None) & not_over
