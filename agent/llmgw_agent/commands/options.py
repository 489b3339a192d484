"""What commands have in common: `--json`, which prints one object with `schema`, also for a failure."""

from __future__ import annotations

import json
from typing import Any, Final

import click

SCHEMA: Final = 1
"""Grows only when a change would break a reader; new members come without notice."""
ASKED: Final = "llmgw.json"


def _note(context: click.Context, _option: click.Parameter, value: bool) -> bool:  # noqa: FBT001 -- click's signature
    # Noted for whoever prints a failure, however deep the command lies.
    context.meta[ASKED] = value or context.meta.get(ASKED, False)
    return value


json_option = click.option("--json", "as_json", is_flag=True, callback=_note, help="One object with a schema number.")


def is_asked(context: click.Context) -> bool:
    """Whether this command was asked for JSON."""
    return bool(context.meta.get(ASKED))


def show(document: dict[str, Any]) -> None:
    """Print the one object."""
    click.echo(json.dumps({"schema": SCHEMA} | document, indent=2))
