"""`llmgw service`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from llmgw_agent import output, system
from llmgw_agent.commands.options import json_option, show

if TYPE_CHECKING:
    from llmgw_agent.service import State


@click.group()
def service() -> None:
    """Have the agent started with your session."""


@service.command(short_help="Write the service's files and start it.")
@json_option
def install(*, as_json: bool) -> None:
    """Write the service's files and start it (systemd, launchd on macOS, a scheduled task on Windows)."""
    _show(system.services().install(os.environ), as_json=as_json)


@service.command(short_help="End the service and remove its files.")
@json_option
def uninstall(*, as_json: bool) -> None:
    """End the service and remove its files; commands start the agent as before."""
    _show(system.services().uninstall(os.environ), as_json=as_json)


@service.command(name="status", short_help="Show whether the service is installed.")
@json_option
def status_(*, as_json: bool) -> None:
    """Show whether the service is installed, and what the service manager says."""
    _show(system.services().state(os.environ), as_json=as_json)


def _show(state: State, *, as_json: bool) -> None:
    if as_json:
        files = [str(path) for path in state.files]
        show({"service": {"installed": state.is_installed, "says": state.says or None, "files": files}})
    else:
        click.echo(output.service([str(path) for path in state.files], state.says, is_installed=state.is_installed))
