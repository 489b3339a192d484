"""A budget and a coding agent: growing prompts, mostly cache reads, short answers, large caps, several at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmgw_gateway import call
from llmgw_gateway.money.prices import built_in
from tests.functional import ledger
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.functional.device import Device, Reply
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


class Team:
    """Four sessions at once, turn by turn: the cloud bills each prompt by its turn."""

    def __init__(self, ada: Device, scripted: ScriptedBedrock) -> None:
        self._ada = ada
        self._scripted = scripted
        self._in_step = threading.Barrier(AGENTS)

    def session(self, name: str) -> list[Reply]:
        replies = []
        for usage in bills():
            if self._in_step.wait() == 0:
                self._scripted.default = Answer(usage=usage)
            self._in_step.wait()
            replies.append(self._turn(name, usage))
        return replies

    def _turn(self, name: str, usage: Usage) -> Reply:
        prompt = usage.input + usage.cache_read + usage.cache_write_5m
        body = '{"model": "%s", "max_tokens": 32000, "stream": true, "messages": [{"role": "user", "content": "%s"}]}'
        text = (body % (MODEL, "word" * prompt)).encode()
        return self._ada.request("POST", "/v1/messages", text, {"x-claude-code-session-id": name})

    def work(self) -> list[Reply]:
        with ThreadPoolExecutor(AGENTS) as pool:
            sessions = [pool.submit(self.session, f"session-{number}") for number in range(AGENTS)]
            return [reply for session in sessions for reply in session.result()]


def budget(gateway: Gateway, usd: float) -> None:
    gateway.document["budgets"] = [{"level": "user", "limit_usd": round(usd, 6), "overshoot_usd": 100}]
    gateway.restart()


def test_three_times_what_it_costs_is_always_enough(gateway: Gateway, ada: Device, scripted: ScriptedBedrock) -> None:
    budget(gateway, 3 * true_cost())
    replies = Team(ada, scripted).work()
    assert [reply.status for reply in replies] == [200] * (TURNS * AGENTS)
    rows = ledger.settled(gateway.db, TURNS * AGENTS)
    assert abs(sum(row.cost for row in rows) / 1_000_000 - true_cost()) < 0.01


def test_nine_tenths_of_what_it_costs_are_used_nearly_to_the_end(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    limit = 0.9 * true_cost()
    budget(gateway, limit)
    replies = Team(ada, scripted).work()
    answered = [reply for reply in replies if reply.status == 200]
    assert {reply.status for reply in replies} == {200, 402}
    spent = sum(row.cost for row in ledger.settled(gateway.db, len(answered))) / 1_000_000
    assert spent >= 0.9 * limit, "refused too early"
    assert spent <= limit + 0.1 * limit, "refused too late"
