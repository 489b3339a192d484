"""`llmgw-gateway directory`: people, teams and keys by file, all or nothing, with a word for each line."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from sqlalchemy import select

from llmgw_gateway import control
from llmgw_gateway.commands import csv_files, key_files, tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_CONFIGURATION, EXIT_FAULTS, read, refusals
from llmgw_gateway.commands.csv_files import CsvError, Line
from llmgw_gateway.commands.writing import do_all, who
from llmgw_gateway.identity import importing
from llmgw_gateway.identity.entries import email_of, name_of
from llmgw_gateway.identity.importing import TOGETHER, Batch, Importing, Outcome, PersonLine, Present, TeamLine
from llmgw_gateway.identity.matching import folded
from llmgw_gateway.identity.provisioning import new_person_id, new_team_id
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.store.reading import reading
from llmgw_gateway.store.schema import persons, teams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from llmgw_gateway.settings import Settings

WHAT = click.argument("what", type=click.Choice(["users", "teams", "keys"]))
USERS: Final = ("user_name", "email", "name", "external_id", "issuer", "active", "teams")
TEAMS: Final = ("name", "external_id", "issuer")
MOST_SHOWN: Final = 50
"""Bad lines on a terminal; a report has them all."""


@click.group()
def directory() -> None:
    """Import and export people, teams and service keys as CSV."""


@directory.command(name="import")
@CONFIG
@WHAT
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--skip-bad", is_flag=True, help="Import the good lines of a file that has bad ones, too.")
@click.option("--report", type=click.Path(path_type=Path), help="A new file for what became of each line, as CSV.")
@click.option(
    "--secrets", "secrets_file", type=click.Path(path_type=Path), help="Keys only: a new file for their secrets."
)
def import_command(
    *,
    config: Path,
    what: str,
    file: Path,
    dry_run: bool,
    skip_bad: bool,
    report: Path | None,
    secrets_file: Path | None,
) -> None:
    """Bring FILE's users, teams or keys into the store. Whoever stands in no line of it stays as they are."""
    with refusals():
        settings, _ = read(config)
        try:
            if what == "keys":
                outcomes, work = key_files.planned(settings, file)
            else:
                outcomes, work = _planned(settings, what, file)
        except CsvError as error:
            click.echo(f"llmgw-gateway: {error}", err=True)
            sys.exit(EXIT_CONFIGURATION)
        bad = [each for each in outcomes if each.what == "bad"]
        writes = not dry_run and (skip_bad or not bad)
        if writes and what == "keys":
            key_files.write(settings, work, secrets_file)
        elif writes:
            outcomes = _written(settings, work, outcomes)
            bad = [each for each in outcomes if each.what == "bad"]
    if report is not None:
        lines = [(str(each.number), each.what, each.why) for each in outcomes]
        _new_file(report, csv_files.text_of(("line", "what", "why"), lines))
    _tell(file, outcomes, bad, done=writes, dry_run=dry_run)
    if bad:
        sys.exit(EXIT_FAULTS)


@directory.command()
@CONFIG
@WHAT
def export(config: Path, what: str) -> None:
    """Write the store's users, teams or keys to standard output, as `import` takes them. Never a secret."""
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            text = {"users": _users, "teams": _teams, "keys": key_files.exported}[what](connection)
    click.echo(text, nl=False)


def _planned(settings: Settings, what: str, file: Path) -> tuple[list[Outcome], list[Any]]:
    """What each line comes to, and those lines that would change something."""
    columns = USERS if what == "users" else TEAMS
    lines, faults = csv_files.read(file, needed=columns[:1], known=columns)
    with reading(settings) as connection:
        known = importing.present(connection)
    seen: dict[Any, int] = {}
    outcomes, work = [], []
    for line in lines:
        found = faults.get(line.number) or _line(settings, what, line)
        if isinstance(found, str):
            outcomes.append(Outcome(line.number, "bad", found))
            continue
        name = found.user_name if isinstance(found, PersonLine) else found.name
        first = seen.setdefault((found.home if what == "users" else "", folded(name)), line.number)
        if first != line.number:
            outcomes.append(Outcome(line.number, "bad", f"{name!r} stands in line {first} already"))
            continue
        outcomes.append(_outcome(found, known))
        if outcomes[-1].what in {"created", "changed"}:
            work.append(found)
    return outcomes, work


def _outcome(found: PersonLine | TeamLine, known: Present) -> Outcome:
    if isinstance(found, PersonLine):
        return importing.person_outcome(found, known)
    return importing.team_outcome(found, known)


def _line(settings: Settings, what: str, line: Line) -> PersonLine | TeamLine | str:
    """A line as the store takes it, or what is wrong with it."""
    issuers = [each.issuer for each in settings.issuers]
    home = line.get("issuer") or (issuers[0] if len(issuers) == 1 else "")
    if home not in issuers:
        return f"issuer must be one of {', '.join(issuers)}"
    if what == "teams":
        name = (line.get("name") or "").strip()
        return TeamLine(line.number, home, name, line.get("external_id"), new_team_id()) if name else "name is empty"
    user_name, email, active = (line.get("user_name") or "").strip(), line.get("email"), line.get("active")
    if not user_name:
        return "user_name is empty"
    if email and "@" not in email:
        return f"{email!r} is no e-mail address"
    if active and csv_files.yes_or_no(active) is None:
        return "active must be true or false"
    return PersonLine(
        number=line.number,
        home=home,
        user_name=user_name,
        email=email,
        name=line.get("name"),
        external_id=line.get("external_id"),
        active=csv_files.yes_or_no(active) if active else None,
        teams=line.names("teams"),
        new_id=new_person_id(),
    )


def _written(settings: Settings, work: Sequence[Any], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Write the lines, batch by batch; the outcomes as they became."""
    by = operator(who())
    some = [work[start : start + TOGETHER] for start in range(0, len(work), TOGETHER)]
    batches = [
        Batch(
            by=by,
            people=tuple(each for each in lines if isinstance(each, PersonLine)),
            teams=tuple(each for each in lines if isinstance(each, TeamLine)),
        )
        for lines in some
    ]
    became: dict[int, Outcome] = {}
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=len(work), label="importing", file=sys.stderr, hidden=hidden) as bar:

        def told(done: list[dict[str, Any]]) -> None:
            became.update({each["number"]: Outcome(**each) for each in done})
            bar.update(len(done))

        do_all(settings, control.IMPORT, batches, lambda database, batch: Importing(database).write(batch), told)
    return [became.get(each.number, each) for each in outcomes]


def _tell(file: Path, outcomes: list[Outcome], bad: list[Outcome], *, done: bool, dry_run: bool) -> None:
    for each in bad[:MOST_SHOWN]:
        click.echo(f"{file}, line {each.number}: {tables.clean(each.why)}", err=True)
    if len(bad) > MOST_SHOWN:
        click.echo(f"... and {len(bad) - MOST_SHOWN} more bad lines; --report has them all", err=True)
    counts = Counter(each.what for each in outcomes)
    said = ", ".join(f"{counts[what]:,} {what}" for what in ("created", "changed", "unchanged", "bad"))
    nothing = "nothing was written: " if not done else ""
    how = " (dry run)" if dry_run else "; --skip-bad imports the good lines" if not done else ""
    click.echo(f"{nothing}{said}{how}")


def _new_file(path: Path, text: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        click.echo(f"llmgw-gateway: {path} cannot be made: {error.strerror}", err=True)
        sys.exit(EXIT_CONFIGURATION)


def _users(connection: Connection) -> str:
    known = importing.present(connection)
    rows = []
    query = select(persons).where(persons.c.user_key.is_not(None)).order_by(persons.c.home, persons.c.user_key)
    for row in connection.execute(query):
        said = json.loads(row.attributes)
        theirs = csv_files.join(sorted(known.memberships.get(row.person_id, ())))
        active = "true" if row.inactive_at is None else "false"
        rows.append((row.user_name, email_of(said), name_of(said), row.external_id, row.home, active, theirs))
    return csv_files.text_of(USERS, rows)


def _teams(connection: Connection) -> str:
    query = select(teams.c.name, teams.c.external_id, teams.c.home).order_by(teams.c.home, teams.c.name_key)
    return csv_files.text_of(TEAMS, [tuple(row) for row in connection.execute(query)])
