"""`llmgw mdm`: for whoever manages laptops. The work is done in `llmgw_mdm`."""

from __future__ import annotations

from pathlib import Path

import click

from llmgw_agent.commands.options import json_option, show


@click.group()
def mdm() -> None:
    """Write and check what IT pushes to laptops."""


@mdm.command()
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
