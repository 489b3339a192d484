"""The command `llmgw`: parses, asks the daemon, prints. Nothing is decided here, and nothing heavy imported."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import webbrowser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from llmgw_agent import __version__, forwarding, output
from llmgw_agent.client import Client
from llmgw_agent.commands.options import is_asked, json_option, show
from llmgw_agent.commands.setup import setup
from llmgw_agent.errors import AgentError, ConfigurationError, UsageError

SSH: Final = ("SSH_CONNECTION", "SSH_TTY")
DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")


class Commands(click.Group):
    """Turns every failure into one line and its exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- click's own signature
        """Run a command; never a stack trace for what was expected."""
        try:
            # Outside of standalone mode click returns the code of an Exit instead of ending with it.
            code, line = super().main(*args, **kwargs | {"standalone_mode": False}) or 0, ""
        except AgentError as failure:
            code, line = failure.exit_code, output.error(failure)
        except click.ClickException as failure:
            code, line = 2, f"llmgw: {failure.format_message()} Run: llmgw --help"
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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmgw")
def main() -> None:
    """Sign in once; every tool gets short-lived tokens for your company's LLM gateway."""
    if sys.platform == "win32":
        raise ConfigurationError("the agent does not run on Windows yet", "Run it inside WSL")


@main.command()
@click.option("--issuer", default="", help="The identity provider, if the gateway accepts several.")
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening a browser.")
@click.option(
    "--method",
    type=click.Choice(["auto", "browser", "paste", "device"]),
    default="auto",
    help="paste: sign in with a browser on another machine and bring its last address back. "
    "device: type a code in there instead, where your company allows that.",
)
def login(issuer: str, method: str, *, no_browser: bool) -> None:
    """Sign in with your company account."""
    client = Client(os.environ)
    has_browser = not no_browser and (method == "browser" or (method == "auto" and _has_display()))
    asks = method == "paste" or (method == "auto" and not has_browser and not no_browser and sys.stdin.isatty())
    way = "device" if method == "device" else "paste" if asks else "browser"
    started = client.post("/login", {"issuer": issuer, "method": way})["login"]
    if way == "device":
        click.echo(output.enter_code(started["user_code"], started["expires_in"]))
    else:
        click.echo(output.open_browser() if has_browser else output.visit())
    click.echo(started["url"])
    sys.stdout.flush()
    if has_browser:
        _open(started["url"])
    if asks:
        _paste(client, started["id"], wait=method == "paste")
    else:
        click.echo(output.waiting(), err=True)
    answer = client.get(f"/login/{started['id']}")
    while answer["login"]["state"] == "pending":
        answer = client.get(f"/login/{started['id']}")
    click.echo(output.signed_in(answer["account"]))


@main.command()
@click.option("--local-only", is_flag=True, help="Do not tell the gateway and the identity provider.")
def logout(*, local_only: bool) -> None:
    """Sign out: revoke the sign-in and forget it."""
    answer = Client(os.environ).post("/logout", {"local_only": local_only})
    click.echo(output.signed_out(answer["logout"]))


@main.command()
def token() -> None:
    """Print a gateway token, as `llmgw-token` does."""
    click.echo(Client(os.environ).token())


@main.command()
@json_option
def status(*, as_json: bool) -> None:
    """Show who is signed in, the gateway, and the budgets. The exit code is 0 only if all is well."""
    document = Client(os.environ).get("/status")
    click.echo(json.dumps(document, indent=2) if as_json else output.status(document, datetime.now(UTC)))
    if document["error"]:
        raise click.exceptions.Exit(document["error"]["exit_code"])


@main.command()
@json_option
def whoami(*, as_json: bool) -> None:
    """Show who the gateway takes you for."""
    document = Client(os.environ).get("/whoami")
    click.echo(json.dumps(document, indent=2) if as_json else output.whoami(document["me"]))


@main.command()
def statusline() -> None:
    """Print one line for Claude Code's status line. It waits for nobody, starts nothing, and never fails."""
    try:
        line = output.statusline(Client(os.environ).glance(), datetime.now(UTC))
    except AgentError as failure:
        line = output.error(failure)
    click.echo(line)


@main.command()
@json_option
def forward(*, as_json: bool) -> None:
    """Open the forwarder for tools that take only an address, and print what they need as shell variables."""
    document = Client(os.environ).post("/forward", {})
    variables = forwarding.variables(document["forward"], os.environ)
    document["forward"]["variables"] = variables
    click.echo(json.dumps(document, indent=2) if as_json else output.exports(variables))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...]) -> None:
    """Run a command whose model calls go through the forwarder: llmgw run -- COMMAND."""
    answer = Client(os.environ).post("/forward", {})["forward"]
    try:
        os.execvpe(command[0], command, {**os.environ, **forwarding.variables(answer, os.environ)})  # noqa: S606 -- what its user asked for
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run ({error.strerror})", "Run: llmgw run --help") from None


@main.command()
@json_option
@click.option("--strict", is_flag=True, help="Warnings count as failures.")
def doctor(*, as_json: bool, strict: bool) -> None:
    """Look for what usually goes wrong, and say what would put it right. The exit code is 1 if something failed."""
    from llmgw_agent import doctor as checking  # noqa: PLC0415 -- only this command needs what it imports

    checks = checking.examine(os.environ, Path.cwd())
    is_healthy = checking.is_healthy(checks, strict=strict)
    document = output.doctor_json(checks, is_healthy=is_healthy)
    click.echo(json.dumps(document, indent=2) if as_json else output.doctor(checks))
    if not is_healthy:
        raise click.exceptions.Exit(1)


main.add_command(setup)


@main.group(invoke_without_command=True)
@click.pass_context
def daemon(context: click.Context) -> None:
    """Run the agent in the foreground. Commands start it by themselves; service managers use this."""
    if context.invoked_subcommand is None:
        from llmgw_agent import daemon as background  # noqa: PLC0415 -- a third of a second that only this command needs

        if not background.run():
            click.echo(output.already_running(), err=True)


@daemon.command()
def stop() -> None:
    """End the agent that is running."""
    client = Client(os.environ)
    if not client.is_running:
        click.echo(output.not_running())
        return
    click.echo(output.stopped(client.post("/stop", {})["stop"]["pid"]))


def _has_display() -> bool:
    """Whether a browser opened here is one that the person sees."""
    if any(os.environ.get(name) for name in SSH):
        return False
    return sys.platform != "linux" or any(os.environ.get(name) for name in DISPLAYS)


def _open(url: str) -> None:
    """Open the browser. Its output goes nowhere: stdout is ours."""
    if sys.platform == "darwin":
        subprocess.run(["/usr/bin/open", url], capture_output=True, check=False)  # noqa: S603 -- one argument, no shell
        return
    saved = os.dup(1)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- the name is the operating system's
        os.dup2(nowhere.fileno(), 1)
    try:
        webbrowser.open(url)
    finally:
        os.dup2(saved, 1)
        os.close(saved)


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
