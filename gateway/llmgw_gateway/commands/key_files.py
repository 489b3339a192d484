"""Service keys by file: made from lines, their secrets in a file that only its owner can read; listed without them."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click
from sqlalchemy import select

from llmgw_gateway import control
from llmgw_gateway.commands import csv_files
from llmgw_gateway.commands.configuration import EXIT_CONFIGURATION
from llmgw_gateway.commands.keys import DAY, key_faults, new_id
from llmgw_gateway.commands.writing import do_all, who
from llmgw_gateway.identity.directory import all_teams
from llmgw_gateway.identity.importing import Outcome
from llmgw_gateway.identity.service_keys import NewKey, ServiceKeys, fresh
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.store.reading import reading
from llmgw_gateway.store.schema import service_keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Row

    from llmgw_gateway.commands.csv_files import Line
    from llmgw_gateway.settings import Settings

COLUMNS: Final = ("name", "owner", "team", "models", "days", "key")
LONGEST_DAYS: Final = 3650
USUAL_DAYS: Final = "90"


def planned(settings: Settings, file: Path) -> tuple[list[Outcome], list[Line]]:
    """What each line comes to, and those that make a key."""
    lines, faults = csv_files.read(file, needed=COLUMNS[:2], known=COLUMNS)
    with reading(settings) as connection:
        known, teams = _live(connection), all_teams(connection).known_teams
    outcomes, work = [], []
    seen: dict[tuple[str, str], int] = {}
    for line in lines:
        fault = faults.get(line.number) or _fault(settings, teams, line)
        outcome = Outcome(line.number, "bad", fault) if fault else _outcome(line, known, seen)
        outcomes.append(outcome)
        if outcome.what == "created":
            work.append(line)
    return outcomes, work


def _fault(settings: Settings, teams: frozenset[str], line: Line) -> str:
    days = line.get("days") or USUAL_DAYS
    if not days.isascii() or not days.isdigit() or not 1 <= int(days) <= LONGEST_DAYS:
        return f"days must be a number from 1 to {LONGEST_DAYS}"
    name, owner, team = (line.get(column) or "" for column in ("name", "owner", "team"))
    faults = key_faults(settings, teams, name, owner, team, line.names("models") or ())
    return faults[0] if faults and not line.get("key") else ""


def _outcome(line: Line, known: dict[str, Row[Any]], seen: dict[tuple[str, str], int]) -> Outcome:
    """A line that names a key is about that one, another line about the living key of its name and owner, if any."""
    wanted = (line.get("name") or "", line.get("owner") or "")
    key = line.get("key")
    row = known.get(key) if key else next((each for each in known.values() if (each.name, each.owner) == wanted), None)
    if key and row is None:
        return Outcome(line.number, "bad", f"there is no key {key!r} that is good; leave the cell empty for a new one")
    if row is not None:
        models = tuple(json.loads(row.models) or ())
        now = (row.name, row.owner, row.team, sorted(models))
        said = (*wanted, line.get("team") or "", sorted(line.names("models") or ()))
        if now != said:
            return Outcome(line.number, "bad", f"a file does not change a key: revoke {row.key_id} and make another")
        return Outcome(line.number, "unchanged", "" if key else f"it is {row.key_id}")
    first = seen.setdefault(wanted, line.number)
    if first != line.number:
        return Outcome(line.number, "bad", f"{wanted[0]!r} of {wanted[1]!r} stands in line {first} already")
    return Outcome(line.number, "created")


def write(settings: Settings, lines: Sequence[Line], secrets_file: Path | None) -> None:
    """Make the keys. Each secret is in the file, and on the disk, before its key is in the store."""
    if not lines:
        return
    if secrets_file is None:
        raise click.UsageError("--secrets FILE is needed: the secrets of new keys are written there, once.")
    try:
        descriptor = os.open(secrets_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        click.echo(f"llmgw-gateway: {secrets_file} cannot be made: {error.strerror}", err=True)
        sys.exit(EXIT_CONFIGURATION)
    keys = []
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        rows = []
        for line in lines:
            secret, digest = fresh()
            key = _key(line, digest)
            keys.append(key)
            rows.append((key.key_id, key.name, secret.reveal()))
        out.write(csv_files.text_of(("key", "name", "secret"), rows))
        out.flush()
        os.fsync(out.fileno())
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=len(keys), label="making keys", file=sys.stderr, hidden=hidden) as bar:
        make = control.MAKE_KEY
        do_all(settings, make, keys, lambda database, key: ServiceKeys(database).make(key), lambda _: bar.update(1))
    click.echo(f"the secrets are in {secrets_file}, and nowhere else", err=True)


def _key(line: Line, digest: str) -> NewKey:
    now = int(time.time() * 1000)
    return NewKey(
        secret_id=new_id("sec"),
        key_id=new_id("key"),
        digest=digest,
        name=line.get("name") or "",
        owner=line.get("owner") or "",
        team=line.get("team") or "",
        models=line.names("models") or None,
        expires_at=now + int(line.get("days") or USUAL_DAYS) * DAY,
        by=operator(who()),
        made_at=now,
    )


def exported(connection: Connection) -> str:
    """The keys for models that are good."""
    rows = []
    now = int(time.time() * 1000)
    for row in _live(connection).values():
        models = csv_files.join(json.loads(row.models) or ())
        days = -(-(row.expires_at - now) // DAY)
        rows.append((row.name, row.owner, row.team, models, str(days), row.key_id))
    return csv_files.text_of(COLUMNS, rows)


def _live(connection: Connection) -> dict[str, Row[Any]]:
    """By id, of each key its secret that lives longest."""
    now = int(time.time() * 1000)
    good = service_keys.c.revoked_at.is_(None) & (service_keys.c.expires_at > now) & service_keys.c.home.is_(None)
    query = select(service_keys).where(good).order_by(service_keys.c.name, service_keys.c.key_id)
    return {row.key_id: row for row in connection.execute(query.order_by(service_keys.c.expires_at))}
