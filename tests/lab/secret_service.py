"""A desktop session's keyring: a message bus of its own, and GNOME's keyring on it, unlocked or locked."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.lab.process import Program
from tests.lab.server import Server

if TYPE_CHECKING:
    from pathlib import Path

PASSWORD = "correct horse"
SECONDS = 30


def available() -> bool:
    return bool(shutil.which("dbus-daemon") and shutil.which("gnome-keyring-daemon") and shutil.which("busctl"))


class Bus(Server):
    """A message bus on which nobody has a keyring."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "bus"
        self.environment = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.path}"}
        argv = ["dbus-daemon", "--session", "--nofork", f"--address=unix:path={self.path}"]
        self.program = Program("bus", argv, env=self._env(), folder=folder)

    def wait_ready(self) -> None:
        self.program.wait_until(self.path.exists, "listening")

    def _env(self) -> dict[str, str]:
        # Nothing of the machine's own session; the keyring's files lie in this folder.
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder / "share")}


class SecretService(Bus):
    """A keyring on a bus, unlocked at first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._keyring: Program | None = None

    def wait_ready(self) -> None:
        super().wait_ready()
        self.unlock()

    def lock(self) -> None:
        """As it is when its owner has not given the password yet."""
        self._begin("--start")

    def unlock(self) -> None:
        """As it is afterwards."""
        self._begin("--unlock")

    def __exit__(self, *error: object) -> None:
        if self._keyring is not None:
            self._keyring.close()
        self.program.close()

    def _begin(self, how: str) -> None:
        """`--unlock` makes the keyring where there is none; it reads the password from its standard input."""
        if self._keyring is not None:
            self._keyring.terminate()
        env = self._env() | self.environment
        script = f"printf '{PASSWORD}' | exec gnome-keyring-daemon --foreground {how} --components=secrets"
        self._keyring = Program("keyring", ["sh", "-c", script], env=env, folder=self.folder).start()
        self._keyring.wait_until(self._answers, "on the bus", seconds=SECONDS)

    def _answers(self) -> bool:
        argv = [
            "busctl",
            f"--address={self.environment['DBUS_SESSION_BUS_ADDRESS']}",
            "status",
            "org.freedesktop.secrets",
        ]
        return subprocess.run(argv, capture_output=True, timeout=SECONDS, check=False).returncode == 0
