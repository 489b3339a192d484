"""`llmgw-gateway`: the command line of the central service. What needs no server is in `commands/`."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import click

from llmgw_gateway.commands.audit import audit
from llmgw_gateway.commands.budget import budget
from llmgw_gateway.commands.configuration import CONFIG, EXIT_INCOMPLETE, ConfigurationFile, load, refusals, report
from llmgw_gateway.commands.directory import directory
from llmgw_gateway.commands.erase import erase
from llmgw_gateway.commands.keys import keys
from llmgw_gateway.commands.ledger import ledger
from llmgw_gateway.commands.people import people
from llmgw_gateway.commands.policy import policy
from llmgw_gateway.commands.prices import models, prices
from llmgw_gateway.commands.retention import retention
from llmgw_gateway.commands.roles import init, roles
from llmgw_gateway.commands.usage import usage_command
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.store.reading import reachable

if TYPE_CHECKING:
    from pathlib import Path


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmgw")
def main() -> None:
    """Run and inspect the llmgw gateway."""


@main.command()
@CONFIG
def serve(config: Path) -> None:
    """Serve with the configuration CONFIG until SIGTERM."""
    from llmgw_gateway.app import Gateway  # noqa: PLC0415 -- what only reads needs no server
    from llmgw_gateway.store.opening import upgrade_apart  # noqa: PLC0415 -- the same

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("alembic", "botocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    settings, catalogue = load(config)

    async def run() -> bool:
        return await Gateway(settings, catalogue, ConfigurationFile(config)).run()

    with refusals():
        upgrade_apart(settings)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            complete = runner.run(run())
    if not complete:
        sys.exit(EXIT_INCOMPLETE)


@main.command(short_help="Say every fault of a configuration.")
@CONFIG
def check(config: Path) -> None:
    """Say every fault of the configuration CONFIG and of this machine for it, and whether the store can be reached."""
    from llmgw_gateway.commands.starting import start_faults  # noqa: PLC0415 -- what only reads needs no network

    settings, _ = load(config)
    if faults := start_faults(settings):
        report(ConfigurationError(str(config), faults))
    click.echo(f"{config}: good ({len(settings.models)} models, {len(settings.issuers)} issuers)")
    with refusals():
        click.echo(reachable(settings))


for command in (
    models,
    prices,
    policy,
    budget,
    keys,
    directory,
    people,
    erase,
    roles,
    init,
    ledger,
    audit,
    retention,
    usage_command,
):
    main.add_command(command)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """Uvloop where it exists (not on Windows): a sixth less CPU for each request."""
    try:
        import uvloop  # noqa: PLC0415 -- optional
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    main()
