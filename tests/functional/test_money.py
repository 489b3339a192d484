"""The budget refuses, names itself, and the ledger agrees with the cloud."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.functional import ledger
from tests.functional.device import Device
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.gateway import Gateway


def small_budget(limit: float, overshoot: float = 100) -> list[dict[str, object]]:
    return [{"level": "user", "limit_usd": limit, "overshoot_usd": overshoot}]


def test_every_call_is_one_row_with_the_clouds_own_numbers(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    usages = [
        Usage(input=10, output=20),
        Usage(input=1, output=2, cache_read=30_000),
        Usage(input=3, output=4, cache_write_5m=500, cache_write_1h=600),
        Usage(input=0, output=0),
    ]
    scripted.script(*[Answer(usage=usage) for usage in usages])
    for number, _ in enumerate(usages):
        ada.ask(stream=True) if number % 2 else ada.ask_bedrock(stream=True)
    rows = ledger.settled(gateway.db, len(usages))
    assert [ledger.usage_of(row) for row in rows] == scripted.usages == usages
    assert not any(row.estimated for row in rows)
    assert ada.me()["budgets"][0]["spent"] == sum(row.cost for row in rows)


@pytest.mark.configured(budgets=small_budget(0.05))
def test_an_exhausted_budget_refuses_and_says_which_how_much_and_when_it_resets(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(Answer(usage=Usage(input=100_000, output=10_000)))
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 1)
    for reply in (ada.ask(), ada.ask(stream=True), ada.ask_bedrock(), ada.ask_bedrock(stream=True)):
        assert (reply.status, reply.error["type"]) == (402, "billing_error")
        month = datetime.now(UTC).strftime("%Y-%m")
        for part in ("monthly budget", month, "is used up", "USD 0.05", "It resets at 20", "#llm-help"):
            assert part in reply.error["message"]
    assert len(scripted.calls) == 1


@pytest.mark.configured(budgets=small_budget(0.05))
def test_one_persons_budget_is_not_anothers(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, sign_in: Callable[[str], str]
) -> None:
    scripted.script(Answer(usage=Usage(input=100_000, output=10_000)))
    ada.ask()
    ledger.settled(gateway.db, 1)
    grace = Device(gateway.url)
    grace.exchange(sign_in("grace"))
    assert ada.ask().status == 402
    assert grace.ask().status == 200


@pytest.mark.configured(budgets=small_budget(0.01))
def test_concurrent_requests_cannot_pass_a_budget_together(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    """Forty at once against a budget that holds a few: what is admitted never exceeds the limit (I4)."""
    scripted.default = Answer(hold_after=1)
    with ThreadPoolExecutor(40) as pool:
        replies = [pool.submit(ada.ask, stream=True) for _ in range(40)]
        while sum(reply.done() for reply in replies) + len(scripted.calls) < 40:
            ada.request("GET", "/healthz")
        budget = ada.me()["budgets"][0]
        assert budget["spent"] + budget["held"] <= budget["limit"]
        admitted = len(scripted.calls)
        scripted.release_all()
        statuses = [reply.result().status for reply in replies]
    assert 0 < admitted < 40
    assert statuses.count(200) == admitted
    assert statuses.count(402) == 40 - admitted
    ledger.settled(gateway.db, admitted)


@pytest.mark.configured(budgets=small_budget(limit=0.1, overshoot=0.1))
def test_the_worst_case_of_running_requests_is_bounded(ada: Device) -> None:
    """I5: a request that could cost more than limit and overshoot together is refused, whatever is expected of it."""
    refused = ada.ask(max_tokens=64_000)
    assert refused.status == 402
    assert "worst case" in refused.error["message"]
    assert ada.ask(max_tokens=1_000).status == 200


def test_the_balance_travels_with_the_answer(ada: Device) -> None:
    reply = ada.ask()
    assert float(reply.headers["x-llmgw-cost-usd"]) > 0
    assert 0 < float(reply.headers["x-llmgw-budget-remaining-usd"]) < 20
    assert reply.headers["x-llmgw-target"].endswith("claude-sonnet-4-5-20250929-v1:0")


def test_a_killed_gateway_charges_what_was_held_and_loses_nothing(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(Answer(), Answer(hold_after=1))
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 1)
    with ada.streaming() as stream:
        assert stream.status == 200
        gateway.program.send_signal(signal.SIGKILL)
        gateway.program.wait(seconds=10)
    scripted.release_all()
    gateway.restart()
    assert ada.me()["budgets"][0]["held"] > 0, "unknown is not free"
    assert ledger.rows(gateway.db)[0].cost > 0


@pytest.mark.long
def test_what_a_killed_gateway_had_under_way_is_settled_when_its_lease_has_ended(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.default = Answer(hold_after=1)
    with ada.streaming() as stream:
        assert stream.status == 200
        gateway.program.send_signal(signal.SIGKILL)
        gateway.program.wait(seconds=10)
    scripted.release_all()
    gateway.restart()
    (row,) = ledger.settled(gateway.db, 1, seconds=90)
    assert (row.outcome, row.estimated) == ("lease_expired", True)
    assert row.cost > 0
    assert ada.me()["budgets"][0]["held"] == 0


def ample(*tables: dict[str, object]) -> list[dict[str, object]]:
    """Budgets that no single call exceeds by too much."""
    return [{"overshoot_usd": 100} | table for table in tables]


@pytest.mark.configured(
    budgets=ample(
        {"level": "user", "limit_usd": 20},
        {"level": "team", "of": "analysis", "limit_usd": 0.05},
        {"level": "organisation", "limit_usd": 20, "period": "week"},
    ),
    teams=[
        {"name": "analysis", "members": ["ada@example.com"]},
        {"name": "navy", "members": ["grace@example.com"]},
    ],
)
def test_every_level_must_admit_and_the_refusing_one_is_named(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, sign_in: Callable[[str], str]
) -> None:
    """Ada's own budget is ample; the team she shares with nobody else is used up by her; Grace goes on."""
    grace = Device(gateway.url)
    grace.exchange(sign_in("grace"))
    scripted.script(Answer(usage=Usage(input=100_000, output=10_000)))
    assert ada.ask().status == 200
    (row,) = ledger.settled(gateway.db, 1)
    refused = ada.ask()
    assert refused.status == 402
    assert "The monthly budget of team analysis" in refused.error["message"]
    assert grace.ask().status == 200
    spent = {budget["level"]: budget["spent"] for budget in ada.me()["budgets"]}
    assert spent["user"] == spent["team"] == row.cost
    assert spent["organisation"] >= row.cost


@pytest.mark.configured(
    budgets=ample(
        {"level": "user", "limit_usd": 20},
        {"level": "user", "model": "claude-opus-5-5", "limit_usd": 0.05, "period": "day"},
    )
)
def test_a_budget_for_one_model_leaves_the_others_alone(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(Answer(usage=Usage(input=100_000, output=10_000)))
    assert ada.ask(model="claude-opus-5-5").status == 200
    ledger.settled(gateway.db, 1)
    refused = ada.ask(model="claude-opus-5-5")
    assert refused.status == 402
    assert "Your daily budget for claude-opus-5-5" in refused.error["message"]
    assert ada.ask(model="claude-sonnet-4-5").status == 200


@pytest.mark.configured(
    budgets=ample({"level": "user", "limit_usd": 20}, {"level": "project", "of": "apollo", "limit_usd": 0}),
    projects=[{"name": "apollo"}, {"name": "gemini", "teams": ["navy"]}],
    teams=[{"name": "navy", "members": ["grace@example.com"]}],
)
def test_a_project_pays_when_the_request_names_it(ada: Device) -> None:

    def charged_to(project: str) -> tuple[int, str]:
        body = b'{"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}'
        reply = ada.request("POST", "/v1/messages", body, {"x-llmgw-project": project})
        return reply.status, reply.body.decode()

    assert ada.ask().status == 200
    status, text = charged_to("apollo")
    assert status == 402
    assert "budget of project apollo" in text
    for project in ("gemini", "appollo"):
        status, text = charged_to(project)
        assert status == 400, "a project that is not hers, or misspelt, must not escape its budget"
        assert "Yours: apollo" in text


@pytest.mark.configured(
    budgets=ample({"level": "team", "limit_usd": 0}), teams=[{"name": "analysis", "groups": ["analysts"]}]
)
def test_the_provider_s_groups_decide_the_team(gateway: Gateway, ada: Device, sign_in: Callable[[str], str]) -> None:
    grace = Device(gateway.url)
    grace.exchange(sign_in("grace"))
    ada.exchange(sign_in("ada"))
    assert "team analysis" in ada.ask().error["message"]
    assert grace.ask().status == 200
