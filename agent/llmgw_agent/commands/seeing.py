"""Commands that show something and change nothing: status, whoami, usage, statusline, doctor, netcheck and the like."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click

from llmgw_agent import __version__, output, screens
from llmgw_agent.client import Client
from llmgw_agent.commands.options import json_option, show
from llmgw_agent.errors import AgentError, DaemonError, from_code


@click.command()
@json_option
def status(*, as_json: bool) -> None:
    """Show who is signed in, the gateway, and the budgets. The exit code is 0 only if all is well."""
    document = Client(os.environ).get("/status")
    if as_json:
        show(document)
    else:
        click.echo(screens.status(document, datetime.now(UTC)))
    if document["error"]:
        raise click.exceptions.Exit(document["error"]["exit_code"])


@click.command()
@json_option
def whoami(*, as_json: bool) -> None:
    """Show who the gateway takes you for."""
    document = Client(os.environ).get("/whoami")
    if as_json:
        show(document)
    else:
        click.echo(screens.whoami(document["me"]))


@click.command(short_help="Show what you used today, this week, this month.")
@json_option
def usage(*, as_json: bool) -> None:
    """Show what you used today, this week and this month, by model and by project."""
    document = Client(os.environ).get("/usage")
    if as_json:
        show(document)
    else:
        click.echo(screens.usage(document["usage"]))


@click.command()
@json_option
def statusline(*, as_json: bool) -> None:
    """Print one line for Claude Code's status line. It waits for nobody, starts nothing, and never fails."""
    try:
        glance = Client(os.environ).glance()
        line = screens.statusline(glance, datetime.now(UTC))
    except AgentError as failure:
        glance, line = None, output.error(failure)
    if as_json:
        show({"line": line, "glance": glance})
    else:
        click.echo(line)


@click.command(short_help="Look for what goes wrong, and say what puts it right.")
@json_option
@click.option("--strict", is_flag=True, help="Warnings count as failures.")
def doctor(*, as_json: bool, strict: bool) -> None:
    """Look for what usually goes wrong, and say what would put it right. The exit code is 1 if something failed."""
    from llmgw_agent import doctor as checking  # noqa: PLC0415 -- only this command needs what it imports

    checks = checking.examine(os.environ, Path.cwd())
    is_healthy = checking.is_healthy(checks, strict=strict)
    if as_json:
        show(screens.doctor_json(checks, is_healthy=is_healthy))
    else:
        click.echo(screens.doctor(checks))
    if not is_healthy:
        raise click.exceptions.Exit(1)


@click.command(short_help="Try the way to the gateway and the sign-in.")
@json_option
def netcheck(*, as_json: bool) -> None:
    """Try the way to the gateway and the sign-in: names, connections, certificates, proxy, clock."""
    from llmgw_agent import doctor as checking  # noqa: PLC0415 -- only this command needs what it imports
    from llmgw_agent import netcheck as network  # noqa: PLC0415 -- the same
    from llmgw_agent import settings  # noqa: PLC0415 -- the same

    checks = network.examine(settings.load(os.environ), os.environ)
    is_healthy = checking.is_healthy(checks, strict=False)
    if as_json:
        show(screens.doctor_json(checks, is_healthy=is_healthy))
    else:
        click.echo(screens.doctor(checks))
    if not is_healthy:
        raise click.exceptions.Exit(6)


@click.command(short_help="Write what helps to find a fault into one file.")
@click.option("-o", "--output", "path", type=click.Path(path_type=Path), help="Where to write it.")
@click.option("--dry-run", is_flag=True, help="Print it, write nothing.")
@json_option
def bugreport(path: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Write what helps to find a fault into one file, without credentials and names. Read it before you share it."""
    from llmgw_agent import bugreport as report  # noqa: PLC0415 -- only this command needs what it imports

    sections = report.collect(os.environ, Path.cwd())
    if dry_run:
        if as_json:
            show({"bugreport": {"path": None, "sections": sections}})
        else:
            click.echo(report.text(sections), nl=False)
        return
    chosen = (path or Path(f"llmgw-bugreport-{datetime.now(UTC):%Y%m%d-%H%M%S}.txt")).absolute()
    report.write(chosen, report.text(sections))
    if as_json:
        show({"bugreport": {"path": str(chosen), "sections": list(sections)}})
    else:
        click.echo(output.bugreport(str(chosen), list(sections)))


@click.group()
def config() -> None:
    """Settings: what is in force, and why."""


@config.command()
@json_option
def explain(*, as_json: bool) -> None:
    """Show each setting's value and where it comes from. The exit code is 8 if there is a fault."""
    from llmgw_agent import settings  # noqa: PLC0415 -- only this command needs it

    found, faults = settings.explain(os.environ)
    if as_json:
        show(screens.settings_json(found, settings.DEFAULTS, faults))
    else:
        click.echo(screens.settings(found, settings.DEFAULTS, faults))
    settings.load(os.environ)  # what is wrong as a whole is told as everywhere else


@click.command(short_help="Show the version, and whether agent and gateway fit.")
@click.option("--check", is_flag=True, help="Ask the running agent and the gateway whether they go with it.")
@json_option
def version(*, check: bool, as_json: bool) -> None:
    """Show the version of this command, and whether agent and gateway go with it."""
    document = Client(os.environ).get("/status") if check else None
    if document is None:
        if as_json:
            show({"version": __version__})
        else:
            click.echo(output.version(__version__, None))
        return
    if as_json:
        show({"version": __version__} | output.versions(document))
    else:
        click.echo(output.version(__version__, document))
    if document["daemon"]["version"] != __version__:
        running = document["daemon"]["version"]
        raise DaemonError(f"the agent that runs is {running}, this command is {__version__}", "Run: llmgw daemon rest")
    refusal = document["gateway"]["error"]
    if refusal:
        raise from_code(refusal["code"], refusal["message"], refusal["hint"])
