"""A booted Debian in a container, with systemd and a user whose session lasts: for what only an operating system does.

It shares the network of this machine, so that providers and gateways on loopback are reached from inside. Needs root,
mmdebstrap and systemd-nspawn; the first use fetches Debian's packages and takes half a minute.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.process import Finished, Program, ProgramError, run
from tests.lab.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOTS = Path(__file__).parents[2] / ".lab" / "machines"
SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "util-linux", "procps"),
    *("python3", "gnome-keyring", "curl"),
)
USER, USER_ID = "dev", 1500
SECONDS = 120
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
"""Of what root does there."""
NEEDS = "needs root, mmdebstrap and systemd-nspawn"


def available() -> bool:
    """Whether such a machine can be had here."""
    return os.getuid() == 0 and bool(shutil.which("mmdebstrap")) and bool(shutil.which("systemd-nspawn"))


def root() -> Path:
    """The folder of a Debian with these packages that nothing was done to; made once."""
    included = ",".join(PACKAGES)
    made = ROOTS / f"{SUITE}-{hashlib.sha256(included.encode()).hexdigest()[:12]}"
    if not made.is_dir():
        ROOTS.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=ROOTS, prefix=".new-"))
        try:
            fresh.chmod(0o755)
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={included}", SUITE, fresh], check=True
            )
            subprocess.run(["chroot", fresh, "useradd", "--create-home", f"--uid={USER_ID}", USER], check=True)
            # systemd keeps a session for whoever lingers.
            (fresh / "var/lib/systemd/linger").mkdir(parents=True)
            (fresh / "var/lib/systemd/linger" / USER).touch()
            with contextlib.suppress(OSError):  # another test was faster
                fresh.rename(made)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return made


def copy(folder: Path) -> Path:
    """A Debian of a test's own, not booted."""
    subprocess.run(["cp", "--archive", "--reflink=auto", root(), folder], check=True)
    return folder


class Machine(Server):
    """One such machine. `root` is its disk, as seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        # nspawn wants a name that no other machine has.
        name = "llmgw-" + re.sub(r"[^a-z0-9]", "", tempfile.mktemp(dir=""))[-12:]  # noqa: S306 -- a name, not a file
        flags = ["--quiet", "--register=no", "--keep-unit", "--console=pipe", f"--machine={name}"]
        argv = ["systemd-nspawn", *flags, f"--directory={self.root}", "--boot"]
        self.program = Program("machine", argv, env=ENVIRONMENT, folder=folder)
        self._first = 0

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        copy(self.root)

    def wait_ready(self) -> None:
        self.program.wait_until(self._found_first, "booting")
        self.program.wait_until(self._is_user_here, "running its user's session", seconds=SECONDS)

    def do(self, *words: str | Path, seconds: float = SECONDS, stdin: str = "") -> Finished:
        """A command as root."""
        return run([*self._enter(), *words], env=ENVIRONMENT, folder=Path("/"), seconds=seconds, stdin=stdin)

    def must(self, *words: str | Path, seconds: float = SECONDS, stdin: str = "") -> str:
        """The same; what it printed. ProgramError if it fails."""
        done = self.do(*words, seconds=seconds, stdin=stdin)
        if done.exit_code:
            raise ProgramError(f"{words} ended with {done.exit_code}\n{done.stdout}{done.stderr}")
        return done.stdout

    def as_user(self, *words: str | Path, seconds: float = SECONDS, stdin: str = "") -> Finished:
        """A command of the user's, in the session that lasts."""
        return self.do(*self.user_words(*words), seconds=seconds, stdin=stdin)

    @staticmethod
    def user_words(*words: str | Path) -> list[str | Path]:
        """How root starts a command in the user's session."""
        runtime = f"/run/user/{USER_ID}"
        env: Mapping[str, str] = {
            "HOME": f"/home/{USER}",
            "PATH": "/usr/bin:/bin",
            "XDG_RUNTIME_DIR": runtime,
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
        }
        return ["runuser", "-u", USER, "--", "env", "-i", *(f"{name}={value}" for name, value in env.items()), *words]

    def inside(self, *words: str | Path) -> list[str | Path]:
        """The words that run a command of the user's, for a program that is to stay."""
        return [*self._enter(), *self.user_words(*words)]

    def unlock_keyring(self) -> None:
        """What a sign-in at the screen does: the user's keyring is there and open."""
        unlock = "printf password | gnome-keyring-daemon --unlock --components=secrets --daemonize"
        unit = ["systemd-run", "--user", "--quiet", "--unit=keyring", "--property=Type=forking"]
        self.as_user(*unit, "sh", "-c", unlock)
        self.program.wait_until(self._is_keyring_open, "holding an open keyring", seconds=SECONDS)

    def _is_keyring_open(self) -> bool:
        path = "/org/freedesktop/secrets/collection/login"
        asked = ["--user", "--auto-start=no", "get-property", "org.freedesktop.secrets", path]
        done = self.as_user("busctl", *asked, "org.freedesktop.Secret.Collection", "Locked")
        return done.stdout.strip() == "b false"

    def _enter(self) -> list[str | Path]:
        return ["nsenter", f"--target={self._first}", "--mount", "--uts", "--ipc", "--net", "--pid"]

    def _found_first(self) -> bool:
        """Its first process: nspawn's only child, once that has become systemd."""
        children = Path(f"/proc/{self.program.pid}/task/{self.program.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text().strip() != "systemd":
            return False
        self._first = int(children[0])
        return True

    def _is_user_here(self) -> bool:
        booted = self.do("systemctl", "is-system-running").stdout.strip() == "running"
        return booted and self.as_user("systemctl", "--user", "is-system-running").stdout.strip() == "running"
