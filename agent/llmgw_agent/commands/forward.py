"""`llmgw forward`: the forwarder's variables, and sockets for other machines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from llmgw_agent import forwarding, output, system
from llmgw_agent.client import Client
from llmgw_agent.commands.options import json_option, show
from llmgw_agent.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

UNITS = {"s": 1, "m": 60, "h": 3600}


class Span(click.ParamType[int]):
    """A length of time: 30m, 8h, or seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 -- click's signature
        """Seconds."""
        text = str(value)
        number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
        if not number.isdecimal():
            self.fail(f"{text!r} is no length of time; write 30m or 8h.", param, ctx)
        return int(number) * UNITS[unit]


def _need_sockets() -> None:
    """RefusedError where there are none."""
    if not system.HAS_SOCKETS:
        raise RefusedError(
            "Windows has no sockets that could be led to another machine",
            "Run the agent inside WSL for this, or sign in there: llmgw login --method paste",
        )


ttl_option = click.option("--ttl", type=Span(), default="8h", show_default=True, help="How long it is good: 30m, 8h.")


@click.group(invoke_without_command=True, short_help="Open the forwarder, and print what tools need.")
@json_option
@click.pass_context
def forward(context: click.Context, *, as_json: bool) -> None:
    """Open the forwarder for tools that take only an address, and print what they need as shell variables.

    With a command: give tokens to another machine, without giving it a credential.
    """
    if context.invoked_subcommand is not None:
        return
    document = Client(os.environ).post("/forward", {})
    variables = forwarding.variables(document["forward"], os.environ)
    document["forward"]["variables"] = variables
    if as_json:
        show(document)
    else:
        click.echo(output.exports(variables))


@forward.command(short_help="Let llmgw-token work on a host, while this runs.")
@click.argument("host")
@ttl_option
def ssh(host: str, ttl: int) -> None:
    """Let `llmgw-token` work on HOST for as long as this command runs: its socket there leads here.

    HOST is what you give to ssh. No credential is left on it.
    """
    from llmgw_agent import remote  # noqa: PLC0415 -- only this command needs it

    _need_sockets()
    if host.startswith("-"):
        raise UsageError(f"{host} is no host", "Name it as for ssh")
    client = Client(os.environ)
    made = client.post("/passes", {"for": host, "seconds": ttl})["pass"]
    try:
        place = remote.prepare(host)
        click.echo(output.forwarding_to(host, ttl), err=True)
        remote.hold(host, place, made["socket"], ttl)
    finally:
        client.post(f"/passes/{made['id']}/revoke", {})


@forward.command(short_help="Make a socket for a container, and print how to mount it.")
@click.argument("name")
@ttl_option
@json_option
def container(name: str, ttl: int, *, as_json: bool) -> None:
    """Make a socket for a container, and print the options that mount it there."""
    _need_sockets()
    document = Client(os.environ).post("/passes", {"for": name, "seconds": ttl})
    if as_json:
        show(document)
    else:
        click.echo(output.mounting(document["pass"]["socket"], document["pass"]["id"], ttl))


@forward.command(name="list", short_help="Show the sockets for other machines.")
@json_option
def list_(*, as_json: bool) -> None:
    """Show the sockets for other machines that are open."""
    document = Client(os.environ).get("/passes")
    if as_json:
        show(document)
    else:
        click.echo(output.passes(document["passes"]))


@forward.command(short_help="End a socket for another machine.")
@click.argument("name", metavar="ID")
@json_option
def revoke(name: str, *, as_json: bool) -> None:
    """End a socket for another machine, at once."""
    if not name.isalnum():
        raise UsageError("that is no pass", "See: llmgw forward list")
    document: Mapping[str, Any] = Client(os.environ).post(f"/passes/{name}/revoke", {})
    if as_json:
        show(dict(document))
    else:
        click.echo(output.revoked(document["pass"]["for"]))
