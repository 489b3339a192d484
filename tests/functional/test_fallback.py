"""Fallbacks and money: every attempt is paid from a hold of its own, and none is held twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.functional.trial import MODEL, until
from tests.lab.scripted import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.trial import Trial

TARGETS = [f"{where}.anthropic.claude-sonnet-4-5-20250929-v1:0" for where in ("us", "global", "eu")]
THROTTLED = Answer(status=429, error="slow down", error_type="ThrottlingException")
ONE_CALL = {"level": "user", "limit_usd": 0.002, "overshoot_usd": 1}


def test_a_budget_for_one_call_is_enough_for_one_call_at_its_third_target(begin: Callable[..., Trial]) -> None:
    trial = begin(ONE_CALL, models=[{"name": MODEL, "target": TARGETS[0], "fallbacks": TARGETS[1:]}])
    trial.cloud.script(Answer(hold_after=1))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(trial.ask, "another call")
        until(lambda: bool(trial.cloud.calls), "another call runs")
        assert trial.ask("no room").status == 402, "the budget has room for one hold only"
        trial.cloud.release_all()
        assert other.result().status == 200
    trial.rest()
    trial.cloud.script(THROTTLED, THROTTLED, Answer())
    assert trial.ask("falls back twice").status == 200
    trial.rest()
    rows = trial.sql("select target, outcome, cost, estimated from ledger natural join payers order by entry_id")[1:]
    assert rows[:2] == [(target, "upstream_429", 0, 0) for target in TARGETS[:2]]
    assert (rows[2][0], rows[2][1], rows[2][3]) == (TARGETS[2], "ok", 0)
    assert trial.spent() == trial.billed()
    assert len({row[0] for row in trial.sql("select operation_id from ledger")}) == 2
