"""The wall clock of an embedded gateway is set forward, back, and over the end of a month: money does not notice."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.trial import until
from tests.lab.clock import Clock
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.functional.trial import Trial

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloads a library")

AMPLE: dict[str, Any] = {"level": "user", "limit_usd": 100, "overshoot_usd": 100}
TOKENS = {"cluster_secret_file": "cluster.secret", "audience": "llmgw", "life_seconds": 3600}
USAGE = Usage(20, 50)
"""Less than is held for it: nothing is topped up, so leases are renewed in their own rhythm, and a step ends them."""
MINUTES = 240
"""Longer than any lease, and as far as AWS still takes a signature."""
HOUR = 3600
NEXT_MONTH = 31 * 86_400
LEASE_MILLISECONDS = 31_000
RUNNING = 4


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def stepped(begin: Callable[..., Trial], clock: Clock, scripted: ScriptedBedrock) -> Trial:
    """A gateway that lives by the clock."""
    trial = begin(AMPLE, tokens=TOKENS)
    trial.gateway.program.env.update(clock.environment)
    trial.gateway.restart()
    scripted.default = Answer(usage=USAGE)
    return trial


def served(trial: Trial) -> None:
    """Wait until tokens are good again: keys of another time are not, and are looked at every two seconds."""
    until(lambda: trial.ada.request("GET", "/v1/me").status == HTTPStatus.OK, "served")


def judged(trial: Trial, calls: int) -> None:
    """Nothing lost, doubled or free."""
    trial.rest()
    assert trial.faults() == []
    assert len(trial.cloud.calls) == calls
    assert trial.spent() == trial.billed() or (trial.crashes and trial.spent() > trial.billed())
    (counter,) = {name: sums for name, _, sums in trial.books().counters.values()}.items()
    assert counter[1][1] == 0, "nothing is held any more"


def test_calls_before_and_after_a_step_are_charged_alike(stepped: Trial, clock: Clock) -> None:
    for number, ahead in enumerate((0, MINUTES, 0)):
        clock.set(ahead)
        served(stepped)
        assert stepped.ask(f"client {number}").status == 200
        stepped.rest()
    times = [at for (at,) in stepped.sql("SELECT admitted_at FROM ledger ORDER BY entry_id")]
    assert times[1] - times[0] >= MINUTES * 1000, "the gateway does live by this clock"
    assert times[2] < times[1]
    judged(stepped, 3)


@pytest.mark.parametrize(
    "ahead",
    [
        pytest.param(HOUR, id="forward", marks=pytest.mark.long),
        pytest.param(-HOUR, id="back", marks=pytest.mark.long),
        pytest.param(NEXT_MONTH, id="into the next month"),
    ],
)
def test_calls_that_run_while_the_clock_is_set_are_charged_what_the_provider_counted(
    stepped: Trial, clock: Clock, scripted: ScriptedBedrock, ahead: int
) -> None:
    scripted.default = Answer(usage=USAGE, hold_after=1)
    with ThreadPoolExecutor(RUNNING) as pool:
        asked = [pool.submit(stepped.ask, f"client {number}") for number in range(RUNNING)]
        until(lambda: len(scripted.calls) == RUNNING, "all running")
        clock.set(ahead)

        def noticed() -> bool:
            """Every lease is of the new time, or was taken for lost."""
            rows = stepped.sql("SELECT lease_until FROM attempts WHERE NOT swept")
            return all(abs(lease - clock.milliseconds()) < LEASE_MILLISECONDS for (lease,) in rows)

        until(noticed, "looked at by the new time")
        scripted.release_all()
        assert [each.result().status for each in asked] == [200] * RUNNING
    stepped.rest()
    clock.set(0)
    served(stepped)
    # Two hours after a call the truth about it is no longer waited for: it may stay at what was held, which is more.
    stepped.crashes = ahead == NEXT_MONTH
    scripted.default = Answer(usage=USAGE)
    assert stepped.ask("afterwards").status == 200
    judged(stepped, RUNNING + 1)
