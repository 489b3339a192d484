"""`llmgw setup`."""

from __future__ import annotations

import os
from typing import Final

import click

from llmgw_agent import output
from llmgw_agent.commands.options import json_option, show
from llmgw_agent.errors import UsageError

NAMES: Final = ("claude", "codex", "continue", "cursor", "opencode", "aws-sdk", "openai-sdk")
"""Those of `setup.tools`, which is not imported before it is needed."""


@click.command(short_help="Make a tool's model calls go through the gateway.")
@click.argument("tool", type=click.Choice(NAMES), required=False)
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("--undo", is_flag=True, help="Take back what was written, and nothing else.")
@click.option("--list", "wants_list", is_flag=True, help="Show which tools are set up.")
@click.option(
    "--dialect",
    type=click.Choice(["bedrock", "anthropic"]),
    default="bedrock",
    show_default=True,
    help="Which one Claude Code speaks with the gateway.",
)
@json_option
def setup(tool: str | None, dialect: str, *, dry_run: bool, undo: bool, wants_list: bool, as_json: bool) -> None:
    """Write a tool's own configuration, so that its model calls go through the gateway."""
    from llmgw_agent.setup import apply  # noqa: PLC0415 -- only this command needs it

    if wants_list:
        tools = apply.listed(os.environ)
        if as_json:
            show({"tools": [{"name": name, "set_up": is_set} for name, is_set in tools.items()]})
        else:
            click.echo(output.setup_list(tools))
        return
    if tool is None:
        raise UsageError("no tool is named", f"Name one of: {', '.join(NAMES)}")
    if undo:
        outcome = apply.take_back(os.environ, tool, is_dry=dry_run)
    else:
        outcome = apply.set_up(os.environ, tool, dialect=dialect, is_dry=dry_run)
    if as_json:
        show({"setup": output.setup_json(outcome)})
    else:
        click.echo(output.setup(outcome))
