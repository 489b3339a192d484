"""Where the person's browser is, and how a page is opened there: on this machine, on Windows around WSL, or nowhere.

A browser has its output taken away: stdout of a command is its own. An address is one argument and never meets a shell.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent import system

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SSH: Final = ("SSH_CONNECTION", "SSH_TTY")
DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
EDITOR: Final = "VSCODE_IPC_HOOK_CLI"
"""An editor in front of the person is attached to this machine: it opens pages there, and carries loopback ports."""
CONTAINERS: Final = ("/.dockerenv", "/run/.containerenv")
KERNEL: Final = "proc/sys/kernel/osrelease"
WSLVIEW: Final = "/usr/bin/wslview"
POWERSHELL: Final = "/mnt/c/Windows/System32/WindowsPowerShell/v1.0/powershell.exe"
SECONDS: Final = 30.0
"""Programs of Windows take their time to start from WSL."""


def is_here(environ: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Whether a browser that is opened now is one that the person sees, and that can reach our loopback port.

    Args:
        environ: The environment of the command.
        root: Where the files lie that tell a container and WSL.
    """
    has_editor = bool(environ.get(EDITOR) and environ.get("BROWSER"))
    if any(environ.get(name) for name in SSH):
        return has_editor
    if system.HAS_SCREEN or is_wsl(root):
        return True
    if any((root / path.lstrip("/")).exists() for path in CONTAINERS):
        return has_editor
    return bool(environ.get("BROWSER")) or any(environ.get(name) for name in DISPLAYS)


def is_wsl(root: Path = Path("/")) -> bool:
    """Whether this Linux runs inside Windows: its kernel says so, whatever the environment does."""
    with contextlib.suppress(OSError):
        return "microsoft" in (root / KERNEL).read_text(encoding="ascii", errors="replace").lower()
    return False


def openers(url: str, environ: Mapping[str, str], root: Path = Path("/")) -> list[list[str]]:
    """Commands that open a page where Python's own way does not; the best comes first.

    Within WSL: its own helper, then Windows itself. `cmd.exe` is not among them: it would read the address's `&`.
    """
    if sys.platform == "darwin":
        return [["/usr/bin/open", url]]
    if is_wsl(root) and not environ.get("BROWSER"):
        quoted = url.replace("'", "%27")
        return [
            [WSLVIEW, url],
            [POWERSHELL, "-NoProfile", "-NonInteractive", "-Command", f"Start-Process '{quoted}'"],
        ]
    return []


def show(url: str, environ: Mapping[str, str], root: Path = Path("/")) -> None:
    """Open the page, or do nothing: its address is on the screen in any case."""
    for command in openers(url, environ, root):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603 -- whole paths, one argument, no shell
            if done.returncode == 0:
                return
    if sys.platform != "darwin":
        with _silent():
            webbrowser.open(url)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Within, whatever is started writes nowhere."""
    saved = os.dup(1), os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- the name is the operating system's
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)
