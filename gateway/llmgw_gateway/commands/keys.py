"""`llmgw-gateway keys`: credentials for CI jobs, scripts and tools that cannot sign in."""

from __future__ import annotations

import json
import secrets
import sys
import time
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import select

from llmgw_gateway import control
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.commands.writing import do, who
from llmgw_gateway.identity.directory import all_teams
from llmgw_gateway.identity.service_keys import NewKey, Rotation, ServiceKeys, Withdrawn, fresh
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.store.reading import reading
from llmgw_gateway.store.schema import service_keys

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from llmgw_gateway.settings import Settings
    from llmgw_wire.secret import Secret

HOUR = 3_600_000
DAY = 24 * HOUR
LONGEST_NAME = 100
COLUMNS = ("key", "name", "owner", "expires", "state")
DAYS = click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="Until it expires.")


@click.group()
def keys() -> None:
    """Make, list, rotate and revoke service keys."""


@keys.command()
@CONFIG
@click.option("--name", required=True, help="What it is for, such as ci-payments.")
@click.option("--owner", required=True, help="Who answers for it: a person or a team.")
@click.option("--team", default="", help="The configured team that pays for its calls.")
@click.option(
    "--model", "models", multiple=True, help="May be given several times; without it whatever policies allow."
)
@click.option("--scim", is_flag=True, help="For the provisioning of people and teams by SCIM, and nothing else.")
@click.option("--issuer", default="", help="With --scim: the configured provider whose people these are.")
@DAYS
def create(
    *, config: Path, name: str, owner: str, team: str, models: tuple[str, ...], scim: bool, issuer: str, days: int
) -> None:
    """Make a key. Its secret goes to standard output, once; it is kept nowhere."""
    with refusals():
        settings, _ = read(config)
        if scim and (team or models):
            raise click.UsageError("--scim does not go with --team or --model: such a key asks no model.")
        home = _home(settings, issuer) if scim else None
        if faults := key_faults(settings, stored_teams(settings, team), name, owner, team, models):
            raise click.UsageError(faults[0])
        secret, digest = fresh()
        now = int(time.time() * 1000)
        key = NewKey(
            secret_id=new_id("sec"),
            key_id=new_id("key"),
            digest=digest,
            name=name,
            owner=owner,
            team=team,
            models=models or None,
            expires_at=now + days * DAY,
            by=operator(who()),
            made_at=now,
            home=home,
        )
        do(settings, control.MAKE_KEY, key, lambda database: ServiceKeys(database).make(key))
    _show(secret, f"{key.key_id} ({name}) is good until {_day(key.expires_at)}")


@keys.command(name="list")
@CONFIG
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_command(config: Path, form: str) -> None:
    """List every key, never a secret."""
    with refusals():
        settings, _ = read(config)
        query = select(service_keys).order_by(service_keys.c.key_id, service_keys.c.made_at)
        with reading(settings) as connection:
            rows = connection.execute(query).all()
    now = int(time.time() * 1000)
    found = [_document(list(mine), now) for _, mine in groupby(rows, key=lambda row: row.key_id)]
    if form == "json":
        click.echo(tables.as_json({"keys": found}))
        return
    shown = [
        (each["key"], tables.cut(each["name"], 20), tables.cut(each["owner"], 24), each["expires"][:10], each["state"])
        for each in found
    ]
    for line in tables.table(COLUMNS, shown, left=3):
        click.echo(line)


@keys.command()
@CONFIG
@click.argument("key")
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, 30 * 24),
    default=24,
    show_default=True,
    help="How long the secrets that it has stay good; 0 ends them at once, and what runs with them.",
)
@DAYS
def rotate(config: Path, key: str, overlap_hours: int, days: int) -> None:
    """Give KEY (its id) a new secret beside those that it has."""
    with refusals():
        settings, _ = read(config)
        secret, digest = fresh()
        now = int(time.time() * 1000)
        rotation = Rotation(key, new_id("sec"), digest, now + days * DAY, overlap_hours * HOUR, operator(who()), now)
        if not do(settings, control.ROTATE_KEY, rotation, lambda database: ServiceKeys(database).rotate(rotation)):
            _none(key)
    _show(secret, f"the new secret of {key} is good until {_day(rotation.expires_at)}")


@keys.command()
@CONFIG
@click.argument("key")
def revoke(config: Path, key: str) -> None:
    """End KEY (its id, or the id of one secret) for good, and what runs with it."""
    with refusals():
        settings, _ = read(config)
        withdrawn = Withdrawn(key, operator(who()), int(time.time() * 1000))
        if not do(settings, control.REVOKE_KEY, withdrawn, lambda database: ServiceKeys(database).revoke(withdrawn)):
            _none(key)
    click.echo(f"{key} was revoked: every replica refuses it within seconds")


def key_faults(
    settings: Settings, teams: Collection[str], name: str, owner: str, team: str, models: Sequence[str]
) -> list[str]:
    """What is wrong with a key that is to be made; `teams` are those of the store."""
    found = []
    if team and team not in teams and all(team != each.name for each in settings.teams):
        found.append(f"There is no team {tables.clean(team)!r}.")
    served = [model.name for model in settings.models]
    if unknown := [model for model in models if model not in served]:
        found.append(f"{tables.clean(unknown[0])!r} is not served here. Served: {', '.join(served)}.")
    for what, text in (("name", name), ("owner", owner)):
        if not text.isprintable() or not 0 < len(text.strip()) <= LONGEST_NAME:
            found.append(f"{what} must be printable, and have at most {LONGEST_NAME} characters.")
    return found


def stored_teams(settings: Settings, team: str) -> frozenset[str]:
    """The teams of the store, where it matters whether one is there."""
    if not team or any(team == each.name for each in settings.teams):
        return frozenset()
    with reading(settings) as connection:
        return all_teams(connection).known_teams


def _home(settings: Settings, issuer: str) -> str:
    known = [each.issuer for each in settings.issuers]
    if not issuer and len(known) == 1:
        return known[0]
    if issuer not in known:
        raise click.UsageError(f"--issuer must be one of: {', '.join(known)}.")
    return issuer


def new_id(kind: str) -> str:
    """A name that is nobody else's."""
    return f"{kind}_{secrets.token_hex(12)}"


def _none(key: str) -> None:
    click.echo(f"llmgw-gateway: there is no service key {tables.clean(key)!r} that is not revoked yet", err=True)
    sys.exit(EXIT_FAULTS)


def _show(secret: Secret, about: str) -> None:
    """The secret alone on standard output, so that it can be piped into where it belongs."""
    click.echo(f"{about}. The secret is shown this once:", err=True)
    click.echo(secret.reveal())


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _document(rows: list[Any], now: int) -> dict[str, Any]:
    """One key as a program reads it."""
    live = [row for row in rows if row.revoked_at is None and row.expires_at > now]
    newest = max(live or rows, key=lambda row: row.expires_at)
    state = "good" if live else "revoked" if rows[-1].revoked_at is not None else "expired"
    return {
        "key": newest.key_id,
        "name": newest.name,
        "owner": newest.owner,
        "team": newest.team,
        "models": json.loads(newest.models),
        "scim": newest.home,
        "expires": _day(newest.expires_at),
        "state": state,
        "secrets": [
            {
                "id": row.secret_id,
                "made": _day(row.made_at),
                "made_by": row.made_by,
                "expires": _day(row.expires_at),
                "revoked": None if row.revoked_at is None else _day(row.revoked_at),
                "revoked_by": row.revoked_by,
                "ended": row not in live,
            }
            for row in rows
        ],
    }
