"""Everything at once against the promises about money. `tests.lab.history` decides: it shares no code with the gateway.

Both columns of the design's section 8: "embedded" is one process on a file, "company" three replicas on PostgreSQL.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.trial import Trial

CROWD = 200
SMALL = {"level": "user", "limit_usd": 0.05, "overshoot_usd": 2.0}
AMPLE = {"level": "user", "limit_usd": 100, "overshoot_usd": 100}


@pytest.fixture(params=["embedded", "company"])
def column(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `begin` needs for each column in turn."""
    if request.param == "embedded":
        return {}
    company: dict[str, Any] = request.getfixturevalue("company")
    return company


def answers(count: int, **more: Any) -> list[Answer]:
    """Each with a usage that no other has, so that none can stand for another."""
    return [Answer(usage=Usage(1000 + number, 100, cache_read=number), **more) for number in range(count)]


def crowd(trial: Trial, count: int, chance: random.Random | None = None, **more: Any) -> list[int]:
    """So many clients at once on all replicas; with `chance` each hangs up somewhere. Their statuses."""

    def one(number: int) -> int:
        leave = None if chance is None else moments[number]
        dialect = ("anthropic", "bedrock")[number % 2]
        replica = number % len(trial.gateways)
        return trial.ask(f"client {number}", replica=replica, dialect=dialect, leave_after=leave, **more).status

    moments = [chance.randrange(2500) for _ in range(count)] if chance is not None else []
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_two_hundred_at_once_stay_within_the_published_bound(
    begin: Callable[..., Trial], column: dict[str, Any], scripted: ScriptedBedrock
) -> None:
    trial = begin(SMALL, **column)
    scripted.script(*answers(CROWD))
    statuses = crowd(trial, CROWD)
    trial.rest()
    (budget,) = trial.ada.me()["budgets"]
    assert set(statuses) == {200, 402}
    assert budget["spent"] - budget["limit"] <= budget["overshoot_limit"]
    assert budget["spent"] == trial.billed() > budget["limit"], "a test of the bound needs answers dearer than expected"
    assert budget["held"] == 0
    assert trial.faults() == []


def test_two_hundred_that_hang_up_anywhere_are_charged_what_the_provider_counted(
    begin: Callable[..., Trial], column: dict[str, Any], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE, **column)
    scripted.script(*answers(CROWD, text="word " * 100, pause_seconds=0.01))
    crowd(trial, CROWD, random.Random(20261121))  # noqa: S311 -- no secret
    trial.rest()
    assert trial.spent() == trial.billed()
    assert len(scripted.calls) == CROWD
    assert trial.faults() == []
