"""Chat completions, the answer: Anthropic's message or its events in OpenAI's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from llmgw_gateway.dialects import messages, openai
from llmgw_gateway.dialects.anthropic import kind_of
from llmgw_gateway.streams.refusals import error_type, message_of
from llmgw_gateway.streams.usages import INTERVENED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.call import Usage
    from llmgw_gateway.dialects.openai import Table
    from llmgw_gateway.streams.frames import Frame
    from llmgw_gateway.streams.meter import Meter

FINISH: Final = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "guardrail_intervened": "content_filter",
}
"""Anthropic's stop reasons in OpenAI's words; every other is `stop`."""


class Block(Struct):
    """One content block, of whatever type."""

    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class Message(Struct):
    """A whole answer."""

    id: str = ""
    content: tuple[Block, ...] = ()
    stop_reason: str | None = None


_message = msgspec.json.Decoder(Message)


def read_message(body: bytes) -> Message | None:
    """The provider's answer; None when it is none."""
    try:
        return _message.decode(body)
    except messages.UNREADABLE:
        return None


def answer(body: bytes, *, model: str, created: int, usage: Usage, intervened: bool = False) -> bytes | None:
    """A whole answer as a `chat.completion`; None when the provider's cannot be read.

    `intervened`: a guardrail has, whatever the provider says why the answer ended.
    """
    message = read_message(body)
    if message is None:
        return None
    said = "".join(block.text for block in message.content if block.type == "text")
    calls = [
        {
            "id": each.id,
            "type": "function",
            "function": {"name": each.name, "arguments": bytes(each.input).decode(errors="replace")},
        }
        for each in message.content
        if each.type == "tool_use"
    ]
    spoken: Table = {"role": "assistant", "content": said or None, "refusal": None}
    choice = {
        "index": 0,
        "message": spoken | ({"tool_calls": calls} if calls else {}),
        "logprobs": None,
        "finish_reason": finish(INTERVENED if intervened else message.stop_reason),
    }
    return msgspec.json.encode(
        {
            "id": f"chatcmpl-{message.id}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [choice],
            "usage": openai.usage_of(usage),
        }
    )


def finish(reason: str | None) -> str:
    """OpenAI's finish reason."""
    return FINISH.get(reason or "", "stop")


class Delta(Struct):
    """What an event adds; the texts stay as the provider spelled them."""

    type: str = ""
    text: Raw = Raw(b'""')
    partial_json: Raw = Raw(b'""')
    stop_reason: str | None = None


class Started(Struct):
    """The head of an answer."""

    id: str = ""


class Event(Struct):
    """One event of Anthropic's stream, as far as it matters here."""

    index: int = 0
    message: Started | None = None
    content_block: Block | None = None
    delta: Delta | None = None


event_decoder = msgspec.json.Decoder(Event)


class EventWriter:
    """Writes the events of an upstream as `chat.completion.chunk`s. One for each stream; `meter` knows its usage."""

    content_type = "text/event-stream; charset=utf-8"
    keepalive: bytes | None = openai.KEEPALIVE

    def __init__(self, meter: Meter, *, model: str, created: int, include_usage: bool) -> None:
        self._meter = meter
        self._model = msgspec.json.encode(model)
        self._created = str(created).encode()
        self._include_usage = include_usage
        self._tail = b'}],"usage":null}\n\n' if include_usage else b"}]}\n\n"
        self._head = self._head_of("chatcmpl-")
        self._tools: dict[int, int] = {}
        """Which tool call, counted from 0, a content block is."""
        self._reason: str | None = None
        """Why the answer has ended, until that is told: a guardrail may still say otherwise."""

    def write(self, _raw: bytes, events: Sequence[tuple[str, bytes]], broken: Frame | None) -> bytes:
        """The bytes for all events of one upstream read, joined into one write."""
        written = b"".join(self._chunk(kind, data) for kind, data in events)
        if broken is not None:
            written += self.failure(kind_of(broken), message_of(broken))
        return written

    def failure(self, kind: str, message: str) -> bytes:
        """The terminal event after the headers are out: what OpenAI's clients raise as an error."""
        return b"data: " + openai.envelope(message, kind) + b"\n\n"

    def _chunk(self, kind: str, data: bytes) -> bytes:
        if kind == "message_stop":
            return self._ended() + (self._usage() if self._include_usage else b"") + openai.DONE
        if kind == "error":
            return self.failure(error_type(data) or "api_error", openai.provider_text(data))
        try:
            event = event_decoder.decode(data)
        except messages.UNREADABLE:
            return b""
        if event.message is not None:
            self._head = self._head_of(f"chatcmpl-{event.message.id}")
            return self._choice(b'{"role":"assistant","content":"","refusal":null}')
        if event.content_block is not None:
            return self._begin(event.index, event.content_block)
        return self._delta(event.index, event.delta) if event.delta is not None else b""

    def _begin(self, index: int, block: Block) -> bytes:
        if block.type != "tool_use":
            return self._choice(b'{"content":' + msgspec.json.encode(block.text) + b"}") if block.text else b""
        number = self._tools[index] = len(self._tools)
        call = {
            "index": number,
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": ""},
        }
        return self._choice(b'{"tool_calls":[' + msgspec.json.encode(call) + b"]}")

    def _delta(self, index: int, delta: Delta) -> bytes:
        if delta.type == "text_delta":
            return self._choice(b'{"content":' + bytes(delta.text) + b"}")
        if delta.type == "input_json_delta" and index in self._tools:
            number = str(self._tools[index]).encode()
            said = bytes(delta.partial_json)
            return self._choice(b'{"tool_calls":[{"index":' + number + b',"function":{"arguments":' + said + b"}}]}")
        if delta.stop_reason is not None:
            self._reason = delta.stop_reason
            return b"" if self._meter.guarded else self._ended()
        return b""

    def _ended(self) -> bytes:
        """Why the answer ended, once."""
        reason, self._reason = self._reason, None
        if reason is None:
            return b""
        reason = INTERVENED if self._meter.intervened else reason
        return self._choice(b"{}", b'"' + finish(reason).encode() + b'"')

    def _choice(self, delta: bytes, finish_reason: bytes = b"null") -> bytes:
        start = self._head + b'"choices":[{"index":0,"delta":'
        return start + delta + b',"logprobs":null,"finish_reason":' + finish_reason + self._tail

    def _usage(self) -> bytes:
        usage = msgspec.json.encode(openai.usage_of(self._meter.usage))
        return self._head + b'"choices":[],"usage":' + usage + b"}\n\n"

    def _head_of(self, identity: str) -> bytes:
        head = b'data: {"id":' + msgspec.json.encode(identity) + b',"object":"chat.completion.chunk","created":'
        return head + self._created + b',"model":' + self._model + b","
