"""Clients that hang up while nothing is written to them are noticed, with one timer for all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from llmgw_gateway.call import Outcome
from llmgw_gateway.streams import presence
from llmgw_gateway.streams.presence import Lookout

if TYPE_CHECKING:
    import pytest
    from aiohttp import web


class Client:
    """A request, as far as it is looked at."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.left = asyncio.Event()
        self.outcome = Outcome(client_left=self.left.set)

    def is_closing(self) -> bool:
        return False

    @property
    def request(self) -> web.BaseRequest:
        return cast("web.BaseRequest", self)


async def test_whoever_hangs_up_is_noticed_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.001)
    lookout = Lookout()
    staying, leaving, later = Client(), Client(), Client()
    with lookout.watch(staying.request, staying.outcome), lookout.watch(leaving.request, leaving.outcome):
        leaving.transport = None
        await leaving.left.wait()
        with lookout.watch(later.request, later.outcome):
            later.transport = None
            await later.left.wait()
        assert not staying.left.is_set()


async def test_after_the_last_attempt_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.001)
    lookout, gone, other = Lookout(), Client(), Client()
    with lookout.watch(gone.request, gone.outcome):
        pass
    gone.transport = None
    with lookout.watch(other.request, other.outcome):
        other.transport = None
        await other.left.wait()
    assert not gone.left.is_set()
