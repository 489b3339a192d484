"""Notices that a client has left while nothing is written to it: before the head, or during an answer in one piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import web

    from llmgw_gateway.call import Outcome

LOOK_SECONDS: Final = 1


def gone(request: web.BaseRequest) -> bool:
    """Whether the client of a request has hung up."""
    return request.transport is None or request.transport.is_closing()


class Lookout:
    """Sees which clients of running attempts have hung up: one timer for all of them, and none while nothing runs."""

    __slots__ = ("_timer", "_watched")

    def __init__(self) -> None:
        self._watched: set[Presence] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, request: web.BaseRequest, outcome: Outcome) -> Presence:
        """A context in which an attempt's `client_left` is called soon after its client has hung up."""
        return Presence(self, request, outcome)

    def begin(self, presence: Presence) -> None:
        """Look after one more."""
        self._watched.add(presence)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def end(self, presence: Presence) -> None:
        """Look after one less."""
        self._watched.discard(presence)

    def _look(self) -> None:
        self._timer = None
        for presence in [each for each in self._watched if gone(each.request)]:
            self._watched.discard(presence)
            if presence.outcome.client_left is not None:
                presence.outcome.client_left()
        if self._watched:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)


class Presence:
    """One attempt of a client, while it is watched."""

    __slots__ = ("_lookout", "outcome", "request")

    def __init__(self, lookout: Lookout, request: web.BaseRequest, outcome: Outcome) -> None:
        self._lookout = lookout
        self.request = request
        self.outcome = outcome

    def __enter__(self) -> None:
        self._lookout.begin(self)

    def __exit__(self, *_: object) -> None:
        self._lookout.end(self)
