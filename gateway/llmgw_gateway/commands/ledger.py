"""`llmgw-gateway ledger`: whether the books are right, and what they would be by other prices. Both only read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click
from sqlalchemy import func, select

from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.money import verification
from llmgw_gateway.money.allowance import PREFIX
from llmgw_gateway.money.rerate import Rerated, rerate
from llmgw_gateway.money.usage import Span
from llmgw_gateway.store import schema
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

HEADER = ("model", "attempts", "charged USD", "today USD", "difference", "estimated", "unpriced")


@click.group()
def ledger() -> None:
    """Examine the ledger. Nothing here writes to the store."""


@ledger.command()
@CONFIG
def verify(config: Path) -> None:
    """Check the invariants of the books (I1, I2) on the live store, while the gateway runs.

    Each fault is a sentence, and the exit status is 1. The store is only read, at one moment.
    """
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            count = 0
            for fault in verification.faults(connection):
                click.echo(tables.clean(fault))
                count += 1
            size = _size(connection)
    if count:
        click.echo(f"llmgw-gateway: the ledger has {count} {'fault' if count == 1 else 'faults'} ({size})", err=True)
        sys.exit(EXIT_FAULTS)
    click.echo(f"the ledger is right ({size})")


def _size(connection: Connection) -> str:
    """What was examined, so that an empty store is not taken for a healthy one."""
    allowance = schema.attempts.c.attempt_id.startswith(PREFIX, autoescape=True)
    counts = [
        f"{connection.scalar(select(func.count()).select_from(table)) or 0:,} {name}"
        for table, name in (
            (select(schema.attempts).where(~allowance).subquery(), "open attempts"),
            (schema.ledger, "entries"),
            (schema.counters, "counters"),
            (select(schema.attempts).where(allowance).subquery(), "allowances"),
        )
    ]
    return ", ".join(each for each in counts if each != "0 allowances")


@ledger.command(name="rerate")
@CONFIG
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The first day (included).")
@click.option("--dry-run", is_flag=True, help="Accepted for clarity: nothing is ever written, with or without it.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def rerate_command(config: Path, since: datetime, dry_run: bool, form: str) -> None:  # noqa: ARG001, FBT001 -- click
    """Report what settled attempts would cost by today's catalogue, and the difference for each model.

    This only reports: the ledger is append-only, and the one correction that an attempt may have belongs to usage that
    became known late. Each attempt is rated by the price of the day on which it was admitted. Attempts whose usage is
    not known ("estimated") or for which the catalogue has no price ("unpriced") are counted, not rated.
    """
    with refusals():
        settings, catalogue = read(config)
        with reading(settings) as connection:
            found = rerate(
                connection, catalogue, Span(ZoneInfo(settings.organisation.time_zone), since.date()), settings.direct
            )
    if form == "json":
        document = {
            "since": since.date().isoformat(),
            "price_version": catalogue.version,
            "models": [_document(entry) for entry in found],
            "total": _document(_total(found)),
        }
        click.echo(tables.as_json(document))
        return
    click.echo(f"attempts since {since.date()} by the prices of {catalogue.version}; nothing was written")
    versions = sorted(set().union(*(entry.versions for entry in found)))
    click.echo(f"they were charged by the prices of {', '.join(versions) or 'no version: there are none'}")
    for line in tables.table(HEADER, [_row(entry) for entry in (*found, _total(found))]):
        click.echo(line)


def _total(found: list[Rerated]) -> Rerated:
    """All models together."""
    return Rerated(
        model="total",
        attempts=sum(entry.attempts for entry in found),
        charged=sum(entry.charged for entry in found),
        today=sum(entry.today for entry in found),
        estimated=sum(entry.estimated for entry in found),
        estimated_cost=sum(entry.estimated_cost for entry in found),
        unpriced=sum(entry.unpriced for entry in found),
        unpriced_cost=sum(entry.unpriced_cost for entry in found),
        versions=set().union(*(entry.versions for entry in found)),
    )


def _row(entry: Rerated) -> tuple[str, ...]:
    sign = "+" if entry.difference > 0 else ""
    counts = (tables.count(entry.estimated), tables.count(entry.unpriced))
    money = (tables.usd(entry.charged), tables.usd(entry.today), sign + tables.usd(entry.difference))
    return (entry.model, tables.count(entry.attempts), *money, *counts)


def _document(entry: Rerated) -> dict[str, object]:
    """As a program reads it: amounts in micro-USD."""
    return {
        "model": entry.model,
        "attempts": entry.attempts,
        "charged": entry.charged,
        "today": entry.today,
        "difference": entry.difference,
        "estimated_attempts": entry.estimated,
        "estimated_cost": entry.estimated_cost,
        "unpriced_attempts": entry.unpriced,
        "unpriced_cost": entry.unpriced_cost,
        "price_versions": sorted(entry.versions),
    }
