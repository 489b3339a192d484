"""`llmgw-gateway people`: who has signed in, and taking access away from one of them."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from sqlalchemy import true

from llmgw_gateway import control
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.commands.writing import do, who
from llmgw_gateway.identity.directory import all_teams
from llmgw_gateway.identity.people import (
    Known,
    People,
    PersonOrder,
    Session,
    found,
    is_paid_by,
    matches,
    means,
    sessions_of,
)
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from llmgw_gateway.identity.people import Verb
    from llmgw_gateway.settings import Settings

FORMAT = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
COLUMNS = ("person", "e-mail", "team", "last seen", "state")


@click.group()
def people() -> None:
    """See who has signed in, and disable or enable one of them."""


@people.command(name="list")
@CONFIG
@click.option("--search", default="", help="A part of the name or address, or the whole id or subject.")
@click.option("--team", default="", help="Only whose calls this team pays for.")
@FORMAT
def list_command(config: Path, search: str, team: str, form: str) -> None:
    """List everybody who has signed in, or is in a directory."""
    with refusals():
        settings, _ = read(config)
        if team:
            check_team(settings, team)
        with reading(settings) as connection:
            paid = is_paid_by(connection, settings.teams, [team]) if team else true()
            everybody = found(connection, paid & matches(search) if search else paid)
    documents = [_document(settings, person) for person in everybody]
    if form == "json":
        click.echo(tables.as_json({"people": documents}))
        return
    rows = [
        (
            each["person"],
            tables.cut(each["email"] or each["name"] or "-", 32),
            tables.cut(each["team"] or "-", 16),
            each["last_seen"][:10],
            each["state"],
        )
        for each in documents
    ]
    for line in tables.table(COLUMNS, rows, left=5):
        click.echo(line)


@people.command()
@CONFIG
@click.argument("user")
@FORMAT
def show(config: Path, user: str, form: str) -> None:
    """Show USER (e-mail address, id, or subject at the provider) with the devices that are signed in."""
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            person = person_of(connection, user)
            devices = sessions_of(connection, person.person_id)
    document = _document(settings, person) | {"sessions": [_session(each) for each in devices]}
    if form == "json":
        click.echo(tables.as_json(document))
        return
    groups = "unknown (too many for a token)" if person.groups is None else ", ".join(sorted(person.groups)) or "none"
    click.echo(f"{person.person_id}: {tables.clean(person.email or person.name)}")
    for name in ("name", "issuer", "subject", "team", "first_seen", "last_seen", "state"):
        click.echo(f"  {name.replace('_', ' '):10}  {tables.clean(document[name]) or '-'}")
    click.echo(f"  {'groups':10}  {tables.clean(groups)}")
    for each in document["sessions"]:
        click.echo(f"  {'session':10}  {each['session']}, since {each['since']}, last exchange {each['last_exchange']}")


@people.command()
@CONFIG
@click.argument("user")
def disable(config: Path, user: str) -> None:
    """Refuse USER from now on, and end every session they have."""
    person, ended = _order(config, user, "disable")
    click.echo(f"{person} is disabled, {_sessions(ended)}: every replica refuses them within seconds")


@people.command()
@CONFIG
@click.argument("user")
def enable(config: Path, user: str) -> None:
    """Let USER sign in again."""
    person, _ = _order(config, user, "enable")
    click.echo(f"{person} may sign in again")


@people.command()
@CONFIG
@click.argument("user")
def revoke(config: Path, user: str) -> None:
    """End every session of USER: each of their devices has to sign in again."""
    person, ended = _order(config, user, "revoke")
    click.echo(f"{person}: {_sessions(ended)}; every replica refuses their tokens within seconds")


def person_of(connection: Connection, user: str) -> Known:
    """The one whom the argument means; a usage error when there is none, or more than one."""
    those = found(connection, means(user))
    if not those:
        raise click.UsageError(f"Nobody here is known as {tables.clean(user)!r}.")
    if len(those) > 1:
        ids = ", ".join(f"{each.person_id} ({tables.clean(each.issuer)})" for each in those)
        raise click.UsageError(f"{tables.clean(user)!r} means several people; name one by id: {ids}.")
    return those[0]


def check_team(settings: Settings, team: str) -> None:
    """A usage error when neither the configuration nor a directory has the team."""
    with reading(settings) as connection:
        known = {each.name for each in settings.teams} | all_teams(connection).known_teams
    if team not in known:
        raise click.UsageError(f"There is no team {tables.clean(team)!r}.")


def _order(config: Path, user: str, verb: Verb) -> tuple[str, int]:
    """The person's id, and how many sessions ended."""
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            person = person_of(connection, user).person_id
        now = int(time.time() * 1000)
        order = PersonOrder(verb, person, operator(who()), now)
        ended = do(settings, control.PERSON, order, lambda database: People(database).carry_out(order))
    if ended is None:
        click.echo(f"llmgw-gateway: {person} is not known any more", err=True)
        sys.exit(EXIT_FAULTS)
    return person, ended


def _sessions(count: int) -> str:
    return f"{count} {'session' if count == 1 else 'sessions'} ended"


def _document(settings: Settings, person: Known) -> dict[str, Any]:
    """As a program reads it."""
    return {
        "person": person.person_id,
        "name": person.name,
        "email": person.email,
        "issuer": person.issuer,
        "subject": person.subject,
        "groups": None if person.groups is None else sorted(person.groups),
        "team": Accounts(settings.teams, settings.projects).team_of(person.email, person.groups, person.stored),
        "first_seen": _time(person.first_seen),
        "last_seen": _time(person.last_seen),
        "state": "active" if person.disabled_at is None else f"disabled since {_time(person.disabled_at)}",
    }


def _session(each: Session) -> dict[str, Any]:
    return {
        "session": each.session,
        "access_key": each.access_key,
        "since": _time(each.enrolled_at),
        "last_exchange": _time(each.last_exchange),
    }


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
