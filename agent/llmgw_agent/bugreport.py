"""`llmgw bugreport`: one text file that a person reads first and then shows to whoever helps. It is sent nowhere.

Everything in it goes through `redaction`, and names of people are taken out where they are known. What is not needed
is not collected: no prompts (the agent has none), no values of other programs' variables, no file of anybody else.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from llmgw_agent import __version__, doctor, netcheck, settings
from llmgw_agent.client import Client
from llmgw_agent.errors import AgentError, ConfigurationError
from llmgw_agent.redaction import HIDDEN, redacted
from llmgw_agent.setup.apply import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from llmgw_agent.checks import Check

PREFIXES: Final = ("LLMGW_", "ANTHROPIC_", "CLAUDE_", "AWS_", "OPENAI_", "SSL_", "NODE_", "XDG_", "DBUS_")
NAMES: Final = (*netcheck.PROXIES, "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "DISPLAY", "WAYLAND_DISPLAY")
LOG_BYTES: Final = 32 * 1024
PERSONAL: Final = ("subject", "name", "email")


def collect(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The sections by their titles. A section that cannot be had says why."""
    where = settings.places(environ)
    status, people = _status(environ)
    sections = {
        "about": f"llmgw {__version__}, Python {platform.python_version()}, {platform.platform()}",
        "settings": _settings(environ),
        "status": status,
        "doctor": _checks(doctor.examine(environ, folder)),
        "network": _network(environ),
        "tools that are set up": ", ".join(name for name, is_set in listed(environ).items() if is_set) or "none",
        "variables that are set (names only)": "\n".join(
            sorted(name for name in environ if name in NAMES or name.startswith(PREFIXES))
        ),
        "the agent's log": _tail(where.log),
    }
    home = environ.get("HOME", "")
    return {title: _without(redacted(text), people, home) for title, text in sections.items()}


def text(sections: Mapping[str, str]) -> str:
    """The file."""
    return "\n".join(f"== {title} ==\n{body.rstrip()}\n" for title, body in sections.items())


def write(path: Path, content: str) -> None:
    """Make the file, for its owner alone; ConfigurationError if it is there already or cannot be made."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made ({error.strerror})", "Name another with: -o FILE") from None


def _settings(environ: Mapping[str, str]) -> str:
    found, faults = settings.explain(environ)
    lines = []
    for key, layers in found.items():
        said = "; ".join(f"{layer.value!r} from {layer.source}" for layer in reversed(layers))
        lines.append(f"{key}: {said or f'default {settings.DEFAULTS[key]!r}'}")
    return "\n".join([*lines, *(f"fault: {fault}" for fault in faults)])


def _status(environ: Mapping[str, str]) -> tuple[str, list[str]]:
    try:
        document = Client(environ).get("/status")
    except AgentError as error:
        return error.line, []
    account = document.get("account") or {}
    people = [str(account[key]) for key in PERSONAL if account.get(key)] + [str(document.get("person") or "")]
    return json.dumps(document, indent=1), people


def _network(environ: Mapping[str, str]) -> str:
    try:
        return _checks(netcheck.examine(settings.load(environ), environ))
    except AgentError as error:
        return error.line


def _checks(checks: Sequence[Check]) -> str:
    return "\n".join(json.dumps(asdict(check) | {"state": check.state.value}) for check in checks)


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError as error:
        return f"{path}: {error.strerror}"


def _without(body: str, people: Sequence[str], home: str) -> str:
    """Without who it is: names as they are known, and the home folder, which is often a name."""
    for name in sorted({name for name in people if len(name) > 2}, key=len, reverse=True):  # noqa: PLR2004 -- initials are in every word
        body = body.replace(name, HIDDEN)
    return body.replace(home, "~") if len(home) > 1 and sys.platform != "win32" else body
