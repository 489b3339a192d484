"""`llmgw-gateway erase`: one person leaves the store, and every sum stays."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from llmgw_gateway import control
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.commands.people import person_of
from llmgw_gateway.commands.writing import do, who
from llmgw_gateway.identity.erasing import Erased, Erasure, erase_person, preview
from llmgw_gateway.observe.anchors import key_in_force
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.identity.people import Known


@click.command(short_help="Erase a person; what they used and what it cost stays.")
@CONFIG
@click.argument("user")
@click.option("--also", multiple=True, help="What else they were called: a former address. May be given several times.")
@click.option("--dry-run", is_flag=True, help="Only say what would be replaced.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
def erase(config: Path, user: str, also: tuple[str, ...], dry_run: bool, yes: bool) -> None:  # noqa: FBT001 -- click
    """Erase USER (e-mail address, id, or subject) from the store: their random id stands for them from then on.

    Name, address, subject, groups and devices go, everywhere; what they used and what it cost stays. Whoever signs in
    again is somebody new. It cannot be taken back.
    """
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            person = person_of(connection, user)
        if dry_run:
            with reading(settings) as connection:
                found = preview(connection, person.person_id, also)
            _say(found or Erased({}), f"{person.person_id} would be erased; nothing was written")
            _say_files(config, person, also)
            return
        if not yes and sys.stdin.isatty():
            click.confirm(
                f"Erase {tables.clean(person.email or person.name or person.person_id)} for good?", abort=True
            )
        erasure = Erasure(person.person_id, also, operator(who()), int(time.time() * 1000))
        sealing = partial(key_in_force, settings)
        done = do(settings, control.ERASE, erasure, lambda database: erase_person(database, sealing, erasure))
    if done is None:
        click.echo(f"llmgw-gateway: {person.person_id} is not known any more", err=True)
        sys.exit(EXIT_FAULTS)
    erased = Erased(**done)
    sessions = f"{erased.sessions} {'session' if erased.sessions == 1 else 'sessions'} ended"
    _say(erased, f"{person.person_id} is erased, {sessions}")
    _say_files(config, person, also)
    if not erased.purged:
        click.echo(
            "llmgw-gateway: another process was reading the store, so its log still holds what was overwritten: "
            "run the command again with the id",
            err=True,
        )
        sys.exit(EXIT_FAULTS)


def _say(erased: Erased, what: str) -> None:
    click.echo(what)
    for place, count in erased.texts.items():
        click.echo(f"  {place}: {count} {'text' if count == 1 else 'texts'}")


def _say_files(config: Path, person: Known, also: tuple[str, ...]) -> None:
    """What people have written into the configuration, people have to take out."""
    names = [name for name in (person.email, person.name, person.subject, *also) if name]
    for number, line in enumerate(config.read_text(encoding="utf-8").splitlines(), 1):
        if any(name.lower() in line.lower() for name in names):
            click.echo(f"{config}, line {number}, names them: take that out yourself")
