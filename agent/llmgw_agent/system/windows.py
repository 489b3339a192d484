"""Windows: security descriptors, a named pipe, locked bytes and child processes."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from llmgw_agent.errors import ConfigurationError, UsageError
from llmgw_agent.windows import acl, pipe, processes, registry
from llmgw_agent.windows.api import WINDOWS
from llmgw_agent.windows.pipe import ask, connect
from llmgw_agent.windows.processes import environment_of, folder_of, is_alive

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import IO

__all__ = ["ask", "connect", "environment_of", "folder_of", "is_alive"]

HAS_SOCKETS: Final = False
HAS_SCREEN: Final = True
HAS_SHELL_FILES: Final = False
KILL: Final = "taskkill /f /pid"
BINDING: Final[int] = getattr(socket, "SO_EXCLUSIVEADDRUSE", 0)
"""For a port that nobody takes from us: SO_REUSEADDR would let others listen at it, too."""
READING: Final[int] = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
NO_LINK: Final = 0
NO_HANDLE: Final[int] = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
KEPT: Final = (
    *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATH", "PATHEXT", "PROGRAMDATA", "TEMP", "TMP"),
    *("USERNAME", "USERDOMAIN", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA"),
)
DETACHED: Final = 0x00000008 | 0x00000200
"""DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP: no console, and nobody's Ctrl+C."""
BREAKAWAY: Final = 0x01000000
"""CREATE_BREAKAWAY_FROM_JOB: a tool's job may end with the tool; the agent does not."""
NO_DIALOGS: Final = 0x0001 | 0x0002 | 0x8000
"""SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX."""
OTHERS: Final = 0o077
REPARSE_POINT: Final = 0x400
"""A link or a junction: it leads elsewhere."""


def address(environ: Mapping[str, str]) -> Path:
    """The agent's pipe of this user and profile; ValueError if the profile is no name."""
    return Path(pipe.address(environ))


stream = connect


def harden() -> None:
    """No dialog and no memory dump if we crash. Other processes of this user can read ours: nothing keeps them out."""
    WINDOWS.call("kernel32", "SetErrorMode", NO_DIALOGS)


def peer(transport: asyncio.BaseTransport | None) -> tuple[int, bool] | None:
    """Process id at the other end, and whether it is this user's; None if unknown. The door looked (door.py)."""
    found: tuple[int, bool] | None = transport.get_extra_info("llmgw_peer") if transport is not None else None
    return found


def turn_file(path: Path) -> Path:
    """The lock of commands that want to start the agent which listens there."""
    return _own_folder() / f"{path.name}.start"


def private_folder(folder: Path) -> None:
    """Make sure that a folder exists and only we (and SYSTEM) can enter; ConfigurationError if it is somebody else's.

    What is made in it inherits that.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sid = WINDOWS.own_sid()
    found = WINDOWS.sddl_of(str(folder))
    attributes = getattr(folder.lstat(), "st_file_attributes", 0)
    if attributes & REPARSE_POINT or not acl.is_ours(found, sid):
        raise ConfigurationError(f"{folder} is not a folder of yours", "Remove it and try again")
    if not acl.is_private(found, sid):
        WINDOWS.protect(str(folder), acl.private(sid))


def is_private(folder: Path) -> bool:
    """Whether it is ours and nobody else can enter."""
    return acl.is_private(WINDOWS.sddl_of(str(folder)), WINDOWS.own_sid())


def is_changeable(path: Path) -> bool:
    """Whether somebody else can change it."""
    return acl.is_changeable(WINDOWS.sddl_of(str(path)), WINDOWS.own_sid())


def take_back(path: Path) -> str:
    """The command that leaves a file or folder to its owner alone."""
    return f'icacls "{path}" /inheritance:r /grant:r "%USERNAME%:(OI)(CI)F"'


def create(path: Path) -> int:
    """A new file, to be written, with the permissions of its folder; FileExistsError if something lies there."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_HANDLE)


def log_file(path: Path) -> None:
    """Make sure that a file to append to exists, with the permissions of its folder."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_HANDLE))


def restrict(_handle: int, path: Path, mode: int) -> None:
    """Give an open file the permissions that it is to have: those of its folder, unless it is for its owner alone."""
    if not mode & OTHERS:
        sid = WINDOWS.own_sid()
        WINDOWS.protect(str(path), f"D:P(A;;FA;;;{sid})(A;;FA;;;SY)")


def open_lock(path: Path) -> int:
    """A file to lock."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | NO_HANDLE)


def lock(handle: int) -> None:
    """Lock it until this process ends or closes it; BlockingIOError if another one has done so."""
    runtime: Any = importlib.import_module("msvcrt")
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        runtime.locking(handle, runtime.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(error.errno, "it is locked") from None


def sync_folder(folder: Path) -> None:
    """Nothing: NTFS keeps its names in a journal, and a folder cannot be synced."""


def home(environ: Mapping[str, str]) -> Path:
    """The user's own folder."""
    return Path(environ.get("USERPROFILE") or "C:\\")


def programs_folder(environ: Mapping[str, str]) -> Path:
    """Where programs with windows keep their settings."""
    return Path(environ.get("APPDATA") or home(environ) / "AppData" / "Roaming")


def spawn(arguments: Sequence[str], environ: Mapping[str, str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the daemon so that it outlives us and our tool's job, which may forbid that: then as part of it."""
    console = Path(sys.executable)
    quiet = console.with_name("pythonw.exe")
    words = [str(quiet if quiet.exists() else console), *arguments]
    nowhere = subprocess.DEVNULL
    for flags in (DETACHED | BREAKAWAY, DETACHED):
        try:
            return subprocess.Popen(  # noqa: S603 -- our own interpreter
                words,
                cwd=str(home(environ)),
                env=dict(environ),
                stdin=nowhere,
                stdout=nowhere,
                stderr=said,
                creationflags=flags,
            )
        except PermissionError:
            if flags == DETACHED:
                raise
    raise AssertionError("one of them returned")


def become(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Run a command and end as it does; OSError if it cannot be run. Ctrl+C is the command's."""
    with subprocess.Popen(list(command), env=dict(environ)) as child:  # noqa: S603 -- what its user asked for
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise SystemExit(child.wait())


def look_up_processes() -> Callable[[int], tuple[int, str, str] | None] | None:
    """What finds a process: its parent's id, its program's name, when it started."""
    return processes.look_up()


def command_of(name: str, environ: Mapping[str, str]) -> list[str]:
    """What runs a command of ours: a program of an installer or of pip, else our interpreter with the right words."""
    python = Path(sys.executable)
    for folder in (python.parent, python.parent / "Scripts", python.parent.parent):
        if (found := folder / f"{name}.exe").exists():
            return [str(found)]
    if name == "llmgw-token":
        return [str(python), "-I", "-S", str(Path(pipe.__file__).with_name("token_command.py"))]
    return [shutil.which(f"{name}.exe", path=environ.get("PATH")) or f"{name}.exe"]


def words_for(command: Sequence[str], profile: str) -> list[str]:
    """A command that acts for a profile, word by word; UsageError if that cannot be: there is no `env` here."""
    if profile:
        raise UsageError(f"this tool cannot be told the profile {profile} on Windows", "Set LLMGW_PROFILE for the tool")
    return [*command]


def line_for(command: Sequence[str], profile: str) -> str:
    """The same as cmd takes it, the program always in quotes: unquoted, its path may be several words."""
    line = " ".join(f'"{word}"' if number == 0 or " " in word else word for number, word in enumerate(command))
    return f'set "LLMGW_PROFILE={profile}"&& {line}' if profile else line


def services() -> ModuleType:
    """What `llmgw service` does: a scheduled task."""
    from llmgw_agent.windows import service  # noqa: PLC0415 -- only these commands need it

    return service


def policy_places(_domain: str) -> list[Path]:
    """Where a company manages the agent: one key of the registry."""
    return [registry.place(registry.AGENT)]


def policy(path: Path) -> dict[str, Any] | None:
    """What a key holds; None for a file. FileNotFoundError if there is none."""
    return registry.read(path) if registry.is_key(path) else None


def claude_places(_domain: str) -> tuple[Path, tuple[Path, ...]]:
    """Claude Code's folder of managed settings, and what is stronger than it."""
    return Path("C:\\Program Files\\ClaudeCode"), (registry.place(registry.CLAUDE),)


def _own_folder() -> Path:
    return Path(os.environ.get("LOCALAPPDATA") or home(os.environ) / "AppData" / "Local") / "llmgw"
