"""Refuses a token to a Claude Code whose project says where that token goes.

A repository's `.claude/settings.json` can name another address, provider, proxy or certificate authority, and Claude
Code sends the helper's output there, with `-p` without asking anybody. The helper cannot see it: the variables of a
project are not in its environment. The agent can: the kernel tells which folder the asking process works in.

A trap for honest people's machines, not a wall: a program of the same user can ask from another folder.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_agent import claude_code, system
from llmgw_agent.errors import RefusedError, TemporaryError

if TYPE_CHECKING:
    from llmgw_agent.caller import Caller
    from llmgw_agent.notice import Notices

log = logging.getLogger(__name__)

PROGRAM: Final = "claude"
ENTRY_POINT: Final = "CLAUDE_CODE_ENTRYPOINT"
"""Claude Code sets it for what it starts, also where its own process has the name of its interpreter."""
SECONDS: Final = 2.0
"""A folder on a network may not answer."""
FILES: Final = ("settings.local.json", "settings.json")
HINT: Final = "Remove it there, or do not run claude in this folder"


class Tripwire:
    """Looks at the folder of whoever asks."""

    def __init__(
        self,
        gateway_url: str,
        *,
        refuses: bool,
        notices: Notices | None = None,
        managed: Path = claude_code.MANAGED,
    ) -> None:
        """Keep what it takes.

        Args:
            gateway_url: Where tokens may go.
            refuses: Whether a redirection is refused, or only logged.
            notices: Tells the person.
            managed: Where Claude Code's managed settings lie.
        """
        self._gateway_url = gateway_url
        self._refuses = refuses
        self._notices = notices
        self._managed = managed

    async def check(self, pid: int, caller: Caller) -> None:
        """Let a request pass, or raise RefusedError with the file and the setting that are in the way.

        Args:
            pid: The process that asked, `llmgw-token`.
            caller: The program that started it.
        """
        environ = system.environment_of(pid)
        if Path(caller.program).name != PROGRAM and ENTRY_POINT not in environ:
            return
        folders = {folder for folder in (system.folder_of(pid), system.folder_of(caller.pid)) if folder is not None}
        if not folders:
            return
        try:
            # A thread: a network's folder must not hold up other requests.
            found = await asyncio.wait_for(asyncio.to_thread(self._look, folders, environ), SECONDS)
        except TimeoutError:
            raise TemporaryError("the settings of this project cannot be read", "Try again in a moment") from None
        if found is None:
            return
        error = RefusedError(found, HINT)
        log.warning("%s for %s: %s", "no token" if self._refuses else "a token all the same", caller.label, error)
        if self._refuses:
            if self._notices is not None:
                self._notices.once(found, error)
            raise error

    def _look(self, folders: set[Path], environ: dict[str, str]) -> str | None:
        """What is wrong with the projects of these folders; None if nothing is."""
        own = Path(environ.get("CLAUDE_CONFIG_DIR") or (system.home(environ) if environ else Path.home()) / ".claude")
        for place in sorted({place for folder in folders for place in _project(folder)}):
            settings = place / ".claude"
            try:
                if not any((settings / name).exists() for name in FILES) or settings.resolve() == own.resolve():
                    continue
            except OSError as error:
                return f"{settings} cannot be looked into ({error.strerror})"
            claude = claude_code.read(environ, place, self._managed)
            for path in claude.broken:
                if path.parent == settings:
                    return f"{path} cannot be read, so nobody knows where it sends your token"
            for path, name in claude_code.redirects(claude, self._gateway_url):
                return f"{path} sets {name}, which may send your token elsewhere"
        return None


def _project(folder: Path) -> list[Path]:
    """A folder and those above it, up to the top of its repository; only the folder itself if it is in none."""
    above = [folder, *folder.parents]
    for number, place in enumerate(above):
        if (place / ".git").exists():
            return above[: number + 1]
    return [folder]
