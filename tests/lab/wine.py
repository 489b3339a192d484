"""Windows as far as Wine has it: a prefix of a test's own, its drive C and its registry. Needs Debian's `wine64`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.process import Finished, ProgramError, run

if TYPE_CHECKING:
    from collections.abc import Mapping

WINE = Path("/usr/lib/wine/wine64")
SERVER = Path("/usr/lib/wine/wineserver64")
SECONDS = 300
NEEDS = "needs wine64"


def available() -> bool:
    """Whether Wine is here."""
    return WINE.exists() and SERVER.exists()


class Wine:
    """One prefix. `end` stops whatever still runs in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.env: Mapping[str, str] = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "WINEPREFIX": str(folder / "prefix"),
            "WINEDEBUG": "-all",
            # No menus, no browser engine, no .NET: nothing here has a window.
            "WINEDLLOVERRIDES": "winemenubuilder.exe,mscoree,mshtml=d",
        }
        self.disk = folder / "prefix" / "drive_c"

    def start(self) -> None:
        """Make the prefix, as Windows 10."""
        self.must("wineboot", "--init")
        self.must("winecfg", "-v", "win10")

    def run(self, *words: str | Path, seconds: float = SECONDS) -> Finished:
        """A program of Windows with pipes for its streams: Wine's Python takes no other ones."""
        return run([WINE, *words], env=self.env, folder=self._folder, seconds=seconds)

    def must(self, *words: str | Path) -> str:
        """The same; ProgramError unless it succeeds. What it printed."""
        done = self.run(*words)
        if done.exit_code:
            raise ProgramError(f"{words}: exit code {done.exit_code}\n{done.stdout}{done.stderr}")
        return done.stdout

    def values(self, key: str) -> dict[str, str]:
        """The values of a key of the registry, as `reg` prints them; none if there is no such key."""
        said = self.run("reg", "query", key).stdout.splitlines()
        rows = [line.strip().split("    ", 2) for line in said if line.startswith("    ")]
        return {name: value for name, _, value in rows}

    def end(self) -> None:
        """Stop everything in the prefix."""
        run([SERVER, "-k"], env=self.env, folder=self._folder, seconds=SECONDS)


def path(place: Path) -> str:
    """A path of this machine, as Wine sees it."""
    return "Z:" + os.fspath(place.resolve()).replace("/", "\\")
