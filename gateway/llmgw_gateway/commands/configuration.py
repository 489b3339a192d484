"""What every command begins with: reading the configuration, and saying in sentences why that does not work."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from llmgw_gateway import settings as configuration
from llmgw_gateway.errors import ConfigurationError, StoreError
from llmgw_gateway.money import catalogues
from llmgw_gateway.offer import direct_targets, policy
from llmgw_gateway.policy.permissions import title

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.settings import Settings

EXIT_FAULTS = 1
"""What was examined is not as it has to be."""
EXIT_CONFIGURATION = 2
EXIT_STORE = 3
EXIT_INCOMPLETE = 4
"""The gateway has ended, and left something behind that its log names."""
CONFIG = click.argument("config", type=click.Path(path_type=Path))


def today() -> date:
    """The day whose prices hold now: prices change at midnight UTC."""
    return datetime.now(UTC).date()


def read(config: Path) -> tuple[Settings, Catalogue]:
    """Configuration and prices, each good in itself. ConfigurationError carries every fault."""
    settings = configuration.load(config)
    file = settings.prices.file
    return settings, catalogues.load(settings.path(file) if file else None)


def load(config: Path) -> tuple[Settings, Catalogue]:
    """Configuration and prices that a gateway can start with, or every fault on standard error and exit status 2."""
    with refusals():
        return startable(config)


def startable(config: Path) -> tuple[Settings, Catalogue]:
    """Configuration and prices that a gateway can start with. ConfigurationError carries every fault."""
    from llmgw_gateway.app import bridging_table  # noqa: PLC0415 -- half of the gateway; what only reads the ledger does without

    settings, catalogue = read(config)
    policy(settings, catalogue)
    bridging_table(settings, catalogue)
    faults = unpriced(settings, catalogue, today())
    if faults:
        raise ConfigurationError(str(config), faults)
    return settings, catalogue


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """Where a running gateway finds its configuration again."""

    path: Path

    def read(self) -> tuple[Settings, Catalogue]:
        """Configuration and prices as the files are now. ConfigurationError carries every fault."""
        return startable(self.path)


def unpriced(settings: Settings, catalogue: Catalogue, day: date) -> list[str]:
    """Configured models that cannot be charged: unknown ones, ones whose price begins later."""
    faults = []
    for number, model in enumerate(settings.models):
        known = catalogue.models.get(model.name)
        if known is None:
            what = "has no price"
        elif not any(p.tier == "standard" and not p.context_over for p in catalogue.in_force(model.name, day)):
            what = f"has no price in force on {day}: its first one begins later"
        elif direct_targets(settings, model) and not any(
            p.geography == "direct" for p in catalogue.in_force(model.name, day)
        ):
            what = f"has no direct price in force on {day}: its first one begins later"
        else:
            continue
        faults.append(f"models[{number}].name: {model.name!r} {what}")
    return faults


def place(config: Path, settings: Settings, number: int) -> str:
    """An entry of `[[policies]]` as it is found in the file: by number, name and line."""
    lines = config.read_text(encoding="utf-8").splitlines()
    headers = [at for at, line in enumerate(lines, 1) if "".join(line.split()).startswith("[[policies]]")]
    line = f", line {headers[number]}" if len(headers) == len(settings.policies) else ""
    return f"{title(number, settings.policies[number])}{line}"


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the configuration or the store refuses into sentences on standard error and an exit status."""
    try:
        yield
    except ConfigurationError as error:
        report(error)
    except StoreError as error:
        click.echo(f"llmgw-gateway: {error}", err=True)
        sys.exit(EXIT_STORE)


def report(error: ConfigurationError) -> NoReturn:
    """Say every fault."""
    count = len(error.faults)
    click.echo(f"llmgw-gateway: {error.source}: {count} {'fault' if count == 1 else 'faults'}", err=True)
    for fault in error.faults:
        click.echo(f"  {fault}", err=True)
    sys.exit(EXIT_CONFIGURATION)
