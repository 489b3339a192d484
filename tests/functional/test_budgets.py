"""Budgets near their limit: clamped, slowed down, announced, raised for a while; in tokens, and for one device."""

from __future__ import annotations

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional import ledger
from tests.functional.device import ANTHROPIC, Device
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.trial import Trial
    from tests.lab.gateway import Gateway

DEAR = Answer(usage=Usage(input=100_000, output=10_000))
"""USD 0.45 at the list price of claude-sonnet-4-5."""
TARGET = "anthropic.claude-sonnet-4-5-20250929-v1:0"


def configure(gateway: Gateway, *budgets: dict[str, Any], **more: Any) -> None:
    gateway.document["budgets"] = list(budgets)
    gateway.document.update(more)
    gateway.restart()


def command(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    """`llmgw-gateway budget VERB CONFIG ...` beside the running gateway."""
    executable, *rest = gateway.command("budget")[:-1]
    verb, *others = words
    return subprocess.run(
        [executable, *rest, verb, gateway.config, *others],
        capture_output=True,
        text=True,
        check=False,
        env=gateway.program.env,
    )


def said(gateway: Gateway, *words: str) -> str:
    done = command(gateway, *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def tomorrow() -> str:
    return (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d")


@pytest.mark.configured(budgets=[{"level": "user", "limit_usd": 0.3, "overshoot_usd": 100}])
def test_a_grant_counts_at_once_and_until_it_is_withdrawn(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(DEAR)
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 1)
    assert ada.ask().status == 402
    words = ["user", "ada@example.com", "--amount", "5", "--until", tomorrow(), "--reason", "release week"]
    granted = said(gateway, "grant", *words)
    assert "USD 5.00 more until" in granted
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 2)
    assert ada.me()["budgets"][0]["limit"] == 5_300_000
    shown = said(gateway, "show", "user", "ada@example.com")
    assert "release week" in shown
    assert "limit      USD 5.30" in shown
    adjustment = granted.split(": ")[1]
    assert said(gateway, "withdraw", adjustment) == f"{adjustment} no longer counts\n"
    assert ada.ask().status == 402
    again = command(gateway, "withdraw", adjustment)
    assert again.returncode == 1
    assert "not withdrawn yet" in again.stderr


@pytest.mark.configured(budgets=[{"level": "user", "limit_usd": 20, "overshoot_usd": 100}])
def test_a_new_limit_replaces_the_configured_one_and_outlives_a_restart(gateway: Gateway, ada: Device) -> None:
    assert "limit USD 0.00" in said(
        gateway, "set", "user", "ada@example.com", "--limit", "0", "--reason", "left the company"
    )
    assert ada.ask().status == 402
    gateway.restart()
    assert ada.ask().status == 402
    listed = json.loads(said(gateway, "list", "--format", "json"))["budgets"]
    assert [(each["subject"], each["limit"]) for each in listed] == [("ada@example.com", 0)]


def test_what_a_command_cannot_do_is_said_in_a_sentence(gateway: Gateway, ada: Device) -> None:
    assert ada.ask().status == 200
    for words, sentence in {
        ("set", "user", "bob", "--limit", "1", "--reason", "x"): "There is no user budget of 'bob'. Known: ada@",
        ("set", "team", "x", "--limit", "1", "--reason", "x"): "There is no team budget of 'x'",
        ("set", "user", "ada@example.com", "--limit", "many", "--reason", "x"): "'many' is not a number",
        ("set", "user", "ada@example.com", "--limit", "-1", "--reason", "x"): "'-1' is no amount of USD",
        ("show", "user", "ada@example.com", "--period", "day"): "Name one with --model, --period and --unit",
    }.items():
        done = command(gateway, *words)
        assert done.returncode == 2
        assert sentence in " ".join(done.stderr.split())


@pytest.mark.configured(budgets=[{"level": "user", "limit_usd": 1, "overshoot_usd": 100, "thresholds": [40, 80, 100]}])
def test_a_threshold_is_an_event_once(gateway: Gateway, ada: Device, scripted: ScriptedBedrock) -> None:
    for number in range(2):
        scripted.script(DEAR)
        assert ada.ask().status == 200
        ledger.settled(gateway.db, number + 1)
    events = json.loads(said(gateway, "events", "--format", "json"))["events"]
    assert [(each["percent"], each["subject"], each["spent"]) for each in events] == [
        (40, "ada@example.com", 495_000),
        (80, "ada@example.com", 990_000),
    ]
    assert "user ada@example.com" in said(gateway, "events")
    # A higher limit arms what is no longer reached.
    configure(gateway, {"level": "user", "limit_usd": 2, "overshoot_usd": 100, "thresholds": [40, 80, 100]})
    scripted.script(DEAR, DEAR)
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 3)
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 4)
    events = json.loads(said(gateway, "events", "--format", "json"))["events"]
    assert [each["percent"] for each in events] == [40, 80, 80]


@pytest.mark.configured(budgets=[{"level": "user", "limit_usd": 0.1, "overshoot_usd": 0.1, "near_limit": "clamp"}])
def test_near_the_limit_max_tokens_is_clamped_and_the_answer_says_so(ada: Device, scripted: ScriptedBedrock) -> None:
    reply = ada.ask(max_tokens=64_000)
    assert reply.status == 200
    clamped = int(reply.headers["x-llmgw-max-tokens"])
    assert 1024 <= clamped < 64_000
    assert scripted.calls[0].body["max_tokens"] == clamped
    # What no clamp can make fit is refused: thinking needs more than that.
    thinking = {"type": "enabled", "budget_tokens": clamped}
    refused = ada.ask(max_tokens=64_000, thinking=thinking)
    assert (refused.status, refused.error["type"]) == (402, "billing_error")
    plain = ada.ask(max_tokens=1024)
    assert plain.status == 200
    assert "x-llmgw-max-tokens" not in plain.headers


@pytest.mark.configured(
    budgets=[{"level": "user", "limit_usd": 0.1, "overshoot_usd": 0.1, "near_limit": "clamp"}],
    models=[{"name": "claude-sonnet-4-5", "target": f"us.{TARGET}", "fallbacks": [f"global.{TARGET}"]}],
)
def test_a_cap_that_was_clamped_for_one_target_is_told_with_the_answer_of_the_next(
    ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(Answer(status=429, error="slow down", error_type="ThrottlingException"), Answer())
    reply = ada.ask(max_tokens=64_000)
    assert reply.status == 200
    assert [call.body["max_tokens"] for call in scripted.calls] == [int(reply.headers["x-llmgw-max-tokens"])] * 2


@pytest.mark.configured(
    budgets=[{"level": "user", "limit_usd": 1, "overshoot_usd": 100, "throttle_percent": 40, "throttle_per_minute": 1}]
)
def test_a_budget_that_is_nearly_used_up_slows_its_calls_down(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(DEAR)
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 1)
    assert ada.ask().status == 200
    slowed = ada.ask()
    assert (slowed.status, slowed.error["type"]) == (429, "rate_limit_error")
    assert 0 < int(slowed.headers["retry-after"]) <= 60
    assert "nearly used up" in slowed.error["message"]


@pytest.mark.configured(
    budgets=[{"level": "user", "limit_tokens": 100_000}, {"level": "organisation", "limit_weighted_tokens": 1_000_000}]
)
def test_a_budget_in_tokens_counts_all_classes_and_a_weighted_one_by_price(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.script(Answer(usage=Usage(input=1000, output=2000, cache_read=60_000)))
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 1)
    spent = {each["unit"]: each["spent"] for each in ada.me()["budgets"]}
    assert spent == {"tokens": 63_000, "weighted_tokens": 1000 + 5 * 2000 + 6000}
    scripted.script(Answer(usage=Usage(input=1000, output=40_000)))
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 2)
    refused = ada.ask()
    assert refused.status == 402
    assert "Your monthly token budget" in refused.error["message"]
    assert "104,000 tokens spent" in refused.error["message"]


@pytest.mark.configured(budgets=[{"level": "key", "limit_usd": 0.3, "overshoot_usd": 100, "period": "day"}])
def test_each_device_has_a_budget_of_its_own(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, sign_in: Callable[[str], str]
) -> None:
    second = Device(gateway.url)
    second.exchange(sign_in("ada"))
    scripted.script(DEAR)
    assert ada.ask().status == 200
    ledger.settled(gateway.db, 1)
    refused = ada.ask()
    assert refused.status == 402
    assert "daily budget of this device" in refused.error["message"]
    assert second.ask().status == 200


@pytest.mark.configured(budgets=[{"level": "user", "limit_usd": 20, "overshoot_usd": 100}])
def test_a_hold_that_turns_out_too_small_grows_while_the_answer_streams(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    # What the prompt comes to is said in the first event: three times what its bytes made expect.
    scripted.script(Answer(usage=Usage(input=150_000, output=100), hold_after=1))
    messages = [{"role": "user", "content": "x" * 200_000}]
    body = json.dumps(ANTHROPIC | {"stream": True, "messages": messages}).encode()
    headers = {"authorization": f"Bearer {ada.token}", "content-type": "application/json"}
    with ada._send("POST", "/v1/messages", body, headers) as answer:
        assert answer.status == 200
        deadline = time.monotonic() + 20
        while (held := ada.me()["budgets"][0]["held"]) < 450_000:
            assert time.monotonic() < deadline, f"still {held}"
        scripted.release_all()
        answer.read()
    (row,) = ledger.settled(gateway.db, 1)
    assert not row.estimated
    assert ada.me()["budgets"][0]["held"] == 0


@pytest.mark.configured(
    budgets=[{"level": "user", "limit_usd": 20, "when_store_away": "allowance", "allowance_usd": 2}],
    store={"journal": "journal"},
)
def test_what_is_set_aside_is_written_off_through_the_gateway_that_has_the_file(gateway: Gateway, ada: Device) -> None:
    assert ada.ask().status == 200
    deadline = time.monotonic() + 30
    while not (found := json.loads(said(gateway, "allowances", "--format", "json"))["allowances"]):
        assert time.monotonic() < deadline
    assert (found[0]["amount"], found[0]["replica"][:4]) == (2_000_000, "rep_")
    done = said(gateway, "write-off", found[0]["allowance"], "--reason", "a drill")
    assert done == f"{found[0]['allowance']} is written off: USD 2.00 are charged to its budget\n"
    assert ada.me()["budgets"][0]["spent"] >= 2_000_000
    again = command(gateway, "write-off", found[0]["allowance"], "--reason", "a drill")
    assert again.returncode == 1


def test_a_device_that_signs_out_and_in_again_keeps_what_it_has_spent(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin(
        {"level": "key", "limit_usd": 0.05, "overshoot_usd": 10},
        {"level": "user", "limit_usd": 100, "overshoot_usd": 100},
    )
    scripted.script(Answer(usage=Usage(30_000, 100)))
    assert trial.ask("the dear one").status == 200
    trial.rest()
    assert trial.ask("the next one").status == 402
    sent = {"content-type": "application/x-www-form-urlencoded"}
    assert trial.ada.request("POST", "/oauth/revoke", f"token={trial.ada.token}".encode(), sent).status == 200
    assert trial.ask("signed out").status == 401
    again = trial.device("ada")  # with another device key
    assert trial.ask("signed in again", device=again).status == 402
    assert len(scripted.calls) == 1
    assert trial.faults() == []
