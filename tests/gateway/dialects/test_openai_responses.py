"""OpenAI's Responses: requests in Anthropic's format, answers and events back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import Usage
from llmgw_gateway.dialects import openai_response_events, openai_responses
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.frames import Frame
from llmgw_gateway.streams.meter import Meter
from llmgw_wire.errors import ErrorCode

HI = {"role": "user", "content": [{"type": "text", "text": "hi"}]}


def request(**members: Any) -> openai_responses.Request:
    return openai_responses.read(json.dumps({"model": "m", "input": "hi"} | members).encode())


def sent(**members: Any) -> dict[str, Any]:
    return {name: json.loads(bytes(value)) for name, value in (request(**members).call.members or {}).items()}


def test_a_plain_request_and_what_its_answer_repeats() -> None:
    asked = request(temperature=0.5, stream=True, metadata={"a": "b"}, include=["reasoning.encrypted_content"])
    assert (asked.call.dialect, asked.call.stream) == ("openai", True)
    assert (asked.echo["model"], asked.echo["temperature"], asked.echo["metadata"]) == ("m", 0.5, {"a": "b"})
    assert sent(instructions="s") == {"system": [{"type": "text", "text": "s"}], "messages": [HI]}


def test_items_of_every_kind() -> None:
    said = [
        {"role": "developer", "content": "d"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "r"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,QQ=="}]},
    ]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}}
    assert sent(input=said) == {
        "system": [{"type": "text", "text": "d"}],
        "messages": [
            HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "r"}]},
                    image,
                ],
            },
        ],
    }
    assert request(input=said).call.media


def test_what_shapes_the_answer() -> None:
    schema = {"type": "object", "properties": {}}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    asked = request(text={"format": form}, reasoning={"effort": "low", "summary": "auto"}, max_output_tokens=7)
    assert asked.call.features == {"output_config.format": "text.format", "output_config.effort": "reasoning.effort"}
    assert asked.call.max_tokens == 7
    assert "JSON" in sent(text={"format": {"type": "json_object"}})["system"][0]["text"]
    body = sent(tools=[{"type": "function", "name": "f"}], tool_choice={"type": "function", "name": "f"})
    assert body["tool_choice"] == {"type": "tool", "name": "f"}


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"previous_response_id": "r"}, "'previous_response_id'"),
        ({"conversation": "c"}, "'conversation'"),
        ({"prompt": {"id": "p"}}, "'prompt'"),
        ({"background": True}, "'background'"),
        ({"truncation": "auto"}, "'truncation'"),
        ({"include": ["message.output_text.logprobs"]}, "'include'"),
        ({"text": {"verbosity": "low"}}, "'text.verbosity'"),
        ({"text": {"format": {"type": "grammar"}}}, "'text.format.type'"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": []}, "'input'"),
        ({"input": 5}, "'input'"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "image_url"),
        ({"reasoning": {"effort": "utmost"}}, "'reasoning.effort'"),
        ({"max_tool_calls": 3}, "'max_tool_calls'"),
    ],
)
def test_what_is_wrong_or_has_no_equivalent_is_named(members: dict[str, Any], named: str) -> None:
    with pytest.raises(GatewayError) as caught:
        request(**members)
    assert caught.value.code is ErrorCode.REQUEST_MALFORMED
    assert named in caught.value.message


USAGE = Usage(input=3, output=5, cache_read=7, cache_write_5m=11)
ECHO = request().echo


def test_a_whole_answer() -> None:
    content = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": 'a "b"\n'},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": ["ü"]}},
    ]
    body = json.dumps({"id": "m1", "content": content, "stop_reason": "max_tokens"}).encode()
    document = json.loads(openai_response_events.answer(body, echo=ECHO, created=1, usage=USAGE) or b"")
    message, call = document["output"]
    assert message["content"] == [{"type": "output_text", "text": 'a "b"\n', "annotations": [], "logprobs": []}]
    assert (call["call_id"], call["name"], json.loads(call["arguments"])) == ("t", "f", {"x": ["ü"]})
    assert (document["status"], document["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (document["usage"]["input_tokens"], document["usage"]["total_tokens"]) == (21, 26)
    assert openai_response_events.answer(b"<html>", echo=ECHO, created=1, usage=USAGE) is None


def written(*events: dict[str, Any], broken: Frame | None = None) -> list[dict[str, Any]]:
    meter = Meter()
    writer = openai_response_events.EventWriter(meter, echo=ECHO, created=1)
    raw = [json.dumps(event, separators=(",", ":")).encode() for event in events]
    stream = writer.write(b"", [(meter.event(data), data) for data in raw], broken).decode()
    found = []
    for block in stream.removesuffix("\n\n").split("\n\n"):
        head, _, data = block.partition("\ndata: ")
        found.append(json.loads(data))
        assert head == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


START = {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 4, "output_tokens": 1}}}
STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}}
END = {"type": "message_stop"}


def block(index: int, kind: str, *deltas: dict[str, Any], **members: Any) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": {"type": kind} | members},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


@given(st.lists(st.text(max_size=20), max_size=4))
def test_the_pieces_of_a_text_are_whole_in_the_end(pieces: list[str]) -> None:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    thinking = block(0, "thinking", {"type": "thinking_delta", "thinking": "hm"}, thinking="")
    events = written(START, *thinking, *block(1, "text", *deltas, text=""), STOP, END)
    said = "".join(pieces)
    assert [each["delta"] for each in events if each["type"] == "response.output_text.delta"] == pieces
    assert [each["text"] for each in events if each["type"] == "response.output_text.done"] == [said]
    last = events[-1]["response"]
    assert (events[-1]["type"], last["status"]) == ("response.completed", "completed")
    assert last["output"][0]["content"][0]["text"] == said
    assert (last["usage"]["input_tokens"], last["usage"]["output_tokens"]) == (4, 6)


def test_calls_of_tools_are_items_of_their_own() -> None:
    json_delta = {"type": "input_json_delta", "partial_json": '{"a":1}'}
    events = written(
        START,
        *block(0, "text", {"type": "text_delta", "text": "x"}, text=""),
        *block(1, "tool_use", json_delta, id="t1", name="f", input={}),
        *block(2, "tool_use", id="t2", name="g", input={}),
        STOP,
        END,
    )
    added = [each for each in events if each["type"] == "response.output_item.added"]
    assert [(each["output_index"], each["item"]["type"]) for each in added] == [
        (0, "message"),
        (1, "function_call"),
        (2, "function_call"),
    ]
    output = events[-1]["response"]["output"]
    assert [item.get("arguments") for item in output] == [None, '{"a":1}', "{}"]
    assert [item.get("call_id") for item in output] == [None, "t1", "t2"]


def test_a_failure_ends_the_stream_in_words() -> None:
    frame = Frame({":message-type": "exception", ":exception-type": "throttlingException"}, b'{"message":"slow down"}')
    for events in (
        written(START, broken=frame),
        written(START, {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}),
    ):
        error, failed = events[-2:]
        assert (error["type"], error["message"], error["error"]["type"]) == ("error", "slow down", "rate_limit_error")
        assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
        assert failed["response"]["error"]["message"] == "slow down"
