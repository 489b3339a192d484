"""What an agent that rests leaves to the one that it becomes again: in a socket, so that it is on no disk (rest.py).

Not in a pipe: for a moment after each exec, until `harden`, other processes of this user can open our files by their
names in /proc. Those of pipes lead to what is in them; those of sockets lead nowhere.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

VERSION: Final = 1
"""Another one is not understood: whoever wakes after an upgrade that changed it begins anew, as after a restart."""
ROOM: Final = 256 * 1024
"""Bytes that the socket is to hold. The system may give less; a sign-in takes some ten thousand at most."""


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
        """Into a new socket; its number and those of the other files, all to be inherited. None if it is too much."""
        document = json.dumps({"version": VERSION} | asdict(self)).encode()
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        theirs.setblocking(False)  # noqa: FBT003 -- the function takes no name
        written = theirs.send(document)
        theirs.close()
        if written < len(document):
            ours.close()
            return None
        files = [ours.detach(), *self._files]
        for each in files:
            os.set_inheritable(each, True)  # noqa: FBT003 -- the same
        return files

    @classmethod
    def read(cls, left: int, files: Sequence[int]) -> Self | None:
        """What was written; nothing is inherited further. None, and all of the files closed, if it is of no use."""
        for each in (left, *files):
            os.set_inheritable(each, False)  # noqa: FBT003 -- the same
        with open(left, "rb") as file:
            content = file.read()
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
