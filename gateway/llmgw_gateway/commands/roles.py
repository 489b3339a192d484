"""`llmgw-gateway roles` and `init`: who administers, and how the first one comes to it."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args
from zoneinfo import ZoneInfo

import click
from sqlalchemy import true

from llmgw_gateway import control
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.commands.people import check_team, person_of
from llmgw_gateway.commands.writing import do, who
from llmgw_gateway.identity.roles import NewCode, NewRole, RoleEnd, Roles, fresh_code, grants, new_grant
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.sections.administering import Role
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.identity.roles import RoleGrant
    from llmgw_gateway.settings import Settings

COLUMNS = ("grant", "holder", "role", "state")
KEY = "key_"
"""How the ids of service keys begin."""
MINUTE = 60_000
MOST_MINUTES = 60


@click.group()
def roles() -> None:
    """See and change who administers."""


@roles.command(name="list")
@CONFIG
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_command(config: Path, form: str) -> None:
    """List the roles of the configuration, and those that were granted."""
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            granted = grants(connection, true())
    now = int(time.time() * 1000)
    configured = [_rule(number, settings) for number in range(len(settings.roles))]
    if form == "json":
        click.echo(tables.as_json({"configured": configured, "granted": [_document(each, now) for each in granted]}))
        return
    for each in configured:
        whom = ", ".join([*(f"group {name}" for name in each["groups"]), *each["subjects"]])
        click.echo(tables.clean(f"{each['place']}: {_title(each['role'], each['teams'])}: {whom}"))
    rows = [(each.grant_id, each.holder, _title(each.role, [each.team]), _state(each, now)) for each in granted]
    for line in tables.table(COLUMNS, rows, left=4):
        click.echo(line)


@roles.command()
@CONFIG
@click.argument("holder")
@click.argument("role", type=click.Choice(get_args(Role)))
@click.option("--team", default="", help="Of which team; needed for a team_lead.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="The last day, in the company's zone.")
def grant(config: Path, holder: str, role: Role, team: str, until: datetime | None) -> None:
    """Give ROLE to HOLDER: somebody who has signed in (e-mail address, id, subject), or the id of a service key."""
    with refusals():
        settings, _ = read(config)
        if (role == "team_lead") != bool(team):
            raise click.UsageError("--team is needed for a team_lead, and only there.")
        if team:
            check_team(settings, team)
        ends_at = _end(until, settings) if until else None
        if ends_at is not None and ends_at <= time.time() * 1000:
            raise click.UsageError("--until is in the past.")
        whom = holder if holder.startswith(KEY) else _person(settings, holder)
        order = NewRole(new_grant(whom, role, team, ends_at), operator(who()))
        do(settings, control.GRANT_ROLE, order, lambda database: Roles(database).give(order))
    click.echo(
        f"{order.grant.grant_id}: {whom} is {_title(role, [team])}{f' until {_time(ends_at)}' if ends_at else ''}"
    )


@roles.command()
@CONFIG
@click.argument("grant")
def revoke(config: Path, grant: str) -> None:
    """Take a granted role away: GRANT is its id, as `roles list` says it."""
    with refusals():
        settings, _ = read(config)
        order = RoleEnd(grant, operator(who()), int(time.time() * 1000))
        if not do(settings, control.REVOKE_ROLE, order, lambda database: Roles(database).end(order)):
            click.echo(f"llmgw-gateway: there is no role grant {tables.clean(grant)!r} to revoke", err=True)
            sys.exit(EXIT_FAULTS)
    click.echo(f"{grant} no longer counts")


@click.command(short_help="Print a one-time code for the first administrator.")
@CONFIG
@click.option("--minutes", type=click.IntRange(1, MOST_MINUTES), default=15, show_default=True, help="Until it ends.")
def init(config: Path, minutes: int) -> None:
    """Print a code, once, with which somebody who has signed in becomes the first administrator."""
    with refusals():
        settings, _ = read(config)
        if any(rule.role == "admin" for rule in settings.roles):
            click.echo(
                "llmgw-gateway: [[roles]] of the configuration says who administers: no code is needed", err=True
            )
            sys.exit(EXIT_FAULTS)
        code, digest = fresh_code()
        now = int(time.time() * 1000)
        order = NewCode(digest, now + minutes * MINUTE, operator(who()), now)
        if not do(settings, control.MAKE_CODE, order, lambda database: Roles(database).make_code(order)):
            click.echo(
                "llmgw-gateway: there is an administrator already, who can grant further roles; so can "
                "`llmgw-gateway roles grant`",
                err=True,
            )
            sys.exit(EXIT_FAULTS)
    click.echo(
        f"Good once, until {_time(order.expires_at)}. Sign in with `llmgw login`, then send it with a gateway token to "
        "POST /admin/v1/first-administrator:",
        err=True,
    )
    click.echo(code.reveal())


def _person(settings: Settings, user: str) -> str:
    with reading(settings) as connection:
        return person_of(connection, user).person_id


def _end(day: datetime, settings: Settings) -> int:
    """The end of a day in the organisation's time zone, in milliseconds since the epoch."""
    zone = ZoneInfo(settings.organisation.time_zone)
    return int((day + timedelta(days=1)).replace(tzinfo=zone).timestamp() * 1000)


def _title(role: str, teams: list[str]) -> str:
    return f"{role} of {', '.join(teams)}" if role == "team_lead" else role


def _state(each: RoleGrant, now: int) -> str:
    if each.withdrawn_at is not None:
        return f"revoked {_time(each.withdrawn_at)[:10]}"
    if each.ends_at is None:
        return "in force"
    return f"{'ended' if each.ends_at <= now else 'until'} {_time(each.ends_at)[:10]}"


def _rule(number: int, settings: Settings) -> dict[str, Any]:
    rule = settings.roles[number]
    names = {"groups": list(rule.groups), "subjects": list(rule.subjects), "teams": list(rule.teams)}
    return {"place": f"roles[{number}]", "role": rule.role, "issuer": rule.issuer} | names


def _document(each: RoleGrant, now: int) -> dict[str, Any]:
    return {
        "grant": each.grant_id,
        "holder": each.holder,
        "role": each.role,
        "team": each.team,
        "ends": None if each.ends_at is None else _time(each.ends_at),
        "made_by": each.made_by,
        "made": _time(each.made_at),
        "revoked_by": each.withdrawn_by,
        "revoked": None if each.withdrawn_at is None else _time(each.withdrawn_at),
        "in_force": each.withdrawn_at is None and (each.ends_at is None or each.ends_at > now),
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
