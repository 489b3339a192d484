"""`llmgw profile`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from llmgw_agent import output
from llmgw_agent.client import Client
from llmgw_agent.commands.options import json_option, show
from llmgw_agent.errors import AgentError, ConfigurationError

if TYPE_CHECKING:
    from llmgw_agent.profiles import Profile


@click.group(short_help="Several gateways or accounts beside each other.")
def profile() -> None:
    """Several gateways or accounts beside each other: each has a sign-in, settings and an agent of its own.

    Name one with -p before a command, or in LLMGW_PROFILE; what `llmgw -p NAME setup` writes names it, too.
    """


@profile.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """Show which there are, their gateways, and who is signed in."""
    from llmgw_agent import profiles  # noqa: PLC0415 -- only these commands need it

    found = [_standing(each) for each in profiles.listed(os.environ)]
    if as_json:
        show({"profiles": found})
    else:
        click.echo(output.profiles(found))


@profile.command()
@click.argument("name")
@click.option("--gateway", required=True, metavar="URL", help="The address of its gateway.")
@click.option("--ca-file", default="", metavar="FILE", help="An extra certificate authority for it.")
@json_option
def add(name: str, gateway: str, ca_file: str, *, as_json: bool) -> None:
    """Make a profile. Then sign in with it: llmgw -p NAME login."""
    from llmgw_agent import profiles  # noqa: PLC0415 -- the same

    made = profiles.add(os.environ, name, gateway, ca_file)
    if as_json:
        show({"profile": _standing(made)})
    else:
        click.echo(output.profile_added(made.name, made.gateway_url, made.fault))


@profile.command()
@click.argument("name")
@json_option
def remove(name: str, *, as_json: bool) -> None:
    """Sign a profile out, end its agent, and delete its files."""
    from llmgw_agent import profiles  # noqa: PLC0415 -- the same

    profiles.require(os.environ, name)
    client = Client(profiles.environment(os.environ, name))
    answer: dict[str, Any] = {"was_signed_in": False, "revoked": [], "not_revoked": []}
    # Where its settings are wrong no agent runs, and nothing can be revoked.
    with contextlib.suppress(ConfigurationError):
        answer = client.post("/logout", {"local_only": False})["logout"]
        client.end()
    profiles.remove(os.environ, name)
    if as_json:
        show({"profile": {"name": name}, "logout": answer})
    else:
        click.echo(output.profile_removed(name, answer))


def _standing(found: Profile) -> dict[str, Any]:
    """What is known without asking a gateway. No agent is started for it."""
    from llmgw_agent import profiles  # noqa: PLC0415 -- the same

    client = Client(profiles.environment(os.environ, found.name))
    glance = None
    with contextlib.suppress(AgentError):
        glance = client.glance()
    return {
        "name": found.name,
        "gateway_url": found.gateway_url or None,
        "fault": found.fault or None,
        "running": glance is not None,
        "account": glance["account"] if glance else None,
    }
