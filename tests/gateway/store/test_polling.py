"""What is read again and again: failures are said, survived, and at last seen by readiness; a store away is none."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import settings
from llmgw_gateway.errors import GatewayError, StoreAwayError
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.ring import Ring
from llmgw_gateway.money import catalogues
from llmgw_gateway.money.adjustments import Adjustments
from llmgw_gateway.money.learning import Learned
from llmgw_gateway.money.traffic import Rates
from llmgw_gateway.observe.metrics import Metrics
from llmgw_gateway.store.polling import MOST_SECONDS, Poller, until_next
from llmgw_gateway.streams.relay import Relay
from llmgw_wire.errors import ErrorCode
from tests.gateway import configuration

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.store.database import Database

BROKEN = [GatewayError(ErrorCode.INTERNAL, "refused"), KeyError("a row that nobody thought of")]


@dataclass
class Reading:
    """Something to read, and the time."""

    now: float = 1000.0
    error: Exception | None = None
    rounds: int = 0
    again: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        self.rounds += 1
        self.again.set()
        if self.error is not None:
            raise self.error

    async def next(self) -> None:
        """A round that begins after this is over."""
        for _ in range(2):
            self.again.clear()
            await self.again.wait()


async def following(reading: Reading) -> Poller:
    poller = Poller("rows", reading.read, lambda: 0, lambda: reading.now)
    poller.start()
    await reading.next()
    return poller


async def test_what_is_read_is_no_reason_however_long_it_goes_on() -> None:
    reading = Reading()
    poller = await following(reading)
    reading.now += 10 * MOST_SECONDS
    await reading.next()
    assert poller.unready() == ""
    poller.stop()


@pytest.mark.parametrize("error", BROKEN, ids=["refused", "unthought of"])
async def test_what_fails_for_long_is_a_reason_until_it_succeeds_again(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "llmgw.store")
    reading = Reading(error=error)
    poller = await following(reading)
    assert poller.unready() == ""
    reading.now += MOST_SECONDS + 1
    await reading.next()
    assert poller.unready() == "rows could not be read for 16 s"
    assert len(caplog.records) == 1, "said once, not with every round"
    reading.error = None
    await reading.next()
    assert poller.unready() == ""
    poller.stop()


async def test_a_store_that_is_away_is_no_reason() -> None:
    reading = Reading(error=StoreAwayError(uncertain=False))
    poller = await following(reading)
    reading.now += 10 * MOST_SECONDS
    await reading.next()
    assert poller.unready() == ""
    poller.stop()


async def test_everything_that_follows_something_says_when_it_has_ended(database: Database, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    read = settings.load(configuration.write(configuration.folder(tmp_path), configuration.good()))
    watched: dict[str, Any] = {
        "signing keys are not followed any more": Ring(database, "https://llm.example.com", b"x" * 32),
        "revocations are not followed any more": Revocations(database),
        "adjustments of limits are not followed any more": Adjustments(database),
        "slots are not renewed": Rates(read, catalogues.built_in(), Learned(), Metrics()),
    }
    for each in watched.values():
        await each.start()
    relay = Relay(lambda _: False)
    relay.start()
    watched["answers of ended sessions are not cut off any more"] = relay
    assert [each.unready() for each in watched.values()] == [""] * 5
    tasks = asyncio.all_tasks() - before
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert [each.unready() for each in watched.values()] == list(watched)


@pytest.mark.parametrize("now", [0.0, 0.1, 0.9996, 1.0, 1.5, 1.9999, 2.0, 12345.678])
def test_rounds_fall_together_and_never_twice_at_a_moment(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: now)
    wait = until_next(2.0)
    assert 1.0 < wait <= 3.0
    assert math.isclose((now + wait) % 2.0, 0.0, abs_tol=1e-6) or math.isclose((now + wait) % 2.0, 2.0, abs_tol=1e-6)
