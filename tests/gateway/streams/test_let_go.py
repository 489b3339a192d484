"""What is over is let go at once: collections are rare (`app.spare_the_collector`); until one comes memory grows."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.call import Outcome
from llmgw_gateway.money.traffic import Place
from llmgw_gateway.streams.relay import Relay
from tests.gateway.streams.test_relay import END, Bench, nobody, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def without_a_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("leaves", [False, True], ids=["read to its end", "left by its client"])
async def test_an_answer_that_is_over_is_let_go(leaves: bool) -> None:  # noqa: FBT001 -- a table
    relay = Relay(nobody)
    async with Bench(relay) as bench:
        await bench.begun()
        (answer,) = [weakref.ref(each) for each in relay._open]
        if leaves:
            await bench.leave()
            await bench.feed_until(lambda: relay.drains == 1)
        bench.feed(*END, end=True)
        await bench.until_handled()
        await until(lambda: answer() is None)


async def test_a_call_s_place_among_its_limits_is_let_go() -> None:
    outcome = Outcome()
    place = Place(None, "att_1", (), (1, 0, 0, 1), 1)  # type: ignore[arg-type]  # without limits nobody is asked
    async with place:
        place.follow(outcome)
        assert outcome.client_left is not None
    assert outcome.client_left is None
