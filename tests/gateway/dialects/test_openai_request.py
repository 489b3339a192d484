"""OpenAI's chat requests in Anthropic's format; what has no equivalent is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmgw_gateway.dialects import openai, openai_request
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

USER = {"role": "user", "content": "hi"}
HI = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def chat(**members: Any) -> openai_request.Chat:
    return openai_request.read(json.dumps({"model": "m", "messages": [USER]} | members).encode())


def sent(**members: Any) -> dict[str, Any]:
    return {name: json.loads(bytes(value)) for name, value in (chat(**members).call.members or {}).items()}


def refused(**members: Any) -> str:
    with pytest.raises(GatewayError) as caught:
        chat(**members)
    assert caught.value.code is ErrorCode.REQUEST_MALFORMED
    return caught.value.message


def test_a_plain_request() -> None:
    read = chat(stream=True, stream_options={"include_usage": True})
    assert (read.call.dialect, read.call.model, read.call.stream, read.include_usage) == ("openai", "m", True, True)
    assert (read.call.max_tokens, read.call.default_max_tokens) == (0, openai.DEFAULT_MAX_TOKENS)
    assert sent() == {"messages": [HI]}


def test_system_texts_go_where_anthropic_has_them() -> None:
    said = [{"role": "system", "content": "a"}, USER, {"role": "developer", "content": [{"type": "text", "text": "b"}]}]
    assert sent(messages=said) == {
        "system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        "messages": [HI],
    }


def test_the_results_of_tools_are_one_turn_and_stand_first() -> None:
    other = {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": ""}}
    said = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL, other]},
        {"role": "tool", "tool_call_id": "call_1", "content": "one"},
        {"role": "tool", "tool_call_id": "call_2", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}}]},
    ]
    assert sent(messages=said)["messages"] == [
        HI,
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "call_2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "one"}]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": []},
                {"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", True, None),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
    ],
)
def test_choices_of_tools(choice: Any, parallel: Any, expected: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": True}}]
    body = sent(tools=tools, tool_choice=choice, parallel_tool_calls=parallel)
    schema = {"type": "object", "properties": {}}
    assert body["tools"] == [{"name": "f", "input_schema": schema, "strict": True}]
    assert body.get("tool_choice") == expected


def test_what_shapes_the_answer() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    read = chat(response_format=wanted, reasoning_effort="high", max_completion_tokens=5, max_tokens=7, stop=["a", "b"])
    assert read.call.features == {
        "output_config.format": "response_format",
        "output_config.effort": "reasoning_effort",
    }
    assert read.call.max_tokens == 5
    body = sent(response_format=wanted, reasoning_effort="high", top_p=1, stop=["a", "b"])
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}, "effort": "high"}
    assert (body["top_p"], body["stop_sequences"]) == (1, ["a", "b"])
    assert sent(response_format={"type": "text"}) == {"messages": [HI]}
    assert "JSON" in sent(response_format={"type": "json_object"})["system"][0]["text"]
    assert sent(reasoning_effort="none")["thinking"] == {"type": "disabled"}


def test_a_file_is_a_document_and_counts_as_media() -> None:
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}}
    read = chat(messages=[{"role": "user", "content": [file]}])
    assert read.call.media
    assert not chat().call.media
    (block,) = sent(messages=[{"role": "user", "content": [file]}])["messages"][0]["content"]
    assert block == {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"},
        "title": "a.pdf",
    }


@pytest.mark.parametrize("name", sorted(openai.LEFT_OUT))
def test_what_changes_nothing_in_an_answer_is_left_out(name: str) -> None:
    assert sent(**{name: "whatever"}) == {"messages": [HI]}


@pytest.mark.parametrize(("name", "values"), openai_request.NEUTRAL.items())
def test_a_value_that_asks_for_nothing_is_accepted_and_any_other_is_refused_by_name(name: str, values: Any) -> None:
    for value in [*values, None]:
        assert sent(**{name: value}) == {"messages": [HI]}
    assert repr(name) in refused(**{name: "something else"})


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"a_member_of_tomorrow": 1}, "'a_member_of_tomorrow'"),
        ({"functions": []}, "'functions'"),
        ({"web_search_options": {}}, "'web_search_options'"),
        ({"model": 5}, "'model'"),
        ({"messages": "hi"}, "'messages'"),
        ({"messages": []}, "'messages'"),
        ({"messages": [{"role": "user", "content": ""}]}, "'messages'"),
        ({"messages": [{"role": "function", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file_data"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/csv;base64,QQ"}}]}
                ]
            },
            "text/csv",
        ),
        ({"messages": [USER, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio"),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "[1]"}}]},
                ]
            },
            "messages[1].tool_calls[0].arguments",
        ),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "maybe"}, "'tool_choice'"),
        ({"response_format": {"type": "xml"}}, "'response_format.type'"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "'response_format.json_schema.schema'"),
        ({"reasoning_effort": "utmost"}, "'reasoning_effort'"),
        ({"temperature": 1.5}, "'temperature'"),
        ({"temperature": True}, "'temperature'"),
        ({"top_p": "1"}, "'top_p'"),
        ({"stop": [1]}, "'stop'"),
        ({"stream": "yes"}, "'stream'"),
        ({"stream_options": {"include_usage": 1}}, "'stream_options.include_usage'"),
        ({"max_tokens": "many"}, "'max_tokens'"),
        ({"max_completion_tokens": -1}, "'max_tokens'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_or_has_no_equivalent_is_named(members: dict[str, Any], named: str) -> None:
    assert named in refused(**members)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b'{"\xff":1}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(GatewayError, match="not a JSON object"):
        openai_request.read(body)


def test_an_hour_in_the_cache_is_seen() -> None:
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert chat(messages=[{"role": "user", "content": [part]}]).call.long_cache
