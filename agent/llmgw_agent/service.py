"""The agent as a service of the user's session: systemd on Linux, launchd on macOS.

Commands start the agent by themselves; a service makes it start with the session, so that tools which only know the
forwarder's port find it, and again after it was killed. systemd also holds its socket, so that no request is lost while
it starts. The texts are made by pure functions; `install` writes them and tells the service manager.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent import settings
from llmgw_agent.errors import ConfigurationError, TemporaryError, UsageError
from llmgw_agent.token_stub import profile_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAME: Final = "llmgw"
LABEL: Final = "com.llmgw.agent"
MARK: Final = "Written by `llmgw service install`; `llmgw service uninstall` removes it."
KEPT: Final = ("LLMGW_HOME", "LLMGW_PROFILE", *settings.VARIABLES.values())
"""What the service manager would not pass on: the settings that stand in this shell only."""
SECONDS: Final = 20.0
ARGUMENTS: Final = ("-I", "-m", "llmgw_agent.daemon")
CONFIGURATION: Final = ConfigurationError.exit_code

SOCKET_UNIT: Final = """\
# {mark}
[Unit]
Description=llmgw agent, socket

[Socket]
ListenStream={socket}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""
SERVICE_UNIT: Final = """\
# {mark}
[Unit]
Description=llmgw agent
Requires={name}.socket
After={name}.socket

[Service]
Type=exec
ExecStart={command}
{environment}UMask=0077
LimitCORE=0
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
Restart=on-failure
RestartSec=2
# Settings that are wrong do not get better by themselves; the next command says what is wrong.
RestartPreventExitStatus={configuration}

[Install]
WantedBy=default.target
"""


@dataclass(frozen=True, slots=True)
class State:
    """What is there: the files, and what the service manager says (empty: it cannot be asked)."""

    files: tuple[Path, ...]
    is_installed: bool
    says: str


def unit(environ: Mapping[str, str]) -> str:
    """What systemd calls the service of this profile."""
    profile = profile_of(dict(environ))
    return f"{NAME}-{profile}" if profile else NAME


def label(environ: Mapping[str, str]) -> str:
    """What launchd calls it."""
    profile = profile_of(dict(environ))
    return f"{LABEL}.{profile}" if profile else LABEL


def units(socket: Path, environ: Mapping[str, str], python: str = sys.executable) -> dict[str, str]:
    """The systemd units by their names."""
    name = unit(environ)
    command = " ".join(_quoted(word).replace("$", "$$") for word in (python, *ARGUMENTS))
    kept = "".join(f"Environment={_quoted(f'{name}={environ[name]}')}\n" for name in KEPT if environ.get(name))
    return {
        f"{name}.socket": SOCKET_UNIT.format(mark=MARK, socket=str(socket).replace("%", "%%")),
        f"{name}.service": SERVICE_UNIT.format(
            name=name, mark=MARK, command=command, environment=kept, configuration=CONFIGURATION
        ),
    }


def agent_plist(environ: Mapping[str, str], python: str = sys.executable) -> bytes:
    """The launchd agent (launchd.plist(5)): from the session's start, and again when it did not end by itself."""
    return plistlib.dumps(
        {
            "Label": label(environ),
            "ProgramArguments": [python, *ARGUMENTS],
            "EnvironmentVariables": {name: environ[name] for name in KEPT if environ.get(name)},
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ProcessType": "Background",
            "Umask": 0o077,
        }
    )


def files(environ: Mapping[str, str]) -> dict[Path, bytes]:
    """What has to lie where on this system."""
    home = Path(environ.get("HOME") or "/")
    if sys.platform == "darwin":
        return {home / "Library" / "LaunchAgents" / f"{label(environ)}.plist": agent_plist(environ)}
    folder = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "systemd" / "user"
    made = units(settings.places(environ).socket, environ)
    return {folder / name: text.encode() for name, text in made.items()}


def install(environ: Mapping[str, str]) -> State:
    """Write the files and start the service; ConfigurationError if the settings are wrong or files cannot be written.

    TemporaryError if the service manager does not take them: then they are removed again.
    """
    settings.load(environ)
    wanted = files(environ)
    for path, content in wanted.items():
        if path.exists() and MARK.encode() not in path.read_bytes() and path.suffix != ".plist":
            raise ConfigurationError(f"{path} is there, and not of llmgw", "Move it away and repeat the command")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written ({error.strerror})", "Check who owns it") from None
    try:
        for command in _starting(environ, list(wanted)):
            _run(command, environ)
    except (TemporaryError, UsageError):
        for path in wanted:
            path.unlink(missing_ok=True)
        raise
    return state(environ)


def uninstall(environ: Mapping[str, str]) -> State:
    """End the service and remove its files; UsageError if there is none."""
    wanted = files(environ)
    if not any(path.exists() for path in wanted):
        raise UsageError("the service is not installed", "Run: llmgw service install")
    for command in _ending(environ, list(wanted)):
        _run(command, environ, must=False)
    for path in wanted:
        path.unlink(missing_ok=True)
    if sys.platform != "darwin":
        _run([_program("systemctl", environ), "--user", "daemon-reload"], environ, must=False)
    return state(environ)


def state(environ: Mapping[str, str]) -> State:
    """What is there now."""
    wanted = tuple(files(environ))
    is_installed = all(path.exists() for path in wanted)
    says = ""
    if is_installed:
        if sys.platform == "darwin":
            says = (
                "loaded"
                if _run(["/bin/launchctl", "print", _target(environ)], environ, must=False)[0] == 0
                else "not loaded"
            )
        elif program := shutil.which("systemctl", path=environ.get("PATH")):
            says = _run([program, "--user", "is-active", f"{unit(environ)}.service"], environ, must=False)[1]
    return State(wanted, is_installed, says)


def _starting(environ: Mapping[str, str], paths: Sequence[Path]) -> list[list[str]]:
    if sys.platform == "darwin":
        return [["/bin/launchctl", "bootstrap", f"gui/{os.getuid()}", str(paths[0])]]
    systemctl = [_program("systemctl", environ), "--user"]
    # An agent that a command has started holds the socket's place; it is asked to make room.
    return [
        [*systemctl, "daemon-reload"],
        [sys.executable, "-I", "-c", "from llmgw_agent.cli import main; main()", "daemon", "stop"],
        [*systemctl, "enable", "--now", f"{unit(environ)}.socket", f"{unit(environ)}.service"],
    ]


def _ending(environ: Mapping[str, str], paths: Sequence[Path]) -> list[list[str]]:
    if sys.platform == "darwin":
        return [["/bin/launchctl", "bootout", _target(environ), str(paths[0])]]
    return [
        [
            _program("systemctl", environ),
            "--user",
            "disable",
            "--now",
            f"{unit(environ)}.socket",
            f"{unit(environ)}.service",
        ]
    ]


def _target(environ: Mapping[str, str]) -> str:
    if sys.platform == "darwin":
        return f"gui/{os.getuid()}/{label(environ)}"
    else:  # noqa: RET505 -- read by the type checker: the rest is for one system
        raise UsageError("there is no launchd on this machine")


def _program(name: str, environ: Mapping[str, str]) -> str:
    found = shutil.which(name, path=environ.get("PATH"))
    if found is None:
        raise UsageError(f"there is no {name} on this machine", "Start the agent with the session by: llmgw daemon")
    return found


def _run(command: Sequence[str], environ: Mapping[str, str], *, must: bool = True) -> tuple[int, str]:
    try:
        done = subprocess.run(command, env=dict(environ), capture_output=True, timeout=SECONDS, check=False)  # noqa: S603 -- the service manager, with words of ours
        code, said = done.returncode, (done.stdout or done.stderr).decode(errors="replace").strip()
    except subprocess.TimeoutExpired:
        code, said = 1, f"no answer within {SECONDS:g} s"
    if code and must:
        told = said.splitlines()[-1][:200] if said else f"exit code {code}"
        raise TemporaryError(f"{Path(command[0]).name} did not take the service ({told})", "Run it in your own session")
    return code, said


def _quoted(word: str) -> str:
    """A word as systemd reads it (systemd.service(5)): quotes and specifiers are escaped.

    In a command `$` has to be, too; in `Environment=` it means nothing.
    """
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
