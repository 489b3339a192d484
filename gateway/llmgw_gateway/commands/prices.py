"""`llmgw-gateway prices` and `models`: what is charged, from when, and by whose word."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from llmgw_gateway.call import MICRO, split_title
from llmgw_gateway.commands import tables
from llmgw_gateway.commands.configuration import (
    CONFIG,
    EXIT_CONFIGURATION,
    load,
    read,
    refusals,
    today,
    unpriced,
)
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.money.catalogues import built_in
from llmgw_gateway.money.inspection import CLASSES, inspect, usd

if TYPE_CHECKING:
    from datetime import date, datetime
    from pathlib import Path

    from llmgw_gateway.money.prices import Catalogue, CatalogueModel, Price
    from llmgw_gateway.settings import Settings

HEADER = ("geography", "prompt", "from", "input", "output", "read", "write 5m", "write 1h", "source")
WORDS = 3
"""How many columns of HEADER are words."""
LONGEST = 7
"""Characters of an amount, so that five of them and the digest of a file fit a terminal."""


@click.group()
def prices() -> None:
    """Show and check the prices by which calls are charged."""


@prices.command()
@CONFIG
@click.argument("model", required=False)
@click.option("--on", type=click.DateTime(["%Y-%m-%d"]), help="The day whose prices to show (UTC); default: today.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def show(config: Path, model: str | None, on: datetime | None, form: str) -> None:
    """Show what is in force for the configured models, or for MODEL by any of its names.

    Amounts are USD for a million tokens. "source" is the version of the file that a row comes from: the date of the
    catalogue that ships, or the digest of your own file. Exit status 2 when a configured model has no price.
    """
    day = on.date() if on else today()
    with refusals():
        settings, catalogue = read(config)
        chosen = _chosen(settings, catalogue, model)
    faults = [] if model else unpriced(settings, catalogue, day)
    if form == "json":
        entries = [_document(catalogue, each, day) for each in chosen]
        document = {"version": catalogue.version, "on": day.isoformat(), "models": entries, "without_price": faults}
        click.echo(tables.as_json(document))
    else:
        click.echo(f"prices of {catalogue.version} on {day}, in USD for a million tokens")
        for each in chosen:
            click.echo("")
            for line in _lines(catalogue, each, day):
                click.echo(line)
    for fault in faults:
        click.echo(f"llmgw-gateway: {config}: {fault}", err=True)
    if faults:
        sys.exit(EXIT_CONFIGURATION)


@prices.command()
@CONFIG
def check(config: Path) -> None:
    """Check the prices of the configured models and of your own price file.

    A model that cannot be charged is a fault: exit status 2. Gaps, rows that no longer count and numbers that look like
    slips are warnings: exit status 0.
    """
    settings, catalogue = load(config)
    served = [model.name for model in settings.models]
    warnings = inspect(catalogue, built_in(embeddings=True), served, today())
    for warning in warnings:
        click.echo(f"warning: {warning}")
    number = f"{len(warnings)} {'warning' if len(warnings) == 1 else 'warnings'}" if warnings else "no warnings"
    count = len(served)
    click.echo(
        f"{config}: {'the model has its price' if count == 1 else f'all {count} models have their prices'}, {number} "
        f"(prices of {catalogue.version})"
    )


@click.command(short_help="List the served models with their base prices.")
@CONFIG
def models(config: Path) -> None:
    """List the served models with today's base prices (USD per million tokens) and all their names."""
    settings, catalogue = load(config)
    day = today()
    header = ("model", "input", "output", "read", "write 5m", "write 1h")
    rows = []
    direct = {served.name for served in settings.models if split_title(served.target)[0] in settings.direct}
    for served in settings.models:
        price = catalogue.price(served.name, geography="direct" if served.name in direct else "regional", day=day)
        rows.append((served.name, *_rates(price)))
    where = "regional, or direct where the target is" if direct else "regional"
    click.echo(f"prices of {catalogue.version} on {day}, {where}, in USD for a million tokens")
    lines = tables.table(header, rows)
    click.echo(lines[0])
    for served, line in zip(settings.models, lines[1:], strict=True):
        click.echo(line)
        names = (*catalogue.models[served.name].names()[1:], *((served.target,) if served.target else ()))
        for name in names:
            click.echo(f"    {name}")


def _chosen(settings: Settings, catalogue: Catalogue, name: str | None) -> list[CatalogueModel]:
    """The model of that name; without a name the configured ones, as far as they are known."""
    if name is None:
        return [catalogue.models[model.name] for model in settings.models if model.name in catalogue.models]
    found = catalogue.named(name)
    if found is None:
        known = ", ".join(catalogue.models)
        raise ConfigurationError("prices", [f"no model has the name {tables.clean(name)!r}; known: {known}"])
    return [found]


def _lines(catalogue: Catalogue, model: CatalogueModel, day: date) -> list[str]:
    title = f"{model.name} ({model.display_name}, {model.vendor})"
    rows = [
        (
            price.geography if price.tier == "standard" else f"{price.geography} {price.tier}",
            f"> {price.context_over:,}" if price.context_over else "any",
            price.effective.isoformat(),
            *_rates(price, model),
            catalogue.source(model.name, price),
        )
        for price in catalogue.in_force(model.name, day)
    ]
    return [title, *(tables.table(HEADER, rows, left=WORDS, indent="  ") if rows else ["  no price in force"])]


def _rates(price: Price, model: CatalogueModel | None = None) -> tuple[str, ...]:
    """Dollars of each class; of an embedding model only of those that it has."""
    shown = ("input",) if model is not None and model.kind == "embedding" else CLASSES
    return tuple(_short(getattr(price, name)) if name in shown else "-" for name in CLASSES)


def _short(rate: int) -> str:
    """Exact dollars; what is too long for its column, such as a slip, is marked as rounded."""
    exact = usd(rate)
    if len(exact) <= LONGEST:
        return exact
    rounded = (f"~{rate / MICRO:.{digits}g}" for digits in (4, 3, 2, 1))
    return next(text for text in rounded if len(text) <= LONGEST)


def _document(catalogue: Catalogue, model: CatalogueModel, day: date) -> dict[str, object]:
    """As a program reads it: amounts in micro-USD, as in the catalogue."""
    rows = [
        {
            "geography": price.geography,
            "tier": price.tier,
            "context_over": price.context_over,
            "from": price.effective.isoformat(),
            **{name: getattr(price, name) for name in CLASSES},
            "source": catalogue.source(model.name, price),
        }
        for price in catalogue.in_force(model.name, day)
    ]
    return {"name": model.name, "vendor": model.vendor, "kind": model.kind, "prices": rows}
