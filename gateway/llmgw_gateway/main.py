"""`llmgw-gateway`: the command line of the central service."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from llmgw_gateway import settings as configuration
from llmgw_gateway.call import MICRO
from llmgw_gateway.errors import ConfigurationError, StoreError

if TYPE_CHECKING:
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.settings import Settings

EXIT_CONFIGURATION = 2
EXIT_STORE = 3
CONFIG = click.argument("config", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmgw")
def main() -> None:
    """Run and inspect the llmgw gateway."""


@main.command()
@CONFIG
def serve(config: Path) -> None:
    """Serve with the configuration CONFIG until SIGTERM."""
    from llmgw_gateway.app import Gateway  # noqa: PLC0415 -- `check` and `--help` need no server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("alembic", "botocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings, catalogue = _load(config)

    async def run() -> None:
        await Gateway(settings, catalogue).run()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run())
    except ConfigurationError as error:
        _report(error)
    except StoreError as error:
        click.echo(f"llmgw-gateway: {error}", err=True)
        sys.exit(EXIT_STORE)


@main.command()
@CONFIG
def check(config: Path) -> None:
    """Say every fault of the configuration CONFIG, or that it is good."""
    settings, _ = _load(config)
    click.echo(f"{config}: good ({len(settings.models)} models, {len(settings.issuers)} issuers)")


@main.command()
@CONFIG
def models(config: Path) -> None:
    """List the served models with today's base prices (USD per million tokens) and all their names."""
    settings, catalogue = _load(config)
    today = datetime.now(UTC).date()
    click.echo(
        f"prices of {catalogue.version}\n{'model':<24} {'input':>8} {'output':>8} {'read':>8} {'write':>8}  names"
    )
    for served in settings.models:
        model = catalogue.models[served.name]
        price = catalogue.price(model.name, geography="regional", day=today)
        rates = (price.input, price.output, price.cache_read, price.cache_write_5m)
        columns = " ".join(f"{rate / MICRO:>8.2f}" for rate in rates)
        click.echo(f"{model.name:<24} {columns}  {', '.join(model.names()[1:])}")


def _load(config: Path) -> tuple[Settings, Catalogue]:
    """Configuration and prices, or every fault on standard error and exit status 2."""
    from llmgw_gateway.app import policy  # noqa: PLC0415 -- `--help` needs no server
    from llmgw_gateway.money.prices import built_in  # noqa: PLC0415 -- the same

    try:
        settings = configuration.load(config)
        catalogue = built_in()
        policy(settings, catalogue)
    except ConfigurationError as error:
        _report(error)
    return settings, catalogue


def _report(error: ConfigurationError) -> NoReturn:
    count = len(error.faults)
    click.echo(f"llmgw-gateway: {error.source}: {count} {'fault' if count == 1 else 'faults'}", err=True)
    for fault in error.faults:
        click.echo(f"  {fault}", err=True)
    sys.exit(EXIT_CONFIGURATION)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Uvloop where it exists (not on Windows): a sixth less CPU for each request."""
    try:
        import uvloop  # noqa: PLC0415 -- optional
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    main()
