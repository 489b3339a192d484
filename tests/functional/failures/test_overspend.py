"""A. Spent without being counted, counted without being enforced. Numbers: docs/money-failures.md."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.trial import MODEL, PRICE, Trial, until
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.gateway import Gateway

MANY = 40
LEVELS = ("organisation", "team", "project", "user", "key")
AMPLE = {"level": "user", "limit_usd": 100, "overshoot_usd": 100}


def flood(trial: Trial, count: int = MANY, **more: Any) -> int:
    """So many clients at once, whose answers are held back until everyone was heard. How many were admitted."""
    trial.cloud.default = Answer(hold_after=1)
    with ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(trial.ask, f"client {number}", **more) for number in range(count)]
        until(lambda: sum(each.done() for each in asked) + len(trial.cloud.calls) >= count, "all heard")
        trial.cloud.release_all()
        statuses = [each.result().status for each in asked]
    trial.rest()
    assert set(statuses) == {200, 402}
    assert statuses.count(200) == len(trial.cloud.calls)
    assert trial.faults() == []
    return statuses.count(200)


def test_litellm_18730_concurrent_requests_cannot_pass_a_token_limit_together(begin: Callable[..., Trial]) -> None:
    assert flood(begin({"level": "user", "limit_tokens": 1000, "overshoot_tokens": 1_000_000})) < 10


def test_litellm_34732_concurrent_requests_cannot_pass_a_sessions_limit_together(begin: Callable[..., Trial]) -> None:
    session = {"level": "key", "limit_usd": 0.01, "overshoot_usd": 10, "period": "day"}
    assert flood(begin(session, AMPLE)) < 10


def test_litellm_40095_the_first_requests_of_an_unknown_person_are_counted(begin: Callable[..., Trial]) -> None:
    trial = begin({"level": "user", "limit_usd": 0.01, "overshoot_usd": 10})
    grace = trial.device("grace")
    assert trial.books().counters == {}, "nobody has asked for anything yet"
    assert flood(trial, device=grace) < 10


def test_litellm_26672_what_was_spent_refuses_the_next_request_before_and_after_a_restart(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin({"level": "user", "limit_usd": 0.05, "overshoot_usd": 10})
    scripted.script(Answer(usage=Usage(30_000, 100)))
    assert trial.ask("the dear one").status == 200
    trial.rest()
    assert trial.ask("the next one").status == 402
    trial.gateway.restart()
    assert trial.ask("after the restart").status == 402
    assert len(scripted.calls) == 1
    assert trial.faults() == []


@pytest.mark.parametrize(
    ("level", "unit"),
    [
        ("organisation", "usd"),
        ("team", "usd"),
        ("project", "tokens"),
        ("user", "tokens"),
        ("key", "weighted_tokens"),
    ],
)
def test_litellm_27381_every_budget_that_can_be_configured_is_enforced(
    begin: Callable[..., Trial], scripted: ScriptedBedrock, level: str, unit: str
) -> None:
    overshoot = {"overshoot_usd": 10} if unit == "usd" else {"overshoot_tokens": 10_000_000}
    trial = begin(
        {"level": level, f"limit_{unit}": 1e-6 if unit == "usd" else 1, **overshoot},
        *({"level": other, "limit_usd": 100, "overshoot_usd": 100} for other in LEVELS if other != level),
        teams=[{"name": "analysis", "members": ["ada@example.com"]}],
        projects=[{"name": "apollo"}],
    )
    assert trial.ask("ada", headers={"x-llmgw-project": "apollo"}).status == 402
    assert scripted.calls == []


def test_litellm_11083_a_payer_named_in_a_header_skips_no_other_budget(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin(
        *({"level": level, "limit_usd": 1, "overshoot_usd": 1} for level in LEVELS),
        teams=[{"name": "analysis", "members": ["ada@example.com"]}],
        projects=[{"name": "apollo"}],
    )
    assert trial.ask("ada", headers={"x-llmgw-project": "apollo"}).status == 200
    trial.rest()
    assert {level: trial.spent(f"{level}/") for level in LEVELS} == dict.fromkeys(LEVELS, trial.billed())
    assert trial.billed() > 0
    assert len(scripted.calls) == 1
    assert trial.faults() == []


def test_litellm_30661_replicas_enforce_one_limit_together(
    begin: Callable[..., Trial], company: dict[str, Any], scripted: ScriptedBedrock
) -> None:
    trial = begin({"level": "user", "limit_usd": 0.01, "overshoot_usd": 10}, **company)
    scripted.default = Answer(hold_after=1)
    with ThreadPoolExecutor(MANY) as pool:
        asked = [
            pool.submit(trial.ask, f"client {number}", replica=number % len(trial.gateways)) for number in range(MANY)
        ]
        until(lambda: sum(each.done() for each in asked) + len(scripted.calls) >= MANY, "all heard")
        scripted.release_all()
    trial.rest()
    assert 0 < len(scripted.calls) < 10, "one replica alone would admit as many"
    assert trial.faults() == []


def test_litellm_41610_a_stream_counts_as_many_tokens_as_an_answer(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin({"level": "user", "limit_tokens": 10_000_000, "overshoot_tokens": 1_000_000})
    usage = Usage(100, 20, 300, 40, 5)
    scripted.default = Answer(usage=usage)
    counted = []
    for stream in (False, True):
        assert trial.ask(f"stream {stream}", stream=stream).status == 200
        trial.rest()
        counted.append(trial.spent())
    assert counted == [465, 930]


@pytest.fixture
def unstarted(tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock, sign_in: Callable[[str], str]) -> Gateway:
    """One whose configuration is right so far."""
    return Trial(tmp_path / "trial", canaille.issuer_section(), scripted, sign_in, budgets=[AMPLE]).gateway


def refused_at_start(gateway: Gateway) -> str:
    """What `check` says about a configuration with which `serve` does not start either."""
    gateway.prepare()
    refused = subprocess.run(
        gateway.command("check"), env=gateway.program.env, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    return refused.stderr


def test_litellm_30661_limits_that_replicas_cannot_share_stop_the_start(unstarted: Gateway) -> None:
    """There, each worker had the whole limit, for months: the server for sharing it was configured for a part only."""
    unstarted.document["store"] = {"url": "postgresql://llmgw@127.0.0.1/llmgw"}
    unstarted.document["limits"] = [{"level": "user", "requests_per_minute": 10}]
    assert "valkey.url: is needed for limits" in refused_at_start(unstarted)


def test_litellm_35524_a_model_without_a_price_stops_the_start(unstarted: Gateway) -> None:
    unstarted.document["models"].append({"name": "claude-unpriced"})
    assert "'claude-unpriced' has no price" in refused_at_start(unstarted)


def test_litellm_35524_a_picture_is_held_for_although_nobody_can_count_it(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE)
    scripted.default = Answer(hold_after=1)
    picture = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    content = [{"type": "text", "text": "What is this?"}, picture]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(trial.ask, "a picture", messages=[{"role": "user", "content": content}])
        until(lambda: bool(scripted.calls), "dispatched")
        (attempt,) = trial.books().open
        scripted.release_all()
        assert asked.result().status == 200
    assert attempt.ceiling[0] >= PRICE.cost(Usage(cache_write_1h=200_000)), "it may be all that the model can take"


@pytest.mark.parametrize(
    "caps",
    [
        '"max_tokens": 1, "max_tokens": 5000',
        '"max_tokens": 5000, "max_tokens": 1',
        '"max_tokens": 1, "max_completion_tokens": 5000',
        '"max_completion_tokens": 5000, "max_tokens": 1',
    ],
)
def test_litellm_34223_what_was_held_for_is_the_most_that_can_be_generated(
    begin: Callable[..., Trial], scripted: ScriptedBedrock, caps: str
) -> None:
    """What the provider reads as the cap of the output is what the worst case was computed with."""
    trial = begin(AMPLE)
    scripted.default = Answer(hold_after=1)
    body = f'{{"model": "{MODEL}", "stream": true, {caps}, "messages": [{{"role": "user", "content": "x"}}]}}'
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(trial.ada.request, "POST", "/v1/messages", body.encode())
        until(lambda: bool(scripted.calls) or asked.done(), "dispatched")
        worst = [attempt.ceiling[1] for attempt in trial.books().open]
        scripted.release_all()
        assert asked.result().status == 200
    (call,) = scripted.calls
    seen = json.loads(call.request.body)
    most_prompt = len(body) + 4096
    assert worst[0] >= seen["max_tokens"] + len(body) // 4
    assert worst[0] - most_prompt <= seen["max_tokens"]


def test_litellm_34728_every_dialect_holds_and_settles_alike(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin(AMPLE)
    charged = []
    for number, dialect in enumerate(("anthropic", "bedrock")):
        for stream in (False, True):
            assert trial.ask(f"{dialect} {stream} {number}", dialect=dialect, stream=stream).status == 200
            trial.rest()
            charged.append(trial.spent())
    each = PRICE.cost(scripted.default.usage or Usage())
    assert charged == [each, 2 * each, 3 * each, 4 * each]
    assert trial.faults() == []


def test_bifrost_2873_no_route_reaches_a_model_without_a_budget(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """Everything that a client could try, with a budget in which there is nothing."""
    trial = begin({"level": "organisation", "limit_usd": 0, "overshoot_usd": 0})
    name = f"us.anthropic.{MODEL}-20250929-v1%3A0"
    body = json.dumps({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}).encode()
    actions = ("invoke", "invoke-with-response-stream", "converse", "converse-stream", "invoke-async")
    paths = [f"/bedrock/model/{name}/{action}" for action in actions]
    paths += [f"/model/{name}/{action}" for action in actions]
    paths += ["/v1/messages", "/v1/messages/batches", "/v1/complete", "/anthropic/v1/messages", "/v1/chat/completions"]
    paths += ["/openai/v1/chat/completions", "/openai/v1/responses", "/v1/responses", "/passthrough/v1/messages"]
    statuses = {path: trial.ada.request("POST", path, body).status for path in paths}
    assert scripted.calls == []
    assert scripted.refused == []
    assert {402} < set(statuses.values()) <= {400, 402, 404, 405}, statuses


def test_bifrost_5673_a_budget_that_is_misspelt_stops_the_start(unstarted: Gateway) -> None:
    wrong = [
        {"level": "user", "limit_usd": 5, "overshot_usd": 1},
        {"level": "user", "limt_usd": 5},
        {"level": "usr", "limit_usd": 5},
        {"level": "team"},
    ]
    unstarted.document["budgets"] = wrong
    said = refused_at_start(unstarted)
    for number in range(len(wrong)):
        assert f"budgets[{number}]" in said


def test_envoy_680_a_running_answer_is_counted_before_it_ends(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    """2394, too: whoever charges afterwards admits the second one while the first still runs."""
    trial = begin({"level": "user", "limit_usd": 0.0015, "overshoot_usd": 10})
    scripted.script(Answer(hold_after=1))
    with trial.ada.streaming() as stream:
        assert stream.status == 200
        assert trial.ask("while it runs").status == 402
        scripted.release_all()
        assert b"message_stop" in stream.read()
    assert len(scripted.calls) == 1


def test_envoy_1754_the_remaining_budget_decreases_by_what_was_spent(
    begin: Callable[..., Trial], scripted: ScriptedBedrock
) -> None:
    trial = begin({"level": "user", "limit_usd": 1, "overshoot_usd": 10})
    scripted.default = Answer(usage=Usage(10_000, 500))
    left = []
    for _ in range(3):
        reply = trial.ada.ask()
        trial.rest()
        left.append(round(float(reply.headers["x-llmgw-budget-remaining-usd"]) * 1_000_000))
        (budget,) = trial.ada.me()["budgets"]
        assert budget["remaining"] == budget["limit"] - budget["spent"] == 1_000_000 - trial.billed()
    assert left[0] > left[1] > left[2]
    assert left[1] - left[2] >= PRICE.cost(Usage(9_000, 500)), "holds change a little as they learn, costs stay"
