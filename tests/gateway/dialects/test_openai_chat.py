"""Anthropic's answers and events in OpenAI's form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import Usage
from llmgw_gateway.dialects import openai, openai_chat
from llmgw_gateway.streams.frames import Frame
from llmgw_gateway.streams.meter import Meter

USAGE = Usage(input=3, output=5, cache_read=7, cache_write_5m=11, cache_write_1h=13)


def answer(**message: Any) -> Any:
    body = json.dumps({"id": "msg_1", "content": []} | message).encode()
    found = openai_chat.answer(body, model="m", created=1, usage=USAGE)
    assert found is not None
    return json.loads(found)


def test_a_whole_answer() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": [1, "ü"]}},
    ]
    document = answer(content=content, stop_reason="tool_use")
    (choice,) = document["choices"]
    assert choice["message"]["content"] == "ab"
    (call,) = choice["message"]["tool_calls"]
    assert (call["id"], call["type"], call["function"]["name"]) == ("t", "function", "f")
    assert json.loads(call["function"]["arguments"]) == {"x": [1, "ü"]}
    assert choice["finish_reason"] == "tool_calls"
    assert document["usage"] == {
        "prompt_tokens": 34,
        "completion_tokens": 5,
        "total_tokens": 39,
        "prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 24, "audio_tokens": 0},
    }


def test_an_answer_of_calls_alone_has_no_content() -> None:
    message = answer(content=[{"type": "tool_use", "id": "t", "name": "f", "input": {}}])["choices"][0]["message"]
    assert message["content"] is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        (None, "stop"),
    ],
)
def test_reasons_to_stop(reason: str | None, finish: str) -> None:
    assert answer(stop_reason=reason)["choices"][0]["finish_reason"] == finish


def test_an_answer_that_cannot_be_read_is_none() -> None:
    assert openai_chat.answer(b"<html>", model="m", created=1, usage=USAGE) is None


def written(*events: dict[str, Any], include_usage: bool = False, broken: Frame | None = None) -> list[Any]:
    meter = Meter()
    writer = openai_chat.EventWriter(meter, model="m", created=1, include_usage=include_usage)
    raw = [json.dumps(event, separators=(",", ":")).encode() for event in events]
    stream = writer.write(b"", [(meter.event(data), data) for data in raw], broken).decode()
    assert stream.endswith("\n\n")
    lines = stream.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    data = [line.removeprefix("data: ") for line in lines]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


START = {"type": "message_start", "message": {"id": "msg_9", "usage": {"input_tokens": 4, "output_tokens": 1}}}
STOP = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 6}}
END = {"type": "message_stop"}


def text(value: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": value}}


def test_two_calls_of_tools_are_counted_from_nought_whatever_stands_between() -> None:
    def begin(index: int, name: str) -> dict[str, Any]:
        block = {"type": "tool_use", "id": f"id-{name}", "name": name, "input": {}}
        return {"type": "content_block_start", "index": index, "content_block": block}

    def more(index: int, part: str) -> dict[str, Any]:
        delta = {"type": "input_json_delta", "partial_json": part}
        return {"type": "content_block_delta", "index": index, "delta": delta}

    chunks = written(START, begin(1, "f"), more(1, '{"a"'), more(1, ":1}"), begin(3, "g"), more(3, "{}"))
    calls = [call for chunk in chunks[1:] for call in chunk["choices"][0]["delta"]["tool_calls"]]
    assert [call["index"] for call in calls] == [0, 0, 0, 1, 1]
    assert [call.get("id") for call in calls] == ["id-f", None, None, "id-g", None]
    assert "".join(call["function"]["arguments"] for call in calls[:3]) == '{"a":1}'


@pytest.mark.parametrize("include_usage", [False, True])
def test_usage_comes_last_and_only_to_who_asks(*, include_usage: bool) -> None:
    chunks = written(START, text("x"), STOP, END, include_usage=include_usage)
    assert chunks.pop() == "[DONE]"
    if include_usage:
        last = chunks.pop()
        assert (last["choices"], last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == ([], 4, 6)
    assert [chunk.get("usage", "absent") for chunk in chunks] == [None if include_usage else "absent"] * 3
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-msg_9"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


@given(st.text())
def test_a_text_arrives_as_it_was_said(said: str) -> None:
    assert written(START, text(said))[1]["choices"][0]["delta"]["content"] == said


def test_thinking_and_what_nobody_knows_write_nothing() -> None:
    thinking = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    end = {"type": "content_block_stop", "index": 0}
    assert len(written(START, block, thinking, end, {"type": "ping"}, {"type": "x", "delta": 5})) == 1


def test_an_exception_ends_the_stream_with_an_error() -> None:
    frame = Frame({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow down"}')
    last = written(START, broken=frame)[-1]
    assert last == {
        "error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": None},
    }


def test_an_error_event_ends_the_stream_with_an_error() -> None:
    last = written(START, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})[-1]
    assert last == {"error": {"message": "busy", "type": "overloaded_error", "param": None, "code": None}}


@pytest.mark.parametrize(
    ("status", "body", "expected", "said"),
    [
        (400, b'{"message":"no such tool"}', (400, "invalid_request_error"), "no such tool"),
        (429, b'{"Message":"slow"}', (429, "rate_limit_error"), "slow"),
        (424, b"<html>", (502, "server_error"), "without a reason"),
        (408, b"[]", (504, "server_error"), "without a reason"),
        (529, b'{"type":"error","error":{"message":"busy"}}', (503, "server_error"), "busy"),
        (503, b'{"message":null}', (503, "server_error"), "without a reason"),
    ],
)
def test_a_refusal_of_the_provider_keeps_its_words(status: int, body: bytes, expected: Any, said: str) -> None:
    found, document = openai.refusal(status, body)
    error = json.loads(document)["error"]
    assert (found, error["type"]) == expected
    assert said in error["message"]


@pytest.mark.parametrize("intervened", [False, True])
def test_why_it_ended_is_told_when_the_guardrail_has_said_its_last_word(*, intervened: bool) -> None:
    """Bedrock may say at the very end that it was the guardrail which spoke."""
    meter = Meter()
    meter.guarded = True
    writer = openai_chat.EventWriter(meter, model="m", created=1, include_usage=False)
    delta = json.dumps({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}).encode()
    action = {"amazon-bedrock-guardrailAction": "INTERVENED" if intervened else "NONE"}
    stop = json.dumps({"type": "message_stop"} | action).encode()
    assert writer.write(b"", [(meter.event(delta), delta)], None) == b""
    said = writer.write(b"", [(meter.event(stop), stop)], None)
    reason = "content_filter" if intervened else "stop"
    assert said.count(b'"finish_reason":"' + reason.encode() + b'"') == 1
    assert said.endswith(b"data: [DONE]\n\n")
