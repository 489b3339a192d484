"""The command `llmgw`: parses, asks the daemon, prints. Nothing is decided here, and nothing heavy imported."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import Any

import click

from llmgw_agent import __version__, browser, forwarding, launcher, output, settings, system, ways
from llmgw_agent.client import Client
from llmgw_agent.commands.completion import completion
from llmgw_agent.commands.forward import forward
from llmgw_agent.commands.mdm import mdm
from llmgw_agent.commands.options import is_asked, json_option, show
from llmgw_agent.commands.profile import profile as profiles
from llmgw_agent.commands.seeing import (
    bugreport,
    config,
    doctor,
    netcheck,
    status,
    statusline,
    usage,
    version,
    whoami,
)
from llmgw_agent.commands.service import service
from llmgw_agent.commands.setup import setup
from llmgw_agent.errors import AgentError, RefusedError, UsageError, speak_for


class Commands(click.Group):
    """Turns every failure into one line and its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- click's own signature
        """Run a command; never a stack trace for what was expected."""
        try:
            # Outside of standalone mode click returns the code of an Exit instead of ending with it.
            code, line = super().main(*args, **kwargs | {"standalone_mode": False, "prog_name": "llmgw"}) or 0, ""
        except AgentError as failure:
            code, line = failure.exit_code, output.error(failure)
        except click.exceptions.NoArgsIsHelpError as failure:
            code, line = 2, failure.format_message()
        except click.ClickException as failure:
            code, line = 2, output.error(_typed_wrongly(failure))
            if "--json" in sys.argv:  # what was typed could not be read, so nobody has noted this
                show(output.failure(_typed_wrongly(failure)))
        except (click.Abort, KeyboardInterrupt):
            code, line = 2, "llmgw: interrupted."
        except Exception as failure:  # noqa: BLE001 -- the last line of defence: a sentence, never a trace
            unexpected = AgentError(f"something unexpected happened ({type(failure).__name__})", "Report this")
            code, line = 1, output.error(unexpected)
        if line:
            click.echo(line, err=True)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's own signature
        """Run a command that was parsed; a failure is the one object that `--json` promises, too."""
        try:
            return super().invoke(ctx)
        except AgentError as failure:
            if is_asked(ctx):
                show(output.failure(failure))
            raise


def _typed_wrongly(failure: click.ClickException) -> UsageError:
    """One sentence, and where the command that was meant is explained."""
    told = failure.message if isinstance(failure, click.BadParameter) and failure.message else failure.format_message()
    context = failure.ctx if isinstance(failure, click.UsageError) else None
    meant = context.command_path if context is not None else "llmgw"
    return UsageError(" ".join(told.split()).removesuffix("."), f"Run: {meant} --help")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmgw")
@click.option("-p", "--profile", default="", metavar="NAME", help="Act for this profile; see: llmgw profile --help.")
def main(profile: str) -> None:
    """Sign in once; every tool gets short-lived tokens for your company's LLM gateway."""
    if profile:
        os.environ["LLMGW_PROFILE"] = profile  # what is started for this command acts for it, too
    speak_for(settings.places(os.environ).profile)


@main.command()
@click.option("--issuer", default="", help="The identity provider, if the gateway accepts several.")
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening a browser.")
@click.option("--choose-account", is_flag=True, help="Have the provider ask which account, if it knows several.")
@click.option(
    "--method",
    type=click.Choice([ways.AUTO, *settings.METHODS]),
    default=ways.AUTO,
    help="auto: what worked here the last time, else what this machine is like. "
    "paste: sign in with a browser on another machine and bring its last address back. "
    "device: type a code in there instead, where your company allows that.",
)
@json_option
def login(issuer: str, method: str, *, no_browser: bool, choose_account: bool, as_json: bool) -> None:
    """Sign in with your company account."""
    client, home = Client(os.environ), settings.places(os.environ).home
    likes = ["browser"] if no_browser and method == ways.AUTO else []
    likes = likes or ways.wanted(method, os.environ, home, has_terminal=sys.stdin.isatty())
    started = client.post("/login", {"issuer": issuer, "methods": likes, "choose_account": choose_account})["login"]
    way = started["method"]
    opens = way == "browser" and not no_browser and (method == "browser" or browser.is_here(os.environ))
    if way == "device":
        click.echo(output.enter_code(started["user_code"], started["expires_in"]), err=as_json)
    else:
        click.echo(output.open_browser() if opens else output.visit(), err=as_json)
    click.echo(started["url"], err=as_json)
    sys.stdout.flush()
    if opens:
        browser.show(started["url"], os.environ)
    if way == "paste":
        _paste(client, started["id"], wait=method == "paste")
    else:
        click.echo(output.waiting(), err=True)
    answer = client.get(f"/login/{started['id']}")
    while answer["login"]["state"] == "pending":
        answer = client.get(f"/login/{started['id']}")
    if method != ways.AUTO:
        ways.remember(home, method)
    if as_json:
        show(answer)
    else:
        click.echo(output.signed_in(answer["account"]))


@main.command()
@click.option("--local-only", is_flag=True, help="Do not tell the gateway and the identity provider.")
@json_option
def logout(*, local_only: bool, as_json: bool) -> None:
    """Sign out: revoke the sign-in and forget it."""
    answer = Client(os.environ).post("/logout", {"local_only": local_only})
    if as_json:
        show(answer)
    else:
        click.echo(output.signed_out(answer["logout"]))


@main.command(short_help="Print a gateway token, as `llmgw-token` does.")
@json_option
def token(*, as_json: bool) -> None:
    """Print a gateway token, as `llmgw-token` does; with `--json` also until when it is good."""
    if launcher.is_ambient(os.environ):
        from llmgw_agent.ambient import fetch_now  # noqa: PLC0415 -- a third of a second that only CI jobs need

        fetched = fetch_now(os.environ)
        if as_json:
            show(output.ambient_token(fetched.value.reveal(), fetched.expires_at, time.time()))
        else:
            click.echo(fetched.value.reveal())
    elif as_json:
        show(Client(os.environ).get("/token"))
    else:
        click.echo(Client(os.environ).token())


@main.command(
    short_help="Run a command through the forwarder: llmgw run -- COMMAND",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...]) -> None:
    """Run a command whose model calls go through the forwarder: llmgw run -- COMMAND."""
    answer = Client(os.environ).post("/forward", {})["forward"]
    try:
        system.become(command, {**os.environ, **forwarding.variables(answer, os.environ)})
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run ({error.strerror})", "Run: llmgw run --help") from None


for _command in (
    *(
        bugreport,
        completion,
        config,
        doctor,
        forward,
        mdm,
        netcheck,
        profiles,
        service,
        setup,
        status,
        statusline,
        usage,
        version,
        whoami,
    ),
):
    main.add_command(_command)


@main.group(invoke_without_command=True)
@click.pass_context
def daemon(context: click.Context) -> None:
    """Run the agent in the foreground. Commands start it by themselves; service managers use this."""
    if context.invoked_subcommand is None:
        from llmgw_agent import daemon as background  # noqa: PLC0415 -- a third of a second that only this command needs

        if not background.run():
            click.echo(output.already_running(), err=True)


@daemon.command()
@json_option
def stop(*, as_json: bool) -> None:
    """End the agent that is running."""
    client = Client(os.environ)
    pid = client.post("/stop", {})["stop"]["pid"] if client.is_running else None
    if as_json:
        show({"stop": {"pid": pid}})
    else:
        click.echo(output.stopped(pid) if pid else output.not_running())


@daemon.command(name="rest", short_help="Have the agent give back its memory until it is asked.")
@json_option
def rest_(*, as_json: bool) -> None:
    """Have the agent give back its memory until it is asked, as it does by itself after a quarter of an hour.

    Whoever is signed in stays so. After an update this is how the new version is taken up.
    """
    if not system.HAS_SOCKETS:
        raise RefusedError("the agent does not rest on Windows", "To have it begin anew: llmgw daemon stop")
    client = Client(os.environ)
    pid = client.post("/rest", {})["rest"]["pid"] if client.is_running else None
    if as_json:
        show({"rest": {"pid": pid}})
    else:
        click.echo(output.resting(pid) if pid else output.not_running())


def _paste(client: Client, login_id: str, *, wait: bool) -> None:
    """Ask for the address until it fits. Unless told to `wait`, a browser that gets through is noticed as well."""

    def ask() -> None:
        while True:
            address = click.prompt(output.paste_prompt(), err=True)
            try:
                client.post(f"/login/{login_id}/answer", {"address": address})
            except UsageError as failure:
                click.echo(output.error(failure), err=True)
            else:
                return

    if wait:
        ask()
        return

    def ask_beside() -> None:
        # No more input, or a daemon that went away: whoever waits for the sign-in says so.
        with contextlib.suppress(click.Abort, AgentError):
            ask()

    # A daemon thread: it ends with the command, in the middle of the prompt if the browser was faster.
    threading.Thread(target=ask_beside, daemon=True).start()
