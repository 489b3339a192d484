"""A budget and a coding agent: growing prompts, mostly cache reads, short answers, large caps, several at once."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import call
from llmgw_gateway.money.catalogues import built_in
from tests.functional import ledger
from tests.functional.trial import PRICE
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.functional.device import Device
    from tests.functional.trial import Trial
    from tests.lab.gateway import Gateway

MODEL = "claude-sonnet-4-5"
TURNS = 12
AGENTS = 4
LARGEST_PROMPT = 150_000


def bills() -> Iterator[Usage]:
    """One session: each turn reads nine tenths of its prompt from the cache and writes the rest."""
    for turn in range(1, TURNS + 1):
        prompt = LARGEST_PROMPT * turn // TURNS
        yield Usage(input=200, output=320, cache_read=prompt * 9 // 10, cache_write_5m=prompt // 10)


def true_cost() -> float:
    """What all sessions together cost, in USD."""
    price = next(
        each for each in built_in().models[MODEL].prices if each.geography == "regional" and not each.context_over
    )
    return AGENTS * sum(price.cost(call.Usage(**asdict(usage))) for usage in bills()) / 1_000_000


Turn = Callable[[str, str], int]
"""A session, its whole prompt; the status of the answer."""


def work(scripted: ScriptedBedrock, turn: Turn) -> list[int]:
    """Four sessions at once, turn by turn: the cloud bills each prompt by its turn."""
    in_step = threading.Barrier(AGENTS)

    def session(name: str) -> list[int]:
        statuses = []
        for number, usage in enumerate(bills()):
            if in_step.wait() == 0:
                scripted.default = Answer(usage=usage)
            in_step.wait()
            prompt = usage.input + usage.cache_read + usage.cache_write_5m
            statuses.append(turn(name, f"{name}, turn {number}: " + "word" * prompt))
        return statuses

    with ThreadPoolExecutor(AGENTS) as pool:
        sessions = [pool.submit(session, f"session-{number}") for number in range(AGENTS)]
        return [status for session in sessions for status in session.result()]


def by_device(ada: Device) -> Turn:
    def turn(name: str, prompt: str) -> int:
        body = '{"model": "%s", "max_tokens": 32000, "stream": true, "messages": [{"role": "user", "content": "%s"}]}'
        text = (body % (MODEL, prompt)).encode()
        return ada.request("POST", "/v1/messages", text, {"x-claude-code-session-id": name}).status

    return turn


def budget(gateway: Gateway, usd: float) -> None:
    gateway.document["budgets"] = [{"level": "user", "limit_usd": round(usd, 6), "overshoot_usd": 100}]
    gateway.restart()


def test_three_times_what_it_costs_is_always_enough(gateway: Gateway, ada: Device, scripted: ScriptedBedrock) -> None:
    budget(gateway, 3 * true_cost())
    assert work(scripted, by_device(ada)) == [200] * (TURNS * AGENTS)
    rows = ledger.settled(gateway.db, TURNS * AGENTS)
    assert abs(sum(row.cost for row in rows) / 1_000_000 - true_cost()) < 0.01


def test_nine_tenths_of_what_it_costs_are_used_nearly_to_the_end(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    limit = 0.9 * true_cost()
    budget(gateway, limit)
    statuses = work(scripted, by_device(ada))
    assert set(statuses) == {200, 402}
    spent = sum(row.cost for row in ledger.settled(gateway.db, statuses.count(200))) / 1_000_000
    assert spent >= 0.9 * limit, "refused too early"
    assert spent <= limit + 0.1 * limit, "refused too late"


@pytest.mark.parametrize(
    "share", [pytest.param(3.0, id="enough", marks=pytest.mark.long), pytest.param(0.9, id="not enough")]
)
def test_a_company_s_replicas_do_the_same_together(
    begin: Callable[..., Trial], company: dict[str, Any], scripted: ScriptedBedrock, share: float
) -> None:
    """The turns of a session go to one replica after another, which learn by themselves; the judge adds it all up."""
    cost = AGENTS * sum(PRICE.cost(usage) for usage in bills())
    limit = round(share * cost)
    trial = begin({"level": "user", "limit_usd": limit / 1_000_000, "overshoot_usd": 100}, **company)
    replicas = itertools.cycle(range(len(trial.gateways)))
    choosing = threading.Lock()

    def turn(name: str, prompt: str) -> int:
        with choosing:
            replica = next(replicas)
        session = {"x-claude-code-session-id": name}
        return trial.ask(prompt, replica=replica, max_tokens=32_000, headers=session).status

    statuses = work(scripted, turn)
    trial.rest()
    assert trial.faults() == []
    assert trial.spent() == trial.billed()
    if share > 1:
        assert statuses == [200] * (TURNS * AGENTS)
    else:
        assert set(statuses) == {200, 402}
        assert 0.8 * limit <= trial.spent() <= 1.1 * limit
