"""B. Spent at the provider, missing in the books. Numbers: docs/money-failures.md."""

from __future__ import annotations

import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.functional.trial import PRICE, until
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.trial import Trial

AMPLE = {"level": "user", "limit_usd": 100, "overshoot_usd": 100}


def test_litellm_35531_a_settlement_whose_commit_fails_is_tried_again(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """Somebody else holds the write lock of the file for as long as it takes the gateway to notice."""
    trial = begin(AMPLE)
    scripted.default = Answer(hold_after=1)
    log = trial.gateway.log
    with trial.ada.streaming() as stream:
        assert stream.status == 200
        with closing(sqlite3.connect(trial.gateway.db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            scripted.release_all()
            assert b"message_stop" in stream.read(), "settling is off the response path"
            trial.gateway.program.wait_until(
                lambda: "is waiting for the store" in log.read_text(encoding="utf-8"), "refused by its store"
            )
            other.execute("ROLLBACK")
    trial.rest()
    assert trial.spent() == trial.billed() > 0
    (budget,) = trial.ada.me()["budgets"]
    assert budget["held"] == 0, "37927: nor does the failed one keep its hold"
    assert trial.faults() == []


def test_litellm_34820_what_ended_at_the_moment_of_shutdown_is_settled(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE)
    scripted.script(*[Answer(usage=Usage(100 + number, 7)) for number in range(30)])
    with ThreadPoolExecutor(30) as pool:
        assert set(pool.map(lambda number: trial.ask(f"client {number}").status, range(30))) == {200}
        assert trial.gateway.terminate() == 0
    assert trial.spent() == trial.billed()
    assert trial.faults() == []


def test_litellm_34820_what_the_store_had_not_taken_at_shutdown_is_settled_before_the_end(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """The first try has failed, and the second waits in a task, when the signal comes."""
    trial = begin(AMPLE)
    scripted.default = Answer(hold_after=1)
    gateway = trial.gateway

    def logged(words: str) -> None:
        gateway.program.wait_until(lambda: words in gateway.log.read_text(encoding="utf-8"), words)

    with trial.ada.streaming() as stream, closing(sqlite3.connect(gateway.db, isolation_level=None)) as other:
        assert stream.status == 200
        other.execute("BEGIN IMMEDIATE")
        scripted.release_all()
        assert b"message_stop" in stream.read()
        logged("is waiting for the store")
        gateway.program.send_signal(signal.SIGTERM)
        logged("draining")
        other.execute("ROLLBACK")
    assert gateway.program.wait(seconds=60) == 0
    assert trial.spent() == trial.billed() > 0
    assert trial.faults() == []


@pytest.mark.parametrize("dialect", ["anthropic", "bedrock"])
def test_litellm_13245_a_client_that_leaves_before_a_whole_answer_is_charged_all_of_it(
    begin: Callable[..., Trial], scripted: ScriptedBedrock, dialect: str
) -> None:
    trial = begin(AMPLE)
    scripted.default = Answer(usage=Usage(500, 300), hold_after=0)
    asked = trial.ask("impatient", dialect=dialect, stream=False, leave_when=lambda: bool(scripted.calls))
    assert asked.status == 0
    assert len(scripted.calls) == 1
    scripted.release_all()
    trial.rest()
    assert trial.spent() == PRICE.cost(Usage(500, 300))
    assert trial.faults() == []


@pytest.mark.parametrize("dialect", ["anthropic", "bedrock"])
def test_litellm_34147_a_stream_that_is_aborted_anywhere_is_charged_exactly(
    begin: Callable[..., Trial], scripted: ScriptedBedrock, dialect: str
) -> None:
    """33736, 35958, 37558, too: no row, a part of it, and both again.

    Each client leaves while the answer stands still after another event; the provider goes on only then.
    """
    trial = begin(AMPLE)
    for held_after in range(1, 8):
        scripted.script(Answer(usage=Usage(1000 + held_after, 300, cache_read=50), hold_after=held_after))
        trial.ask(f"leaves after {held_after}", dialect=dialect, leave_after=1)
        scripted.release_all()
        trial.rest()
    assert len(scripted.calls) == 7
    assert trial.spent() == trial.billed()
    assert trial.faults() == []


@pytest.mark.parametrize("dialect", ["anthropic", "bedrock"])
def test_litellm_39893_a_stream_that_breaks_off_is_never_charged_by_its_placeholder(
    begin: Callable[..., Trial], scripted: ScriptedBedrock, dialect: str
) -> None:
    """The first event says one token of output, whatever follows, and the true number never comes."""
    trial = begin(AMPLE)
    scripted.script(Answer(usage=Usage(20, 900), hold_after=3, break_after=4))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(trial.ask, "cut off", dialect=dialect)
        until(lambda: bool(trial.books().open), "admitted")
        (attempt,) = trial.books().open
        until(lambda: bool(scripted.calls), "sent")
        scripted.release_all()
        asked.result()
    trial.rest()
    (entry,) = trial.books().entries
    assert entry.estimated
    assert entry.charge[0] >= attempt.hold[0] > 50 * PRICE.cost(Usage(output=1))
    assert trial.faults() == []


def test_bifrost_3357_the_ledger_is_the_providers_bill(begin: Callable[..., Trial], scripted: ScriptedBedrock) -> None:
    """3709, too: whole answers, streams, refusals, throttles, clients that leave: the same sum to the micro-USD."""
    trial = begin(AMPLE)
    for number in range(4):
        usage = Usage(10 + number, 100, cache_read=20_000 + number, cache_write_5m=300, cache_write_1h=40)
        scripted.script(
            Answer(usage=usage),
            Answer(status=429, error="Too many requests", error_type="ThrottlingException"),
            Answer(usage=Usage(1, 2 + number)),
            Answer(status=400, error="prompt is too long"),
            Answer(usage=Usage(3 + number, 4), text="word " * 500),
            Answer(usage=Usage(0, 0)),
        )
        for turn in range(6):
            name = f"call {number} {turn}"
            leave_after = 1 if turn in {0, 5} else None
            trial.ask(
                name, stream=bool(turn % 2), dialect=("anthropic", "bedrock")[number % 2], leave_after=leave_after
            )
    trial.rest()
    assert trial.spent() == trial.billed()
    assert trial.faults() == []


def test_litellm_29145_every_class_of_tokens_has_its_own_price(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """29432, too: an hour in the cache is dearer to write than five minutes."""
    trial = begin(AMPLE)
    expected = {"input": 2_000, "output": 10_000, "cache_read": 200, "cache_write_5m": 2_500, "cache_write_1h": 4_000}
    for dialect in ("anthropic", "bedrock"):
        for stream in (False, True):
            for kind, cost in expected.items():
                before = trial.spent()
                scripted.script(Answer(usage=Usage(**{kind: 1000})))
                trial.ask(f"{dialect} {stream} {kind}", dialect=dialect, stream=stream)
                trial.rest()
                assert trial.spent() - before == cost, (dialect, stream, kind)
    assert trial.faults() == []


def test_litellm_28476_a_failure_does_not_make_the_next_attempt_free(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE)
    scripted.script(
        Answer(status=500, error="internal", error_type="InternalServerException"),
        Answer(exception_after=0),
        Answer(usage=Usage(1000, 10)),
    )
    assert [trial.ask(f"try {number}").status for number in range(3)] == [500, 429, 200]
    trial.rest()
    assert [entry.charge[0] for entry in trial.books().entries] == [0, 0, PRICE.cost(Usage(1000, 10))]
    assert trial.faults() == []
