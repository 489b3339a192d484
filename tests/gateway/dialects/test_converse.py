"""What is read of a request in Converse's format, and what its answers say about usage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import LEAST_TOKENS, Usage
from llmgw_gateway.dialects import converse
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers import bridge
from llmgw_gateway.streams.converse import ConverseMeter, inner_event
from llmgw_gateway.streams.frames import Frame
from llmgw_wire.errors import ErrorCode

SAY: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
PICTURE = {"image": {"format": "png", "source": {"bytes": "QQ=="}}}


def read(**members: Any) -> Any:
    return converse.read(json.dumps(SAY | members).encode(), "m", stream=True)


def test_a_request_goes_on_as_it_is() -> None:
    body = json.dumps(SAY | {"unheard_of": {"x": [1]}, "system": [{"text": "s"}]}, separators=(",", ":")).encode()
    call = converse.read(body, "m", stream=False)
    assert bridge.invoke_body(call, "claude-sonnet-4-5") == body
    assert (call.operation, call.max_tokens, call.media, call.least_tokens) == ("converse", 0, False, LEAST_TOKENS)


def test_the_cap_is_read_and_written_where_converse_has_it() -> None:
    call = read(inferenceConfig={"maxTokens": 50, "temperature": 0.5})
    assert call.max_tokens == 50
    call.clamp(7)
    assert json.loads(bytes(call.members["inferenceConfig"])) == {"maxTokens": 7, "temperature": 0.5}
    bare = read()
    bare.clamp(7)
    assert json.loads(bytes(bare.members["inferenceConfig"])) == {"maxTokens": 7}


@pytest.mark.parametrize(
    "block",
    [PICTURE, {"document": {"format": "pdf", "name": "a"}}, {"toolResult": {"toolUseId": "t", "content": [PICTURE]}}],
)
def test_pictures_and_files_are_seen(block: dict[str, Any]) -> None:
    assert read(messages=[{"role": "user", "content": [{"text": '"image":{}'}, block]}]).media


def test_a_word_in_a_text_or_a_tool_is_no_picture() -> None:
    use = {"toolUse": {"toolUseId": "t", "name": "f", "input": {"image": {"source": {"s3Location": {}}}}}}
    assert not read(messages=[{"role": "user", "content": [{"text": '{"image":{"source":{}}}'}, use]}]).media


def test_what_goes_to_the_model_past_converse_is_read() -> None:
    fields = {"anthropic_beta": ["context-1m-2025-08-07"], "thinking": {"type": "enabled", "budget_tokens": 5_000}}
    call = read(additionalModelRequestFields=fields, system=[{"cachePoint": {"type": "default", "ttl": "1h"}}])
    assert (call.long_context, call.least_tokens, call.long_cache) == (True, LEAST_TOKENS + 5_000, True)


@pytest.mark.parametrize(
    "members",
    [
        {"guardrailConfig": {}},
        {"promptVariables": {"a": {"text": "b"}}},
        {"serviceTier": {"type": "flex"}},
        {"serviceTier": "priority"},
        {"performanceConfig": {"latency": "optimized"}},
        {"additionalModelRequestFields": {"max_tokens": 5}},
        {"additionalModelRequestFields": {"context_management": {"edits": [{"type": "compact_20260112"}]}}},
        {"additionalModelRequestFields": []},
        {"inferenceConfig": {"maxTokens": 0}},
        {"inferenceConfig": {"maxTokens": "many"}},
        {"messages": "hi"},
        {"messages": [{"content": [{"video": {"source": {"s3Location": {"uri": "s3://b/k"}}}}]}]},
        {"messages": [{"content": [{"toolResult": {"content": [{"image": {"source": {"s3Location": {}}}}]}}]}]},
    ],
)
def test_what_costs_more_or_cannot_be_read_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        read(**members)
    assert caught.value.code is ErrorCode.REQUEST_MALFORMED


@pytest.mark.parametrize("members", [{"serviceTier": None}, {"serviceTier": {"type": "default"}}, {"messages": None}])
def test_what_asks_for_nothing_is_accepted(members: dict[str, Any]) -> None:
    assert read(**members).operation == "converse"


USAGE = {"inputTokens": 3, "outputTokens": 5, "totalTokens": 44, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 24}
SPLIT = [{"ttl": "5m", "inputTokens": 11}, {"ttl": "1h", "inputTokens": 13}]


def event(kind: str, payload: dict[str, Any]) -> bytes:
    data = inner_event(Frame({":event-type": kind}, json.dumps(payload).encode()))
    assert data is not None
    return data


@pytest.mark.parametrize(
    ("usage", "long_cache", "expected"),
    [
        (USAGE | {"cacheDetails": SPLIT}, False, Usage(3, 5, 7, 11, 13)),
        (USAGE, False, Usage(3, 5, 7, 24, 0)),
        (USAGE, True, Usage(3, 5, 7, 0, 24)),
        ({"inputTokens": 3, "outputTokens": 0}, True, Usage(3, 0)),
    ],
)
def test_usage_of_a_stream_and_of_a_whole_answer(usage: dict[str, Any], expected: Usage, *, long_cache: bool) -> None:
    whole, streamed = ConverseMeter(long_cache=long_cache), ConverseMeter(long_cache=long_cache)
    assert whole.answer(json.dumps({"output": {}, "usage": usage}).encode())
    for kind, payload in (
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"delta": {"text": "x"}}),
        ("messageStop", {"stopReason": "end_turn"}),
    ):
        assert streamed.event(event(kind, payload)) == kind
    assert (streamed.started, streamed.pieces, streamed.stopped, streamed.completeness) == (True, 1, True, "none")
    streamed.event(event("metadata", {"usage": usage, "metrics": {}}))
    assert [(each.usage, each.completeness) for each in (whole, streamed)] == [(expected, "complete")] * 2


@pytest.mark.parametrize("usage", [None, {}, {"inputTokens": 3}, {"outputTokens": 3}, {"inputTokens": -1}, "many"])
def test_usage_that_is_not_told_is_unknown_and_never_zero(usage: Any) -> None:
    meter = ConverseMeter()
    assert meter.answer(json.dumps({"usage": usage}).encode())
    assert meter.completeness != "complete"


@given(st.binary(max_size=60))
def test_no_payload_breaks_the_meter(payload: bytes) -> None:
    meter = ConverseMeter()
    meter.event(inner_event(Frame({":event-type": "metadata"}, payload)) or b"")
    meter.event(payload)
    assert meter.completeness in {"none", "partial", "complete"}


def test_what_is_no_json_is_no_answer() -> None:
    assert not ConverseMeter().answer(b"<html>")
