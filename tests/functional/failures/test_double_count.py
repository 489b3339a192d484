"""C. Counted more than once, held without end, blocked without reason. Numbers: docs/money-failures.md."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.trial import PRICE, until
from tests.lab.loopback import HOST, free_port
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.trial import Trial

AMPLE = {"level": "user", "limit_usd": 100, "overshoot_usd": 100}


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_litellm_28247_reseed_does_not_multiply(
    begin: Callable[..., Trial], scripted: ScriptedBedrock, ending: signal.Signals
) -> None:
    """36926, 40050, too: counted once, by every process that ever reads the store."""
    trial = begin(AMPLE)
    for _ in range(3):
        assert trial.ask("another").status == 200
        trial.rest()
        trial.gateway.program.send_signal(ending)
        trial.gateway.program.wait(seconds=30)
        trial.gateway.restart()
        assert trial.ada.me()["budgets"][0]["spent"] == trial.billed()
    assert len(scripted.calls) == 3


def test_litellm_28247_no_replica_brings_a_sum_of_its_own(begin: Callable[..., Trial], company: dict[str, Any]) -> None:
    trial = begin(AMPLE, **company)
    for number in range(6):
        assert trial.ask(f"call {number}", replica=number % 3).status == 200
        trial.rest()
        if number == 2:
            trial.gateways[1].restart()
    assert trial.spent() == trial.billed() > 0
    assert trial.faults() == []


def test_litellm_27639_nothing_stays_held_when_nothing_runs(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """30460, too: after every way in which an attempt can end, held and exposure are back at nothing."""
    trial = begin(AMPLE)
    endings = [
        Answer(),
        Answer(status=429, error="Too many requests", error_type="ThrottlingException"),
        Answer(status=403, error="no", error_type="AccessDeniedException"),
        Answer(exception_after=0),
        Answer(exception_after=2),
        Answer(break_after=0),
        Answer(break_after=3),
        Answer(usage=None),
    ]
    for stream in (True, False):
        scripted.script(*endings)
        for number, _ in enumerate(endings):
            trial.ask(f"ending {number} {stream}", stream=stream)
    trial.ask("leaves at once", leave_after=1)
    gone = scripted.endpoint
    trial.gateway.document["bedrock"]["endpoint"] = f"http://{HOST}:{free_port()}"
    trial.gateway.restart()
    assert trial.ask(f"nobody at {gone}").status == 502
    trial.rest()
    ((_, _, (spent, held, exposure)),) = trial.books().counters.values()
    assert (held, exposure) == (0, 0)
    assert spent > 0


def test_litellm_38647_a_large_max_tokens_does_not_use_up_the_budget(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """27509, too: a cap of $2 of which $0.144 is spent has room for many requests that may produce 64,000 tokens."""
    trial = begin({"level": "user", "limit_usd": 2, "overshoot_usd": 10})
    scripted.script(Answer(usage=Usage(72_000)))
    assert trial.ask("the first").status == 200
    trial.rest()
    assert trial.spent() == 144_000
    running = 5
    assert running * PRICE.cost(Usage(output=64_000)) > 2_000_000, "their worst cases alone are more than the cap"
    scripted.default = Answer(hold_after=1)
    with ThreadPoolExecutor(running) as pool:
        asked = [pool.submit(trial.ask, f"client {number}", max_tokens=64_000) for number in range(running)]
        until(lambda: sum(each.done() for each in asked) + len(scripted.calls) > running, "all answered")
        scripted.release_all()
        assert [each.result().status for each in asked] == [200] * running
    trial.rest()
    assert trial.faults() == []


def test_litellm_37992_an_explicit_zero_is_zero_and_what_is_absent_is_not(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE)
    for stream in (True, False):
        scripted.script(Answer(usage=Usage(0, 0)), Answer(usage=None))
        trial.ask(f"zero {stream}", stream=stream)
        trial.rest()
        trial.ask(f"absent {stream}", stream=stream)
        trial.rest()
    charged = [(entry.charge[0] > 0, entry.estimated) for entry in trial.books().entries]
    assert charged == [(False, False), (True, True)] * 2


def test_litellm_15740_the_same_prompt_again_is_another_operation_and_counted_once_each(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """17814, too: as many entries as the provider had calls, whatever the client sends twice or reads again."""
    trial = begin(AMPLE)
    scripted.script(*[Answer(usage=Usage(100 + number, 1)) for number in range(4)])
    for _ in range(2):
        for stream in (True, False):
            trial.ask(f"stream {stream}", stream=stream, headers={"x-request-id": "the same", "idempotency-key": "1"})
    trial.rest()
    entries = trial.books().entries
    assert len({entry.operation for entry in entries}) == len(entries) == len(scripted.calls) == 4
    assert trial.spent() == trial.billed()


def test_litellm_29193_a_small_limit_admits_a_small_request(begin: Callable[..., Trial]) -> None:
    trial = begin({"level": "user", "limit_tokens": 300, "overshoot_tokens": 100_000})
    assert trial.ask("small", max_tokens=50).status == 200


def test_litellm_29193_a_small_rate_admits_its_first_request_whatever_its_size(begin: Callable[..., Trial]) -> None:
    trial = begin(AMPLE, limits=[{"level": "user", "tokens_per_minute": 10}])
    assert trial.ask("larger than the limit").status == 200
    assert trial.ask("the next one waits").status == 429


def test_new_api_4429_a_gateway_that_dies_leaves_its_hold_until_it_is_settled(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """What a crash leaves is neither free nor lost: held, in sight, and bounded (the sweep itself: see the store)."""
    trial = begin(AMPLE)
    scripted.default = Answer(hold_after=1)
    with trial.ada.streaming() as stream:
        assert stream.status == 200
        (attempt,) = trial.books().open
        trial.gateway.program.send_signal(signal.SIGKILL)
        trial.gateway.program.wait(seconds=10)
    scripted.release_all()
    trial.gateway.restart()
    (budget,) = trial.ada.me()["budgets"]
    assert (budget["held"], budget["spent"]) == (attempt.hold[0], 0)


def test_litellm_40020_no_sum_lives_in_the_process(begin: Callable[..., Trial]) -> None:
    """What is spent is the store's to say: whoever empties a counter there has emptied it for the next request."""
    trial = begin({"level": "user", "limit_usd": 0.003, "overshoot_usd": 10})
    statuses: list[int] = []
    while 402 not in statuses:
        statuses.append(trial.ask(f"call {len(statuses)}").status)
        trial.rest()
    trial.sql("UPDATE counters SET spent = 0")
    assert trial.ask("afterwards").status == 200
