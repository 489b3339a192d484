"""Linux and macOS: permissions, unix sockets, flock and exec."""

from __future__ import annotations

import fcntl
import os
import pwd
import shlex
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from llmgw_agent.errors import ConfigurationError
from llmgw_agent.token_stub import ask, connect, peer_of, socket_path

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import IO

assert sys.platform != "win32"  # noqa: S101 -- read by the type checker

__all__ = ["ask", "connect"]

HAS_SOCKETS: Final = True
"""Whether there are unix sockets: the forwarder's own, and those for other machines."""
HAS_SCREEN: Final = sys.platform == "darwin"
"""Whether every session that did not come over SSH has a screen, and a browser on it."""
HAS_SHELL_FILES: Final = True
"""Whether shells read a file of the user's with variables."""
KILL: Final = "kill"
"""The command that ends a process, before its id."""
BINDING: Final = socket.SO_REUSEADDR
"""For a port that is ours again after a restart."""
READING: Final = os.O_RDONLY | os.O_NONBLOCK
"""Flags to read whatever lies at a path without waiting for it."""
NO_LINK: Final = os.O_NOFOLLOW
"""Not if it is a symbolic link."""
KEPT: Final = (
    *("HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"),
    *("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"),
    *("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
)
"""What the daemon inherits, beside our own settings. Not more: see launcher.py."""
PREFERENCES: Final = Path("/Library/Managed Preferences")
"""Where macOS keeps what a configuration profile says."""
PROC_PIDVNODEPATHINFO: Final = 9
VNODE_INFO_BYTES: Final = 152
VNODE_PATHS_BYTES: Final = 2 * (VNODE_INFO_BYTES + 1024)
"""Two paths of MAXPATHLEN, each after its vnode_info: the working folder, then the root."""
OTHERS_WRITE: Final = 0o022
OTHERS: Final = 0o077


def address(environ: Mapping[str, str]) -> Path:
    """Where the agent of this user and profile listens; ValueError if the profile is no name."""
    return Path(socket_path(dict(environ), os.getuid()))


def stream(path: str, deadline: float) -> socket.socket:
    """A connection to the agent for http.client; errors as those of `connect`."""
    return socket.socket(fileno=connect(path, deadline).detach())


def harden() -> None:
    """Keep other processes of this user, and core files, out of our memory. ssh-agent does the same."""
    from llmgw_agent import rest  # noqa: PLC0415 -- only the daemon needs it

    rest.harden()


def peer(transport: asyncio.BaseTransport | None) -> tuple[int, bool] | None:
    """Process id at the other end, as the kernel recorded it, and whether it is this user's; None if unknown."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return None
    pid, uid = peer_of(sock)
    return pid, uid == os.getuid()


def turn_file(path: Path) -> Path:
    """The lock of commands that want to start the daemon which listens there."""
    return path.with_suffix(".start")


def private_folder(folder: Path) -> None:
    """Make sure that a folder exists and only we can enter; ConfigurationError if it is somebody else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigurationError(f"{folder} is not a folder of yours", "Remove it and try again")
    if found.st_mode & OTHERS:
        folder.chmod(0o700)


def is_private(folder: Path) -> bool:
    """Whether it is ours and nobody else can enter."""
    found = folder.lstat()
    return found.st_uid == os.getuid() and not found.st_mode & OTHERS


def is_changeable(path: Path) -> bool:
    """Whether somebody else can change it."""
    found = path.stat()
    return found.st_uid != os.getuid() or bool(found.st_mode & OTHERS_WRITE)


def take_back(path: Path) -> str:
    """The command that leaves a file or folder to its owner alone."""
    return f"chmod go-w '{path}'"


def create(path: Path) -> int:
    """A new file, to be written, that only we can read; FileExistsError if something lies there."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)


def log_file(path: Path) -> None:
    """Make sure that a file to append to exists, and that we alone read it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))


def restrict(handle: int, _path: Path, mode: int) -> None:
    """Give an open file the permissions that it is to have."""
    os.fchmod(handle, mode)


def open_lock(path: Path) -> int:
    """A file to lock."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def lock(handle: int) -> None:
    """Lock it until this process ends or closes it; BlockingIOError if another one has done so."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def home(environ: Mapping[str, str]) -> Path:
    """The user's own folder."""
    return Path(environ.get("HOME") or "/")


def programs_folder(environ: Mapping[str, str]) -> Path:
    """Where programs with windows keep their settings."""
    if sys.platform == "darwin":
        return home(environ) / "Library" / "Application Support"
    return Path(environ.get("XDG_CONFIG_HOME") or home(environ) / ".config")


def is_alive(pid: int) -> bool:
    """Whether it runs; in containers whose first process reaps nobody, what has ended keeps its number for ever."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # gone in between; elsewhere than on Linux there is no such file
        return sys.platform != "linux"
    return state != "Z"


def become(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Run a command in place of this one; OSError if it cannot be run."""
    os.execvpe(command[0], [*command], environ)  # noqa: S606 -- what its user asked for
    raise AssertionError("exec returned")


def spawn(arguments: Sequence[str], environ: Mapping[str, str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the daemon so that it outlives us; what it says goes to `said`."""
    return subprocess.Popen(  # noqa: S603 -- our own interpreter
        [sys.executable, *arguments],
        cwd="/",
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        start_new_session=True,
    )


def folder_of(pid: int) -> Path | None:
    """The folder that a process works in; None if that cannot be told."""
    if sys.platform == "darwin":
        return _folder_by_libproc(pid)
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def environment_of(pid: int) -> dict[str, str]:
    """The variables that a process was started with; none where they cannot be read."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.decode(errors="surrogateescape").partition("=") for item in content.split(b"\0") if item)
    return {name: value for name, _, value in pairs}


def look_up_processes() -> Callable[[int], tuple[int, str, str] | None] | None:
    """None: caller.py looks at /proc, or asks `ps`, by itself."""
    return None


def command_of(name: str, environ: Mapping[str, str]) -> list[str]:
    """The whole path of a command of ours: tools started from a desktop have another PATH than this shell."""
    beside = Path(sys.executable).with_name(name)
    found = shutil.which(name, path=environ.get("PATH"))
    # On PATH there may be another installation; the one that was asked is the one that is set up.
    if found and Path(found).resolve() == beside.resolve():
        return [found]
    return [str(beside if beside.exists() else found or beside)]


def words_for(command: Sequence[str], profile: str) -> list[str]:
    """A command that acts for a profile, word by word."""
    return [*(("env", f"LLMGW_PROFILE={profile}") if profile else ()), *command]


def line_for(command: Sequence[str], profile: str) -> str:
    """The same as a shell takes it."""
    return shlex.join(words_for(command, profile))


def services() -> ModuleType:
    """What `llmgw service` does: the module with `install`, `uninstall` and `state`."""
    from llmgw_agent import service  # noqa: PLC0415 -- only these commands need it

    return service


def policy_places(domain: str) -> list[Path]:
    """Where a company manages the agent, the weakest first."""
    if sys.platform == "darwin":
        return [PREFERENCES / f"{domain}.plist", PREFERENCES / _user() / f"{domain}.plist"]
    return [Path("/etc/llmgw/managed.toml")]


def policy(_path: Path) -> dict[str, Any] | None:
    """None: it is a file, like any other."""
    return None


def claude_places(domain: str) -> tuple[Path, tuple[Path, ...]]:
    """Claude Code's folder of managed settings, and what is stronger than it, the strongest first."""
    if sys.platform == "darwin":
        profiles = PREFERENCES / _user() / f"{domain}.plist", PREFERENCES / f"{domain}.plist"
        return Path("/Library/Application Support/ClaudeCode"), profiles
    return Path("/etc/claude-code"), ()


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _folder_by_libproc(pid: int) -> Path | None:
    """macOS: proc_pidinfo(PROC_PIDVNODEPATHINFO); struct vnode_info_path begins with 152 bytes before the path."""
    import ctypes  # noqa: PLC0415 -- only the daemon needs it

    record = ctypes.create_string_buffer(VNODE_PATHS_BYTES)
    library = ctypes.CDLL("/usr/lib/libproc.dylib")
    if library.proc_pidinfo(pid, PROC_PIDVNODEPATHINFO, ctypes.c_uint64(0), record, VNODE_PATHS_BYTES) <= 0:
        return None
    path = record.raw[VNODE_INFO_BYTES:].partition(b"\0")[0]
    return Path(os.fsdecode(path)) if path else None
