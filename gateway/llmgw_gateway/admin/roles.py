"""Roles: who administers, granting and taking away, and the code of the first administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta
from sqlalchemy import true

from llmgw_gateway.admin.asking import (
    ADMIN,
    ALL_SEEING,
    ANYBODY,
    Document,
    Id,
    Line,
    Nothing,
    Page,
    Route,
    missing,
    time_text,
)
from llmgw_gateway.admin.moments import Moment, milliseconds
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.directory import all_teams
from llmgw_gateway.identity.roles import (
    CODE,
    KIND,
    NewRole,
    Redemption,
    RoleEnd,
    RoleGrant,
    digest_of,
    end,
    give,
    grants,
    redeem,
)
from llmgw_gateway.sections.administering import Role, RoleRule  # noqa: TC001 -- msgspec reads the annotations
from llmgw_gateway.store.schema import role_grants
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.admin.asking import Asking


class Me(Document, frozen=True):
    """Who the gateway takes the caller for."""

    actor: str
    """A `person_id`, or the id of a service key."""
    role: str
    """The one that says most."""
    roles: tuple[str, ...]
    teams: tuple[str, ...]
    """Those that the caller leads."""


class Granted(Document, frozen=True):
    """A role that was granted at run time."""

    grant: str
    holder: str
    role: str
    team: str
    ends_at: str | None
    made_by: str
    made_at: str
    revoked_by: str | None
    revoked_at: str | None


class Roles(Document, frozen=True):
    """Who administers."""

    configured: tuple[RoleRule, ...]
    granted: tuple[Granted, ...]
    next: str | None


class NewGrant(Document, frozen=True):
    """A role to be granted."""

    holder: Id
    """A `person_id`, or the id of a service key."""
    role: Role
    team: Line = ""
    """Needed for a team_lead, and only there."""
    ends_at: Moment | None = None


class Revoked(Document, frozen=True):
    """What was taken away."""

    id: str


class Code(Document, frozen=True):
    """The one-time code of `llmgw-gateway init`."""

    code: Annotated[str, Meta(min_length=1, max_length=200)]


def show_me(asking: Asking, _connection: Connection, _query: Nothing) -> Me:
    """Answer with the caller's roles."""
    mine = asking.standing
    return Me(actor=mine.actor, role=mine.role, roles=tuple(sorted(mine.roles)), teams=tuple(sorted(mine.teams)))


def list_roles(asking: Asking, connection: Connection, query: Page) -> Roles:
    """Answer with the configured ones, and a page of the granted ones."""
    page = grants(connection, true(), after=query.cursor, most=query.limit + 1)
    shown = page[: query.limit]
    following = shown[-1].grant_id if page[query.limit :] else None
    return Roles(configured=asking.settings.roles, granted=tuple(_granted(each) for each in shown), next=following)


def grant(asking: Asking, connection: Connection, body: NewGrant) -> Granted:
    """Grant a role to somebody else."""
    if (body.role == "team_lead") != bool(body.team):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`team` is needed for a team_lead, and only there.")
    known = {team.name for team in asking.settings.teams} | all_teams(connection).known_teams
    if body.team and body.team not in known:
        raise missing("team")
    if body.holder == asking.standing.actor:
        raise GatewayError(ErrorCode.ROLE_REQUIRED, "Nobody grants a role to themselves: another administrator can.")
    ends_at = milliseconds(body.ends_at, asking.now)
    new = RoleGrant(asking.new_id("rol"), body.holder, body.role, body.team, ends_at, asking.by.actor, asking.now)
    refusal = give(connection, [NewRole(new, asking.by)])[0]
    if refusal is not None:
        raise refusal
    return _granted(grants(connection, role_grants.c.grant_id == new.grant_id)[0])


def revoke(asking: Asking, connection: Connection, _query: Nothing) -> Revoked:
    """Take a granted role away."""
    name = asking.places["grant"]
    if not end(connection, [RoleEnd(name, asking.by, asking.now)])[0]:
        raise missing("role grant in force")
    return Revoked(id=name)


def redeem_code(asking: Asking, connection: Connection, body: Code) -> Granted:
    """Become the first administrator."""
    new = RoleGrant(asking.new_id("rol"), asking.standing.actor, "admin", "", None, asking.by.actor, asking.now)
    made = redeem(connection, [Redemption(digest_of(Secret(body.code)), new, asking.by)])[0]
    if isinstance(made, GatewayError):
        raise made
    return _granted(grants(connection, role_grants.c.grant_id == made.grant_id)[0])


def _granted(each: RoleGrant) -> Granted:
    return Granted(
        grant=each.grant_id,
        holder=each.holder,
        role=each.role,
        team=each.team,
        ends_at=None if each.ends_at is None else time_text(each.ends_at),
        made_by=each.made_by,
        made_at=time_text(each.made_at),
        revoked_by=each.withdrawn_by,
        revoked_at=None if each.withdrawn_at is None else time_text(each.withdrawn_at),
    )


ROUTES: Final = (
    Route("GET", "/admin/v1/me", "me.show", "Who the gateway takes the caller for.", ANYBODY, show_me, Me),
    Route(
        "POST", "/admin/v1/first-administrator", "setup_code.redeem", "Become the first administrator by a code.",
        ANYBODY, redeem_code, Granted, Code, CODE, people_only=True,
    ),
    Route("GET", "/admin/v1/roles", "roles.list", "Who administers.", ALL_SEEING, list_roles, Roles, Page, KIND),
    Route(
        "POST", "/admin/v1/roles", "role.grant", "Grant a role, with an end or without.",
        ADMIN, grant, Granted, NewGrant, KIND, people_only=True,
    ),
    Route(
        "DELETE", "/admin/v1/roles/{grant}", "role.revoke", "Take a granted role away.",
        ADMIN, revoke, Revoked, kind=KIND, people_only=True,
    ),
)  # fmt: skip
