"""`llmgw-gateway retention`: what is kept for how long, and removing what is older."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from llmgw_gateway import control
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, read, refusals
from llmgw_gateway.commands.writing import do
from llmgw_gateway.retention import Removed, Retention, Round, waits
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.store.database import Database

WHAT: Final = {
    "ledger": "entries of the ledger",
    "audit": "files of this audit trail",
    "changes": "changes by administrators",
    "people": "people",
}


@click.group()
def retention() -> None:
    """See what is kept for how long, and remove what is older."""


@retention.command()
@CONFIG
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def show(config: Path, form: str) -> None:
    """Show for how long what is kept, and how much of it is older now."""
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            older = asdict(waits(connection, settings, int(time.time() * 1000)))
    days = {name: getattr(settings.retention, f"{name}_days") for name in WHAT}
    if form == "json":
        click.echo(tables.as_json({name: {"days": days[name], "older": older[name]} for name in WHAT}))
        return
    rows = [(WHAT[name], f"{days[name]:,} days" if days[name] else "for good", f"{older[name]:,}") for name in WHAT]
    for line in tables.table(("what", "is kept", "older now"), rows, left=2):
        click.echo(line)


@retention.command()
@CONFIG
def run(config: Path) -> None:
    """Remove what is older now; a gateway that runs does so each hour by itself.

    Where a gateway has the store's file, that gateway begins at once. Files of the audit trail are removed by the
    gateways that write them.
    """
    with refusals():
        settings, _ = read(config)

        async def work(database: Database) -> Any:  # noqa: ANN401 -- what the round has done
            return await Retention(database, settings).round()

        done = do(settings, control.RETAIN, Round(), work)
    if not isinstance(done, Removed):
        click.echo("the gateway has begun; `retention show` says what is left")
        return
    for name, count in asdict(done).items():
        if name != "audit":
            what = "attempts" if name == "ledger" else WHAT[name]
            click.echo(f"{count:,} {what} removed")
