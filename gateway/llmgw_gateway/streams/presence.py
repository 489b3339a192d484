"""Notices that a client has left while nothing is written to it: before the head, or during an answer in one piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from aiohttp import web

    from llmgw_gateway.call import Outcome

LOOK_SECONDS: Final = 1


def gone(request: web.BaseRequest) -> bool:
    """Whether the client of a request has hung up."""
    return request.transport is None or request.transport.is_closing()


class Presence:
    """A context in which an attempt's `client_left` is called soon after its client has hung up. A timer, no task."""

    __slots__ = ("_handle", "_outcome", "_request")

    def __init__(self, request: web.BaseRequest, outcome: Outcome) -> None:
        self._request = request
        self._outcome = outcome
        self._handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._handle = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        if not gone(self._request):
            self._handle = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        elif self._outcome.client_left is not None:
            self._outcome.client_left()
