"""Starts the daemon when a command finds none: once, however many commands find that out together."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import TYPE_CHECKING, Final

from llmgw_agent import system
from llmgw_agent.errors import AgentError, ConfigurationError, DaemonError, from_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

POLL_SECONDS: Final = 0.02
AMBIENT: Final = ("LLMGW_ID_TOKEN", "LLMGW_ID_TOKEN_FILE", "ACTIONS_ID_TOKEN_REQUEST_URL")
"""What a CI job or a pod has instead of a person who signed in."""
KEPT: Final = (
    *system.KEPT,
    *(
        "LLMGW_HOME",
        "LLMGW_PROFILE",
        "LLMGW_GATEWAY_URL",
        "LLMGW_CA_FILE",
        "LLMGW_SIGN_IN_METHODS",
        "LLMGW_FORWARD_PORT",
    ),
)
"""What the daemon inherits. Not more: a tool's environment may carry credentials of others, or SSL_CERT_FILE."""


def is_ambient(environ: Mapping[str, str]) -> bool:
    """Whether this machine has an identity of its own, so that there is no daemon to ask (ambient.py)."""
    return any(environ.get(name) for name in AMBIENT)


def is_listening(path: Path, deadline: float) -> bool:
    """Whether a daemon of ours answers. DaemonError if somebody else sits there."""
    try:
        system.connect(str(path), deadline).close()
    except PermissionError as error:
        raise DaemonError(str(error), "Find out whose it is before you go on") from None
    except OSError:
        return False
    return True


def ensure(path: Path, environ: Mapping[str, str], deadline: float) -> None:
    """Return when a daemon listens at `path`, starting one if need be.

    Args:
        path: The socket.
        environ: The environment of the command.
        deadline: On the monotonic clock; DaemonError after it.

    Raises:
        AgentError: What the daemon said when it could not start.
    """
    if is_listening(path, deadline):
        return
    turn = system.turn_file(path)
    try:
        turn.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _turn(turn, deadline):
            if not is_listening(path, deadline):
                _start(path, environ, deadline)
    except OSError as error:
        raise ConfigurationError(f"{turn.parent} cannot be used ({error.strerror})", "Check who owns it") from None


@contextlib.contextmanager
def _turn(path: Path, deadline: float) -> Iterator[None]:
    handle = system.open_lock(path)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                system.lock(handle)
                break
            _wait(deadline)
        yield
    finally:
        os.close(handle)


def _start(path: Path, environ: Mapping[str, str], deadline: float) -> None:
    kept = {name: environ[name] for name in KEPT if name in environ}
    with tempfile.TemporaryFile() as said:
        process = system.spawn(["-I", "-m", "llmgw_agent.daemon"], kept, said)
        while not is_listening(path, deadline):
            # Exit code 0 without a socket: another daemon was faster, and will listen in a moment.
            if process.poll():
                said.seek(0)
                raise _failure(said.read().decode(errors="replace"))
            _wait(deadline)
        # It is meant to outlive us: nobody waits for it, and nobody should be told so.
        process.returncode = 0


def _failure(said: str) -> AgentError:
    code, _, rest = said.strip().rpartition("\n")[2].partition("\t")
    message, _, hint = rest.partition("\t")
    if not message:
        return DaemonError("the agent cannot be started", "Run: llmgw daemon")
    return from_code(code, message, hint)


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise DaemonError("the agent did not start in time", "Run: llmgw daemon")
    time.sleep(POLL_SECONDS)
