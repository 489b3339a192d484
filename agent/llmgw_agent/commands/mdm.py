"""`llmgw mdm`: for whoever manages laptops. The work is done in `llmgw_mdm`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmgw_agent import screens
from llmgw_agent.checks import State
from llmgw_agent.commands.options import json_option, show

if TYPE_CHECKING:
    from llmgw_agent.checks import Check


@click.group()
def mdm() -> None:
    """Write and check what IT pushes to laptops."""


@mdm.command(short_help="Write a first ORG.TOML from what the gateway says.")
@click.argument("url", metavar="GATEWAY_URL")
@click.option("--out", "path", type=click.Path(path_type=Path), default=Path("org.toml"), show_default=True)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="PEM file, if this machine does not trust the gateway."
)
@json_option
def init(url: str, path: Path, ca_file: Path | None, *, as_json: bool) -> None:
    """Write a first ORG.TOML from what the gateway says of itself. It overwrites nothing."""
    import asyncio  # noqa: PLC0415 -- only this command asks somebody

    from llmgw_mdm import first, words  # noqa: PLC0415 -- only these commands need it

    ca_file = ca_file.absolute() if ca_file else None
    first.write(first.text(asyncio.run(first.ask(url.rstrip("/"), ca_file)), ca_file), path)
    if as_json:
        show({"begun": {"file": str(path)}})
    else:
        click.echo(words.begun(path))


@mdm.command(short_help="Write every profile and policy for ORG.TOML.")
@click.argument("org_file", metavar="ORG.TOML", type=click.Path(path_type=Path))
@click.option("--out", "folder", type=click.Path(path_type=Path), default=Path("dist"), show_default=True)
@json_option
def render(org_file: Path, folder: Path, *, as_json: bool) -> None:
    """Write every profile and policy for the organisation that ORG.TOML describes."""
    from llmgw_mdm import organization, words  # noqa: PLC0415 -- only these commands need it
    from llmgw_mdm import render as rendering  # noqa: PLC0415 -- the same

    found = rendering.artefacts(organization.load(org_file))
    rendering.write(found, folder)
    if as_json:
        show({"rendered": {"folder": str(folder), "files": sorted(each.path for each in found)}})
    else:
        click.echo(words.rendered(len(found), folder))


@mdm.command(short_help="Check managed settings, ours or anybody's.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Warnings count as failures.")
@json_option
def lint(path: Path, *, strict: bool, as_json: bool) -> None:
    """Check managed settings, ours or anybody's: JSON, drop-ins, profile, plist, .reg. Exit code 1: it failed."""
    from llmgw_mdm import lint as linting  # noqa: PLC0415 -- only these commands need it

    _report(linting.lint(path), {}, strict=strict, as_json=as_json)


@mdm.command(name="show", short_help="Show which managed settings are in force here.")
@click.option("--gateway", metavar="URL", default="", help="Fail unless this one is pinned.")
@json_option
def show_(gateway: str, *, as_json: bool) -> None:
    """Show which of Claude Code's managed settings are in force on this machine, and what is passed over."""
    from llmgw_mdm import lint as linting  # noqa: PLC0415 -- only these commands need it
    from llmgw_mdm import words  # noqa: PLC0415 -- the same

    policy, checks = linting.show(gateway)
    if not as_json:
        click.echo(words.policy(policy))
    _report(checks, {"policy": words.policy_json(policy)}, strict=False, as_json=as_json)


def _report(checks: list[Check], more: dict[str, Any], *, strict: bool, as_json: bool) -> None:
    is_healthy = not any(check.state is State.FAIL or (strict and check.state is State.WARN) for check in checks)
    if as_json:
        show(screens.doctor_json(checks, is_healthy=is_healthy) | more)
    elif checks:
        click.echo(screens.doctor(checks))
    if not is_healthy:
        raise click.exceptions.Exit(1)
