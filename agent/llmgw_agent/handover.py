"""What an agent that rests leaves to the one that it becomes again: in a pipe, so that it is on no disk (rest.py)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

VERSION: Final = 1
"""Another one is not understood: whoever wakes after an upgrade that changed it begins anew, as after a restart."""


@dataclass(frozen=True, slots=True)
class Handover:
    """Open files by their numbers, and what the parts of the agent know. All of it is JSON."""

    lock: int
    """The daemon's lock, held."""
    door: int
    """The socket of the commands, listening; so the others."""
    relay: int
    port: int | None
    """The forwarder's on 127.0.0.1, if it is open."""
    bound: tuple[int, int] | None
    """Which file the socket of the commands is; None: a service manager holds it."""
    started: float
    """When the agent was started first, in seconds since the epoch."""
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def _files(self) -> list[int]:
        return [self.lock, self.door, self.relay] + ([self.port] if self.port is not None else [])

    def write(self) -> list[int] | None:
        """Into a new pipe; its number and those of the other files, all to be inherited. None if it is too much."""
        document = json.dumps({"version": VERSION} | asdict(self)).encode()
        ours, theirs = os.pipe()
        if sys.platform != "win32":  # where no agent rests
            os.set_blocking(theirs, False)
        written = os.write(theirs, document)
        os.close(theirs)
        if written < len(document):
            os.close(ours)
            return None
        for each in (ours, *self._files):
            os.set_inheritable(each, True)  # noqa: FBT003 -- the function takes no name
        return [ours, *self._files]

    @classmethod
    def read(cls, pipe: int, files: Sequence[int]) -> Self | None:
        """What was written; nothing is inherited further. None, and all of the files closed, if it is of no use."""
        for each in (pipe, *files):
            os.set_inheritable(each, False)  # noqa: FBT003 -- the same
        with open(pipe, "rb") as left:
            content = left.read()
        try:
            document = json.loads(content)
            if document.pop("version") == VERSION:
                return cls(**document | {"bound": document["bound"] and tuple(document["bound"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        log.warning("what was left at rest cannot be used")
        for each in files:
            with contextlib.suppress(OSError):
                os.close(each)
        return None
