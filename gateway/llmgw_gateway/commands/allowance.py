"""`llmgw-gateway budget allowances` and `write-off`: what is set aside for outages, and what of it is lost."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from llmgw_gateway import control
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import CONFIG, EXIT_FAULTS, read, refusals
from llmgw_gateway.commands.writing import do, who
from llmgw_gateway.money.refusals import amount as words
from llmgw_gateway.money.writeoff import Held, WriteOff, allowances, write_off
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.store.reading import reading

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("allowance", "replica", "budget", "period", "USD", "age")


@click.command(name="allowances")
@CONFIG
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def allowances_command(config: Path, form: str) -> None:
    """List what replicas have set aside for the time in which the store is away, oldest first.

    A replica that runs renews its allowances; those of one whose journal is lost stay until they are written off.
    """
    with refusals():
        settings, _ = read(config)
        with reading(settings) as connection:
            found = allowances(connection)
    now = int(time.time() * 1000)
    if form == "json":
        click.echo(tables.as_json({"allowances": [_document(each, now) for each in found]}))
        return
    for line in tables.table(COLUMNS, [_row(each, now) for each in found], left=4):
        click.echo(line)


@click.command(name="write-off")
@CONFIG
@click.argument("allowance")
@click.option("--reason", required=True, help="Why; it stays with the write-off.")
def write_off_command(config: Path, allowance: str, reason: str) -> None:
    """Charge ALLOWANCE to its budget whole, because the journal that says what was spent of it is lost."""
    item = WriteOff(allowance, reason, operator(who()), int(time.time() * 1000))
    with refusals():
        settings, _ = read(config)
        charged = do(settings, control.WRITE_OFF, item, lambda database: database.submit(write_off, item))
    if charged is None:
        click.echo(f"llmgw-gateway: there is no allowance {allowance!r}: see `budget allowances`", err=True)
        sys.exit(EXIT_FAULTS)
    click.echo(f"{allowance} is written off: {words(charged, 'usd')} are charged to its budget")


def _row(each: Held, now: int) -> tuple[str, ...]:
    return (
        each.allowance_id, each.replica, tables.clean(each.budget), each.period_key,
        tables.usd(each.amount), _age(now - each.taken_at),
    )  # fmt: skip


def _age(milliseconds: int) -> str:
    minutes = max(0, milliseconds) // 60_000
    return f"{minutes // 60} h {minutes % 60:02} min"


def _document(each: Held, now: int) -> dict[str, object]:
    """As a program reads it: micro-USD, seconds."""
    return {
        "allowance": each.allowance_id,
        "replica": each.replica,
        "budget": each.budget,
        "period": each.period_key,
        "amount": each.amount,
        "age_seconds": max(0, now - each.taken_at) // 1000,
    }
