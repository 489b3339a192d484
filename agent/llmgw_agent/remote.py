"""The other end of `llmgw forward ssh`: where the socket lies there, and the connection that leads it here.

The user's own `ssh` does it, with their configuration, keys and prompts.
"""

from __future__ import annotations

import contextlib
import subprocess
from typing import Final

from llmgw_agent.errors import RefusedError, TemporaryError

PREPARE: Final = """\
d="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"; [ -d "$d" ] && [ -w "$d" ] || d="$HOME/.cache"
d="$d/llmgw"; umask 077; mkdir -p "$d" && chmod 700 "$d" || exit 3; s="$d/agent.sock"
if [ -S "$s" ] && command -v ss >/dev/null && ss -xl 2>/dev/null | grep -qF "$s "; then echo "taken $s"; exit 0; fi
rm -f "$s"; echo "ready $s"
"""
"""The rule of token_stub.socket_path in a shell's words. What is left over goes; an agent that runs there stays."""
SECONDS: Final = 60.0
CLEAN_SECONDS: Final = 10.0


def prepare(host: str) -> str:
    """Make room for the socket on the host, and say where; TemporaryError or RefusedError if that cannot be."""
    try:
        done = subprocess.run(  # noqa: S603 -- the user's ssh, to where the user said
            ["ssh", "-T", host, PREPARE],  # noqa: S607 -- as the user's shell finds it
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise RefusedError("there is no ssh on this machine", "Install it") from None
    except subprocess.TimeoutExpired:
        raise TemporaryError(f"{host} did not answer within {SECONDS:g} s", "Try: ssh HOST true") from None
    state, _, place = done.stdout.strip().rpartition("\n")[2].partition(" ")
    if state == "taken":
        raise RefusedError(f"an agent already runs on {host}", "End it there: llmgw daemon stop")
    if done.returncode or state != "ready" or not place.startswith("/") or ":" in place:
        raise TemporaryError(f"{host} could not be prepared (exit code {done.returncode})", "Try: ssh HOST true")
    return place


def hold(host: str, place: str, socket: str, seconds: int) -> None:
    """Keep the forwarding until the time is up or the user ends it; TemporaryError if ssh gives up."""
    command = ["ssh", "-N", "-T", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=30"]
    with subprocess.Popen([*command, "-R", f"{place}:{socket}", host]) as process:  # noqa: S603 -- the same
        try:
            code = process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.terminate()
            code = 0
    # sshd leaves the socket behind, and the commands there would wait for nobody.
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        clean = ["ssh", "-T", "-o", "BatchMode=yes", host, f"rm -f '{place}'"]
        subprocess.run(clean, stdin=subprocess.DEVNULL, capture_output=True, timeout=CLEAN_SECONDS, check=False)  # noqa: S603 -- the same
    if code:
        raise TemporaryError(f"ssh did not forward to {host} (exit code {code})", "Try: ssh HOST true")
