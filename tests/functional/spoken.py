"""The dialects as their clients speak them: how each asks, and how each reads an answer. One entry, all tests.

A dialect that the gateway comes to serve is added to `DIALECTS`; the matrix of faults then asks in it, too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore.eventstream import EventStreamBuffer

from tests.fakes.bedrock import Place
from tests.functional.device import BEDROCK_MODEL
from tests.lab.aws_frames import EventReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Dialect:
    """One dialect."""

    name: str
    path: Callable[[bool], str]
    """By whether it streams."""
    body: Callable[[str, bool], dict[str, Any]]
    """By prompt and by whether it streams."""
    events: Callable[[bytes], list[dict[str, Any]]]
    """The events of a stream; fails when it is not well-formed to its last byte."""
    failed: Callable[[dict[str, Any]], str]
    """What a terminal event says; "" for an event that is none."""
    ended: Callable[[list[dict[str, Any]]], bool]
    """Whether a stream has come to its proper end."""
    text: Callable[[list[dict[str, Any]]], str]
    """The text of a stream."""
    whole: Callable[[dict[str, Any]], str]
    """The text of an answer that is not streamed."""
    message: Callable[[dict[str, Any]], str]
    """What the body of an error says; fails when a client of this dialect could not show it."""
    began: Callable[[dict[str, Any]], bool] = lambda event: event["type"] == "message_start"
    """Whether an event is the first of a stream."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """Faults that this dialect has another status for, by name."""
    places: frozenset[Place] = frozenset(Place)
    """Where something can go wrong in an answer."""
    broken: int = 502
    """The status of an answer that broke off before anything of it was sent."""
    unlike: frozenset[str] = frozenset()
    """Faults that its upstream's format has no frames for, by name."""


def _prompt(prompt: str) -> dict[str, Any]:
    return {"max_tokens": 100, "messages": [{"role": "user", "content": prompt}]}


def _server_sent(data: bytes) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    assert data.endswith(b"\n\n"), data[-200:]
    for block in data[:-2].split(b"\n\n"):
        if block.startswith(b":"):
            continue
        named, _, written = block.partition(b"\ndata: ")
        event = json.loads(written)
        assert named == b"event: " + event["type"].encode()
        events.append(event)
    return [event for event in events if event["type"] != "ping"]


def _frames(data: bytes) -> list[dict[str, Any]]:
    reader = EventReader()
    events = list(reader.feed(data))
    assert reader.empty, "the stream ends inside a frame"
    return [event for event in events if event["type"] != "ping"]


def _failed(event: dict[str, Any]) -> str:
    if event["type"] == "exception":
        return str(event["message"])
    return str(event["error"]["message"]) if event["type"] == "error" else ""


def _text(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"].get("text", "") for event in events if event["type"] == "content_block_delta")


def _message(error: dict[str, Any]) -> str:
    """Claude Code shows `error.message`, and `message` as AWS writes it (measured)."""
    return str(error["error"]["message"] if error.get("type") == "error" else error["message"])


def _is_stop(events: list[dict[str, Any]]) -> bool:
    return bool(events) and events[-1]["type"] == "message_stop"


_NOT_REPEATED = (
    "foreign_500 html_500 html_502 html_504 html_408 html_404 html_200 sse_200 frames_200 empty_200 reset cut junk "
    "truncated_frame truncated_event bad_crc bad_prelude giant_frame giant_event"
)
BEDROCK_STATUSES = dict.fromkeys(_NOT_REPEATED.split(), 424) | {
    "timeout": 408,
    "timeout_event": 408,
    "overloaded": 503,
    "error_event": 503,
}
"""What may have been billed has a status that AWS's SDKs do not repeat."""
ANTHROPIC = Dialect(
    name="anthropic",
    path=lambda _stream: "/v1/messages",
    body=lambda prompt, stream: _prompt(prompt) | {"model": "claude-sonnet-4-5", "stream": stream},
    events=_server_sent,
    failed=_failed,
    ended=_is_stop,
    text=_text,
    whole=lambda answer: str(answer["content"][0]["text"]),
    message=_message,
)
BEDROCK = Dialect(
    name="bedrock",
    path=lambda stream: f"/bedrock/model/{BEDROCK_MODEL}/invoke{'-with-response-stream' if stream else ''}",
    body=lambda prompt, _stream: _prompt(prompt) | {"anthropic_version": "bedrock-2023-05-31"},
    events=_frames,
    failed=_failed,
    ended=_is_stop,
    text=_text,
    whole=lambda answer: str(answer["content"][0]["text"]),
    message=_message,
    statuses=BEDROCK_STATUSES,
    broken=424,
)
OPENAI_STATUSES = {
    "model_error": 502,
    "modelStreamErrorException": 502,
    "model_timeout": 504,
    "modelTimeoutException": 504,
    "denied": 403,
    "error_event": 503,
    "overloaded": 503,
    "key_refused": 403,
    "silence": 504,
}
OPENAI_MODEL = {"model": "claude-sonnet-4-5"}


def _chat_chunks(data: bytes) -> list[dict[str, Any]]:
    """Chunks, comments left out. The last line is no JSON: it is made an event, so that it can be looked for."""
    assert data.endswith(b"\n\n"), data[-200:]
    blocks = [block for block in data[:-2].split(b"\n\n") if not block.startswith(b":")]
    assert all(block.startswith(b"data: ") and b"\n" not in block for block in blocks)
    lines = [block.removeprefix(b"data: ") for block in blocks]
    return [{"type": "done"} if line == b"[DONE]" else json.loads(line) for line in lines]


def _chat_text(events: list[dict[str, Any]]) -> str:
    choices = [choice for event in events for choice in event.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _response_events(data: bytes) -> list[dict[str, Any]]:
    """The events of a response, comments left out; the last of a failure, which says the same again, too."""
    assert data.endswith(b"\n\n"), data[-200:]
    events: list[dict[str, Any]] = []
    for block in data[:-2].split(b"\n\n"):
        if block.startswith(b":"):
            continue
        named, _, written = block.partition(b"\ndata: ")
        event = json.loads(written)
        assert named == b"event: " + event["type"].encode()
        assert event["sequence_number"] == len(events)
        events.append(event)
    if events[-1]["type"] == "response.failed":
        assert events[-1]["response"]["error"]["message"] == events[-2]["message"]
        events.pop()
    return events


OPENAI_CHAT = Dialect(
    name="openai chat",
    path=lambda _stream: "/openai/v1/chat/completions",
    body=lambda prompt, stream: _prompt(prompt) | OPENAI_MODEL | {"stream": stream},
    events=_chat_chunks,
    failed=lambda event: str(event["error"]["message"]) if "error" in event else "",
    ended=lambda events: bool(events) and events[-1].get("type") == "done",
    text=_chat_text,
    whole=lambda answer: str(answer["choices"][0]["message"]["content"]),
    message=lambda error: str(error["error"]["message"]),
    began=lambda event: event["choices"][0]["delta"].get("role") == "assistant",
    statuses=OPENAI_STATUSES,
)
OPENAI_RESPONSES = Dialect(
    name="openai responses",
    path=lambda _stream: "/openai/v1/responses",
    body=lambda prompt, stream: OPENAI_MODEL | {"input": prompt, "max_output_tokens": 100, "stream": stream},
    events=_response_events,
    failed=lambda event: str(event["message"]) if event["type"] == "error" else "",
    ended=lambda events: bool(events) and events[-1]["type"] == "response.completed",
    text=lambda events: "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta"),
    whole=lambda answer: str(answer["output"][0]["content"][0]["text"]),
    message=lambda error: str(error["error"]["message"]),
    began=lambda event: event["type"] == "response.created",
    statuses=OPENAI_STATUSES,
)


def _converse_frames(data: bytes) -> list[dict[str, Any]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    events: list[dict[str, Any]] = []
    for message in buffer:
        headers = message.headers
        payload = json.loads(message.payload or b"{}")
        if headers[":message-type"] == "event":
            events.append({"type": headers[":event-type"], **payload})
        else:
            events.append({"type": "exception", "message": payload.get("message") or headers[":error-message"]})
    assert not buffer._data, "the stream ends inside a frame"
    return events


CONVERSE = Dialect(
    name="converse",
    path=lambda stream: f"/bedrock/model/{BEDROCK_MODEL}/converse{'-stream' if stream else ''}",
    body=lambda prompt, _stream: {
        "messages": [{"role": "user", "content": [{"text": prompt}]}],
        "inferenceConfig": {"maxTokens": 100},
    },
    events=_converse_frames,
    failed=_failed,
    ended=lambda events: bool(events) and events[-1]["type"] == "metadata",
    text=lambda events: "".join(each["delta"]["text"] for each in events if each["type"] == "contentBlockDelta"),
    whole=lambda answer: str(answer["output"]["message"]["content"][0]["text"]),
    message=_message,
    statuses=BEDROCK_STATUSES,
    broken=424,
    began=lambda event: event["type"] == "messageStart",
    places=frozenset(Place) - {Place.END},
    unlike=frozenset({"error_event", "large_frame"}),
)
DIALECTS = (ANTHROPIC, BEDROCK, CONVERSE, OPENAI_CHAT, OPENAI_RESPONSES)
