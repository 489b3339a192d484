"""Which way to sign in suits this machine: what its user asked for, what worked here last, else what it is like.

What worked is remembered for each host, because a home folder may be shared by many: a flag that a machine needs has to
be given there once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent import browser
from llmgw_agent.settings import METHODS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

AUTO: Final = "auto"
FILE: Final = "sign-in-methods.json"
MOST_HOSTS: Final = 50


def wanted(method: str, environ: Mapping[str, str], home: Path, *, has_terminal: bool) -> list[str]:
    """The ways to sign in that would do, the best first; the daemon takes the first that is allowed.

    Args:
        method: What the user said, of `settings.METHODS`, or `auto`.
        environ: The environment of the command.
        home: The agent's folder, where it is remembered.
        has_terminal: Whether somebody can be asked to paste an address.
    """
    if method != AUTO:
        return [method]
    # Without a terminal nobody can paste; but the address that is printed may be opened here by whoever reads it.
    usual = ["browser", "paste"] if browser.is_here(environ) or not has_terminal else ["paste", "browser"]
    known = remembered(home)
    first = [known] if known is not None and (has_terminal or known != "paste") else []
    return list(dict.fromkeys([*first, *usual, "device"]))


def remembered(home: Path, host: str = "") -> str | None:
    """What worked on this host; None if nothing was asked for here yet."""
    method = _all(home).get(host or socket.gethostname())
    return method if method in METHODS else None


def remember(home: Path, method: str, host: str = "") -> None:
    """This way was asked for on this host, and worked. That it cannot be written costs no sign-in."""
    hosts = _all(home)
    name = host or socket.gethostname()
    if hosts.pop(name, None) == method:
        return
    kept = dict(list(hosts.items())[-MOST_HOSTS + 1 :]) | {name: method}
    with contextlib.suppress(OSError):
        temporary = home / f".{FILE}.{os.getpid()}"
        temporary.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        temporary.replace(home / FILE)


def _all(home: Path) -> dict[str, Any]:
    try:
        document = json.loads((home / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
