"""`llmgw doctor`: looks for what usually goes wrong on a laptop, and says of each thing what would put it right.

It changes nothing, and asks nobody but the agent (which asks the gateway) and, for the certificate, the gateway's port.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent import __version__, claude_code, netcheck, settings, system
from llmgw_agent.checks import Check, State, failed, passed, skipped, warned
from llmgw_agent.client import Client
from llmgw_agent.errors import AgentError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmgw_agent.settings import Settings

MOST_SKEW: Final = 60.0
"""Seconds. The agent allows for the offset; other programs of this machine do not."""
TOKEN_SECONDS: Final = 12.0


def examine(environ: Mapping[str, str], folder: Path) -> list[Check]:
    """Every check, in the order in which one would look. `folder`: where Claude Code would be started."""
    try:
        given = settings.load(environ)
    except ConfigurationError as error:
        fault = failed("settings", error.message, "settings without a fault", error.hint)
        return [fault, skipped("agent", "not looked at before its settings are right")]
    sources = ", ".join(f"{key} from {source}" for key, source in sorted(given.sources.items()))
    checks = [passed("settings", f"gateway {given.gateway_url} ({sources})"), *_files(given)]
    status = _status(environ)
    if isinstance(status, AgentError):
        checks.append(failed("agent", status.message, "an agent that answers", status.hint))
    else:
        checks += [*_agent(status), *_gateway(status), *_token(environ, is_signed_in=status["signed_in"])]
    checks += netcheck.certificate(given)
    checks += netcheck.proxy(environ)
    checks += claude_code.examine(claude_code.read(environ, folder), given.gateway_url)
    return checks


def is_healthy(checks: list[Check], *, strict: bool) -> bool:
    """Whether nothing failed; if `strict`, also that nothing was warned about."""
    bad = {State.FAIL, State.WARN} if strict else {State.FAIL}
    return not any(check.state in bad for check in checks)


def _status(environ: Mapping[str, str]) -> dict[str, Any] | AgentError:
    try:
        return Client(environ).get("/status")
    except AgentError as error:
        return error


def _files(given: Settings) -> Iterator[Check]:
    places = given.places
    wrong = [
        path
        for path in (places.home, places.config, places.vault, places.log, *places.folders)
        if path.exists() and system.is_changeable(path)
    ]
    for path in wrong:
        yield failed("files", f"others can change {path}", "yours, and writable by you alone", system.take_back(path))
    if not wrong:
        yield passed("files", f"nobody else can change what lies in {places.home}")


def _agent(status: dict[str, Any]) -> Iterator[Check]:
    daemon, storage = status["daemon"], status["storage"]
    if daemon["version"] == __version__:
        yield passed("agent", f"version {__version__}, process {daemon['pid']}")
    else:
        found = f"version {daemon['version']} runs, this command is {__version__}"
        yield failed("agent", found, "the same version", "Run: llmgw daemon rest")
    if storage["persistent"]:
        yield passed("keyring", storage["description"])
    else:
        right = "an unlocked keyring (macOS Keychain, GNOME Keyring, KWallet)"
        fix = "Nothing, if signing in again after each restart is fine; else start a keyring, then: llmgw daemon stop"
        yield warned("keyring", storage["description"], right, fix)


def _gateway(status: dict[str, Any]) -> Iterator[Check]:
    gateway, problem = status["gateway"], status["error"]
    if gateway["reachable"]:
        yield passed("gateway", f"{gateway['url']} answers")
        skew = gateway["clock_offset_seconds"]
        if abs(skew) <= MOST_SKEW:
            yield passed("clock", f"{abs(skew):g} s off the gateway's")
        else:
            found = f"{abs(skew):g} s {'behind' if skew > 0 else 'ahead of'} the gateway's"
            yield warned("clock", found, f"within {MOST_SKEW:g} s", "Set the clock by the network")
    else:
        right = "a gateway that answers"
        found = problem["message"] if problem and problem["code"] != "sign_in_required" else "it does not answer"
        yield failed("gateway", f"{gateway['url']}: {found}", right, "Check the network (VPN?), then: llmgw status")
    account = status["account"]
    if account:
        yield passed("sign-in", f"{account['email'] or account['name'] or account['subject']} ({account['issuer']})")
    else:
        yield failed("sign-in", problem["message"] if problem else "nobody", "signed in", "Run: llmgw login")


def _token(environ: Mapping[str, str], *, is_signed_in: bool) -> Iterator[Check]:
    """Runs the command as a tool does, once: a second time would look as if the first token had been refused."""
    found = shutil.which(claude_code.HELPER, path=environ.get("PATH"))
    words = [found] if found else system.command_of(claude_code.HELPER, environ)
    command, beside = words[0], Path(words[0])
    if found is None:
        fix = f"Add {beside.parent} to PATH, or give tools the whole path"
        yield warned("token command", f"{claude_code.HELPER} is not on your PATH", f"{beside} on your PATH", fix)
    if not is_signed_in or not os.access(command, os.X_OK):
        yield skipped("token", "not asked for without a sign-in" if not is_signed_in else f"{command} is missing")
        return
    began = time.monotonic()
    try:
        done = subprocess.run(words, env=dict(environ), capture_output=True, timeout=TOKEN_SECONDS, check=False)  # noqa: S603 -- our own command
    except subprocess.TimeoutExpired:
        yield failed("token", f"{command} did not end within {TOKEN_SECONDS:g} s", "an answer", "Run: llmgw status")
        return
    took = (time.monotonic() - began) * 1000
    said = done.stderr.decode(errors="replace").strip().removeprefix("llmgw: ")
    if done.returncode or said:
        yield failed("token", said or f"exit code {done.returncode}", "a token and nothing else", "Run: llmgw status")
    elif done.stdout.count(b"\n") != 1 or len(done.stdout.split()) != 1:
        yield failed("token", f"{command} prints something else than one token", "one line", f"Look at {command}")
    else:
        yield passed("token", f"{command} printed one in {took:.0f} ms")
