"""Caps: what is asked for beyond them is lowered or refused, and what reaches the provider is what was judged."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import Account, Call, Grant
from llmgw_gateway.dialects import anthropic, converse
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.policy import caps
from llmgw_gateway.policy.defaults import Defaults
from llmgw_gateway.policy.models import Policy, ServedModel
from llmgw_gateway.sections.defaulting import Default
from llmgw_gateway.sections.permitting import Permission
from llmgw_wire.errors import ErrorCode

SONNET = ServedModel("sonnet", "Sonnet", "anthropic", ("sonnet",), "anthropic.sonnet", (), 64_000, "")


def asked(max_tokens: int | None = 128_000, thinking: int | None = None, **more: Any) -> Call:
    document: dict[str, Any] = {"model": "sonnet", "messages": [], "max_tokens": max_tokens} | more
    if thinking is not None:
        document["thinking"] = {"type": "enabled", "budget_tokens": thinking}
    return anthropic.read(json.dumps({k: v for k, v in document.items() if v is not None}).encode(), "")


def authorized(call: Call, **policy: Any) -> Grant:
    judge = Policy([SONNET], "us-east-1", "#llm-help", [Permission(**policy)])
    ada = Account("per_1")
    return judge.within_caps(ada, call, judge.authorize(ada, call.model, call.max_tokens))


def filled(call: Call, default: Default, **policy: Any) -> Grant:
    defaults = Defaults([default], budgeted=["sonnet"])
    judge = Policy([SONNET], "us-east-1", "#llm-help", [Permission(**policy)], defaults=defaults)
    ada = Account("per_1")
    grant = judge.filled(ada, call, judge.authorize(ada, call.model, call.max_tokens))
    return judge.within_caps(ada, call, grant)


def sent(call: Call) -> dict[str, Any]:
    return {name: json.loads(bytes(raw)) for name, raw in (call.members or {}).items()}


def test_output_above_the_cap_is_lowered_and_what_is_sent_says_so() -> None:
    call = asked(128_000)
    grant = authorized(call, max_tokens=32_000)
    assert (grant.max_tokens, grant.capped, call.max_tokens, sent(call)["max_tokens"]) == (32_000, True, 32_000, 32_000)


def test_what_is_within_the_caps_is_not_touched() -> None:
    call = asked(32_000, 16_000)
    before = sent(call)
    grant = authorized(call, max_tokens=32_000, thinking_tokens=16_000, context_tokens=1000)
    assert (grant.max_tokens, grant.capped, grant.thinking_tokens, sent(call)) == (32_000, False, None, before)


@pytest.mark.parametrize("over_cap", ["clamp", "refuse"])
def test_a_default_above_a_cap_is_no_reason_to_refuse_who_asked_for_nothing(over_cap: str) -> None:
    users_turn: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    generous = Default(max_tokens=32_000, thinking_tokens=16_000)
    grant = filled(asked(None, **users_turn), generous, max_tokens=4000, over_cap=over_cap)
    assert (grant.max_tokens, grant.thinking_tokens) == (4000, 4000 - 1024)
    grant = filled(asked(3000, **users_turn), generous, thinking_tokens=1500, over_cap=over_cap)
    assert (grant.max_tokens, grant.thinking_tokens) == (3000, 1500)
    call = asked(None, **users_turn)
    grant = filled(call, Default(thinking_tokens=4000), max_tokens=1500, over_cap=over_cap)
    assert (grant.max_tokens, grant.thinking_tokens) == (1500, None)
    assert "thinking" not in sent(call)


def test_a_call_that_names_no_output_gets_the_cap_and_not_the_model_s_most() -> None:
    for over_cap in ("clamp", "refuse"):
        call = asked(None)
        assert authorized(call, max_tokens=1000, over_cap=over_cap).max_tokens == 1000
        assert sent(call)["max_tokens"] == 1000


def test_thinking_is_lowered_and_keeps_its_type() -> None:
    call = asked(64_000, 31_999)
    grant = authorized(call, thinking_tokens=8_000)
    assert (grant.capped, grant.thinking_tokens, call.thinking_tokens) == (False, 8_000, 8_000)
    assert sent(call)["thinking"] == {"type": "enabled", "budget_tokens": 8_000}
    assert sent(call)["max_tokens"] == 64_000


def test_thinking_is_lowered_where_converse_has_it() -> None:
    document = {
        "messages": [{"role": "user", "content": [{"text": "x"}]}],
        "inferenceConfig": {"maxTokens": 64_000, "temperature": 1},
        "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 31_999}, "top_k": 5},
    }
    call = converse.read(json.dumps(document).encode(), "sonnet", stream=False)
    grant = authorized(call, max_tokens=16_000, thinking_tokens=8_000)
    assert (grant.max_tokens, grant.thinking_tokens) == (16_000, 8_000)
    assert sent(call)["inferenceConfig"] == {"maxTokens": 16_000, "temperature": 1}
    thinking = {"type": "enabled", "budget_tokens": 8_000}
    assert sent(call)["additionalModelRequestFields"] == {"thinking": thinking, "top_k": 5}


def test_thinking_fits_below_an_output_that_was_lowered() -> None:
    # The provider refuses a budget that is not below max_tokens: a cap on output alone must not bring that about.
    call = asked(64_000, 31_999)
    grant = authorized(call, max_tokens=16_000)
    assert (sent(call)["max_tokens"], grant.thinking_tokens) == (16_000, 16_000 - 1024)
    assert sent(call)["thinking"]["budget_tokens"] == 16_000 - 1024


def test_adaptive_thinking_has_no_budget_to_lower() -> None:
    document = {"model": "sonnet", "messages": [], "max_tokens": 64_000, "thinking": {"type": "adaptive"}}
    call = anthropic.read(json.dumps(document).encode(), "")
    assert authorized(call, thinking_tokens=2000).thinking_tokens is None
    assert sent(call) == document


REFUSED: dict[str, tuple[Call, dict[str, Any], list[str]]] = {
    "output": (asked(5000), {"max_tokens": 4000, "over_cap": "refuse"}, ["'max_tokens' is 5,000", "at most 4,000"]),
    "thinking": (
        asked(64_000, 5000),
        {"thinking_tokens": 4000, "over_cap": "refuse"},
        ["'thinking.budget_tokens' is 5,000", "at most 4,000"],
    ),
    "no room for thinking": (asked(64_000, 5000), {"max_tokens": 2000}, ["no thinking"]),
    "context": (asked(10, system="x" * 4000), {"context_tokens": 1000}, ["prompt is too long: 1", "tokens > 1000 max"]),
    "context, whatever over_cap says": (asked(10, system="x" * 4000), {"context_tokens": 900}, ["> 900 maximum"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_the_cap_the_policy_and_whom_to_ask(case: str) -> None:
    call, policy, words = REFUSED[case]
    with pytest.raises(GatewayError) as caught:
        authorized(call, name="small", **policy)
    assert caught.value.code is ErrorCode.CAP_EXCEEDED
    assert (caught.value.code.wire.status, caught.value.code.wire.retry) == (400, "never")
    for each in (*words, "policies[0] (small)", "Ask #llm-help"):
        assert each in caught.value.message


def test_a_thinking_budget_in_an_unusual_place_is_refused_and_not_let_through() -> None:
    call = asked(64_000, 31_999)
    call.members = {name: raw for name, raw in (call.members or {}).items() if name != "thinking"}
    with pytest.raises(GatewayError, match="Ask for less"):
        authorized(call, thinking_tokens=8_000)


def test_a_picture_s_bytes_are_no_tokens_and_its_neighbours_are() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    call = asked(10, system="x" * 4000, messages=[{"role": "user", "content": [picture]}])
    assert 1000 < caps.prompt_tokens(call) < 1200
    encoded = base64.b64encode(b"y" * 40_000).decode()
    text = asked(10, system=f'"data": "{encoded}" is what you see')
    assert caps.prompt_tokens(text) > 13_000


numbers = st.integers(1, 200_000)


@given(numbers, st.none() | st.integers(1024, 200_000), st.none() | numbers, st.none() | st.integers(1024, 200_000))
def test_nothing_beyond_a_cap_is_ever_sent(wants: int, thinks: int | None, cap: int | None, least: int | None) -> None:
    call = asked(wants, thinks)
    try:
        grant = authorized(call, max_tokens=cap, thinking_tokens=least)
    except GatewayError:
        return
    body = sent(call)
    assert body["max_tokens"] == grant.max_tokens == call.max_tokens <= min(wants, cap or wants)
    budget = body.get("thinking", {}).get("budget_tokens", 0)
    assert budget == call.thinking_tokens
    assert budget <= min(thinks or 0, least or budget)
    if grant.capped and thinks is not None:
        assert 1024 <= budget < body["max_tokens"]
