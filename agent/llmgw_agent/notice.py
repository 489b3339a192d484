"""Tells the person at the screen that something needs them: once for each incident, by the system's own notifications.

Tools swallow what a helper prints, and nobody watches a log. So that the message is not one more nuisance, it comes
only for what a person alone can mend, and not again before that was mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_agent.errors import AgentError

log = logging.getLogger(__name__)

TITLE: Final = "llmgw"
SECONDS: Final = 5.0
FOR_PEOPLE: Final = frozenset({"sign_in_required", "refused"})
"""What goes away by itself (network, gateway) is not worth a message: the next request tells it, if it matters."""
SCRIPT: Final = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"
COMMANDS: Final = {
    "darwin": ("/usr/bin/osascript", "-e", SCRIPT),
    "linux": ("/usr/bin/notify-send", "--app-name=llmgw", "--"),
}
"""Whole paths: the PATH of whichever tool started the agent has no say. Title and text are added as two arguments."""


class Notices:
    """Decides whether an incident is new, and tells it."""

    def __init__(self, command: Sequence[str] = COMMANDS.get(sys.platform, ()), seconds: float = SECONDS) -> None:
        self._command = command
        self._seconds = seconds
        self._told = ""
        self._told_once: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    def failed(self, error: AgentError) -> None:
        """A request of a tool has failed for this reason."""
        if error.code not in FOR_PEOPLE or error.code == self._told:
            return
        self._told = error.code
        log.info("notice: %s", error.line)
        self._telling = asyncio.create_task(self._tell(error.line))

    def once(self, incident: str, error: AgentError) -> None:
        """This has happened; it is told when it happens first, and never again."""
        if incident not in self._told_once:
            self._told_once.add(incident)
            self._telling = asyncio.create_task(self._tell(error.line))

    def recovered(self) -> None:
        """Things are well: whatever comes next is another incident."""
        self._told = ""

    def handed_over(self) -> dict[str, Any]:
        """What was told, for the agent that this one becomes (handover.py)."""
        return {"told": self._told, "once": sorted(self._told_once)}

    def take_over(self, left: dict[str, Any]) -> None:
        """What was told before: it is not told again."""
        self._told, self._told_once = left["told"], set(left["once"])

    async def close(self) -> None:
        """Wait for the message under way."""
        if self._telling is not None:
            await asyncio.gather(self._telling, return_exceptions=True)

    async def _tell(self, text: str) -> None:
        if not self._command or not os.access(self._command[0], os.X_OK):
            log.info("this system has no way to show it")
            return
        nowhere = asyncio.subprocess.DEVNULL
        child = await asyncio.create_subprocess_exec(
            *self._command, TITLE, text, stdin=nowhere, stdout=nowhere, stderr=nowhere
        )
        try:
            await asyncio.wait_for(child.wait(), self._seconds)
        except TimeoutError:
            log.info("the system did not show it in time")
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
