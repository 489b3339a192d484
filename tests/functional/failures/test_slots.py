"""D. Rates that are passed together, slots that never come back. Numbers: docs/money-failures.md."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.trial import until
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.trial import Trial

AMPLE = {"level": "user", "limit_usd": 100, "overshoot_usd": 100}
MANY = 30


def admitted(trial: Trial) -> int:
    """How many of a crowd on all replicas were let through, while all of these still run."""
    trial.cloud.default = Answer(hold_after=1)
    with ThreadPoolExecutor(MANY) as pool:
        asked = [
            pool.submit(trial.ask, f"client {number}", replica=number % len(trial.gateways)) for number in range(MANY)
        ]
        until(lambda: sum(each.done() for each in asked) + len(trial.cloud.calls) >= MANY, "all answered")
        trial.cloud.release_all()
        statuses = [each.result().status for each in asked]
    assert set(statuses) == {200, 429}
    return statuses.count(200)


def rated(per_minute: int, begun: float) -> int:
    """The most that a rate can have let through since then: a window's worth, and what came in meanwhile."""
    return per_minute + int((time.monotonic() - begun) * per_minute / 60)


def test_litellm_18730_concurrent_requests_cannot_pass_a_rate_together(begin: Callable[..., Trial]) -> None:
    trial = begin(AMPLE, limits=[{"level": "user", "requests_per_minute": 2}])
    begun = time.monotonic()
    assert 1 <= admitted(trial) <= rated(2, begun)


def test_litellm_27736_replicas_enforce_one_rate_together(begin: Callable[..., Trial], company: dict[str, Any]) -> None:
    trial = begin(AMPLE, **company | {"limits": [{"level": "organisation", "requests_per_minute": 2}]})
    begun = time.monotonic()
    assert 1 <= admitted(trial) <= rated(2, begun)


def test_litellm_16011_replicas_share_their_slots(begin: Callable[..., Trial], company: dict[str, Any]) -> None:
    trial = begin(AMPLE, **company | {"limits": [{"level": "user", "concurrent": 4}]})
    assert admitted(trial) == 4


def test_litellm_20256_a_provider_that_times_out_keeps_no_slot(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    bedrock = {"region": scripted.region, "endpoint": scripted.endpoint, "first_byte_seconds": 2}
    trial = begin(AMPLE, limits=[{"level": "user", "concurrent": 1}], bedrock=bedrock)
    scripted.script(Answer(hold_after=0), Answer(break_after=2), Answer(exception_after=0), Answer())
    statuses = []
    for number in range(4):
        stream = number in (1, 2)
        until(lambda: not trial.ada.me()["limits"][0]["used"], "free again", seconds=10)
        statuses.append(trial.ask(f"try {number}", stream=stream).status)
    assert statuses == [529, 200, 429, 200]
    scripted.release_all()
    assert len(scripted.calls) == 4, "each of them had the one slot"


def test_litellm_1477_a_request_that_fails_keeps_no_slot(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """Whoever is at fault: the body, the model's name, the budget, or what the provider says to it."""
    budget = {"level": "user", "limit_usd": 0.1, "overshoot_usd": 10}
    trial = begin(budget, limits=[{"level": "user", "concurrent": 1}])
    scripted.script(Answer(status=400, error="no such role: user2"))
    assert trial.ask("a role that is none", stream=False).status == 400
    assert trial.ask("a cap that is none", max_tokens="many").status == 400
    assert trial.ada.ask(model="no-such-model").status == 400
    assert trial.ask("a cap beyond the budget", messages=[{"role": "user", "content": "x" * 900_000}]).status == 402
    assert trial.ada.request("POST", "/v1/messages", b"{").status == 400
    assert trial.ask("in order", stream=False).status == 200
    trial.rest()
    assert trial.faults() == []


def test_litellm_27955_an_aborted_stream_keeps_no_slot(begin: Callable[..., Trial], scripted: ScriptedBedrock) -> None:
    trial = begin(AMPLE, limits=[{"level": "user", "concurrent": 1}])
    scripted.script(Answer(hold_after=3), Answer())
    trial.ask("leaves", leave_after=1)
    scripted.release_all()
    until(lambda: trial.ask(f"comes as number {len(trial.clients)}").status == 200, "free", seconds=10)
    trial.rest()
    assert trial.faults() == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_litellm_27955_nor_does_a_client_that_leaves_before_the_head(
    begin: Callable[..., Trial],
    scripted: ScriptedBedrock,
    stream: bool,  # noqa: FBT001 -- a table
) -> None:
    """The provider takes its time and is waited for: it bills the answer, but nobody else has to wait for it."""
    trial = begin(AMPLE, limits=[{"level": "user", "concurrent": 1}])
    scripted.script(Answer(hold_after=0), Answer())
    trial.ask("leaves", stream=stream, leave_when=lambda: bool(scripted.calls))
    until(lambda: trial.ask(f"comes as number {len(trial.clients)}").status == 200, "free", seconds=10)
    assert not scripted.calls[0].finished
    scripted.release_all()
    trial.rest()
    until(lambda: scripted.calls[0].finished, "read to its end")
    assert trial.faults() == []


def test_litellm_39309_a_refused_request_uses_no_rate(begin: Callable[..., Trial], scripted: ScriptedBedrock) -> None:
    """Refused for its budget, for a slot, or for the rate of another level: all limits take a call, or none does."""
    limits = [{"level": "user", "requests_per_minute": 3}, {"level": "organisation", "concurrent": 1}]
    trial = begin({"level": "user", "limit_usd": 0.01, "overshoot_usd": 10}, limits=limits)
    scripted.script(Answer(hold_after=1))

    def used(kind: str) -> int:
        return next(int(each["used"]) for each in trial.ada.me()["limits"] if each["kind"] == kind)

    with trial.ada.streaming() as stream:
        assert stream.status == 200
        assert used("requests") == used("concurrent") == 1
        assert trial.ask("no slot").status == 429
        assert used("requests") <= 1, "less, when the machine is so slow that the window moves on"
        scripted.release_all()
        assert b"message_stop" in stream.read()
    until(lambda: used("concurrent") == 0, "free")
    assert trial.ask("no money", max_tokens=5000, messages=[{"role": "user", "content": "x" * 90_000}]).status == 402
    assert used("requests") <= 1
    assert used("concurrent") == 0


@pytest.mark.long
def test_litellm_28160_a_slot_whose_gateway_died_comes_back(
    begin: Callable[..., Trial], company: dict[str, Any], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE, **company | {"limits": [{"level": "user", "concurrent": 1}]})
    scripted.script(Answer(hold_after=1))
    with trial.ada.streaming() as stream:
        assert stream.status == 200
        assert trial.ask("beside it", replica=1).status == 429
        trial.gateway.program.send_signal(signal.SIGKILL)
        trial.gateway.program.wait(seconds=10)
    scripted.release_all()
    assert trial.ask("too early", replica=1).status == 429, "nobody knows yet that it is dead"
    until(lambda: trial.ask(f"later {len(trial.clients)}", replica=2).status == 200, "free again", seconds=60)
