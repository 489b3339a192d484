"""Responses, the answer: Anthropic's message or its events in the form of OpenAI's Responses.

A stream ends with the whole answer, so its text is kept until then; as the provider spelled it, in JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw

from llmgw_gateway.dialects import messages, openai
from llmgw_gateway.dialects.anthropic import kind_of
from llmgw_gateway.dialects.openai_chat import event_decoder, read_message
from llmgw_gateway.streams import sse
from llmgw_gateway.streams.refusals import error_type, message_of
from llmgw_gateway.streams.usages import INTERVENED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.call import Usage
    from llmgw_gateway.dialects.openai import Table
    from llmgw_gateway.dialects.openai_chat import Block, Delta, Event
    from llmgw_gateway.streams.frames import Frame
    from llmgw_gateway.streams.meter import Meter

INCOMPLETE: Final = {
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
    "guardrail_intervened": "content_filter",
}
"""Anthropic's stop reasons for an answer that is not whole, in OpenAI's words."""


def answer(body: bytes, *, echo: Table, created: int, usage: Usage, intervened: bool = False) -> bytes | None:
    """A whole answer as a `response`; None when the provider's cannot be read. `intervened`: a guardrail has."""
    message = read_message(body)
    if message is None:
        return None
    output = [
        _item(message.id, index, block, msgspec.json.encode(block.text), _quoted(block.input), "completed")
        for index, block in enumerate(message.content)
        if block.type in {"text", "tool_use"}
    ]
    reason = INTERVENED if intervened else message.stop_reason
    return msgspec.json.encode(_response(message.id, echo, created, output, reason, usage))


@dataclass(slots=True)
class _Open:
    """A content block that is being written."""

    place: int
    """Among the items of the answer."""
    block: Block
    pieces: list[bytes] = field(default_factory=list)

    def said(self) -> bytes:
        """All of it so far, as one JSON string: the pieces are strings whose quotes are left out."""
        return b'"' + b"".join(self.pieces) + b'"'


class EventWriter:
    """Writes the events of an upstream as those of a response. One for each stream; `meter` knows its usage."""

    content_type = "text/event-stream; charset=utf-8"
    keepalive: bytes | None = openai.KEEPALIVE

    def __init__(self, meter: Meter, *, echo: Table, created: int) -> None:
        self._meter = meter
        self._echo = echo
        self._created = created
        self._number = 0
        self._id = ""
        self._reason: str | None = None
        self._open: dict[int, _Open] = {}
        self._output: list[Table] = []

    def write(self, _raw: bytes, events: Sequence[tuple[str, bytes]], broken: Frame | None) -> bytes:
        """The bytes for all events of one upstream read, joined into one write."""
        written = b"".join(self._event(kind, data) for kind, data in events)
        if broken is not None:
            written += self.failure(kind_of(broken), message_of(broken))
        return written

    def failure(self, kind: str, message: str) -> bytes:
        """The terminal events after the headers are out: the SDKs raise at the first, Codex reads the second."""
        error = {"type": kind, "code": kind, "message": message, "param": None}
        failed = self._whole("failed") | {"error": {"code": "server_error", "message": message}}
        return self._say("error", code=kind, message=message, param=None, error=error) + self._say(
            "response.failed", response=failed
        )

    def _event(self, kind: str, data: bytes) -> bytes:
        if kind == "message_stop":
            ended = self._whole(None)
            return self._say(f"response.{ended['status']}", response=ended)
        if kind == "error":
            return self.failure(error_type(data) or "api_error", openai.provider_text(data))
        try:
            event = event_decoder.decode(data)
        except messages.UNREADABLE:
            return b""
        return self._converted(kind, event)

    def _converted(self, kind: str, event: Event) -> bytes:
        if event.message is not None:
            self._id = event.message.id
            begun = self._whole("in_progress")
            return self._say("response.created", response=begun) + self._say("response.in_progress", response=begun)
        if event.content_block is not None:
            return self._begin(event.index, event.content_block)
        if kind == "content_block_stop":
            return self._end(event.index)
        if event.delta is not None and event.delta.stop_reason is not None:
            self._reason = event.delta.stop_reason
        return self._delta(event.index, event.delta) if event.delta is not None else b""

    def _begin(self, index: int, block: Block) -> bytes:
        if block.type not in {"text", "tool_use"}:
            return b""
        opened = self._open[index] = _Open(len(self._output) + len(self._open), block)
        item = _item(self._id, opened.place, block, b'""', b'""', "in_progress")
        if block.type == "text":
            item["content"] = []
        added = self._say("response.output_item.added", output_index=opened.place, item=item)
        if block.type == "tool_use":
            return added
        place = {"item_id": item["id"], "output_index": opened.place, "content_index": 0}
        return added + self._say("response.content_part.added", **place, part=_text(b'""'))

    def _delta(self, index: int, delta: Delta) -> bytes:
        opened = self._open.get(index)
        if opened is None:
            return b""
        tool = opened.block.type == "tool_use"
        said = bytes(delta.partial_json if tool else delta.text)
        opened.pieces.append(said[1:-1])
        place = {"item_id": _id_of(self._id, opened.place, opened.block), "output_index": opened.place}
        if tool:
            return self._say("response.function_call_arguments.delta", **place, delta=Raw(said))
        return self._say("response.output_text.delta", **place, content_index=0, delta=Raw(said), logprobs=[])

    def _end(self, index: int) -> bytes:
        opened = self._open.pop(index, None)
        if opened is None:
            return b""
        said = opened.said()
        tool = opened.block.type == "tool_use"
        if tool and not opened.pieces:
            said = b'"{}"'
        item = _item(self._id, opened.place, opened.block, said, said, "completed")
        self._output.append(item)
        place = {"item_id": item["id"], "output_index": opened.place}
        if tool:
            done = self._say("response.function_call_arguments.done", **place, arguments=Raw(said))
        else:
            done = self._say("response.output_text.done", **place, content_index=0, text=Raw(said), logprobs=[])
            done += self._say("response.content_part.done", **place, content_index=0, part=_text(said))
        return done + self._say("response.output_item.done", output_index=opened.place, item=item)

    def _whole(self, status: str | None) -> Table:
        """The response as it stands; None: its status follows from why the answer ended."""
        usage = self._meter.usage if status is None else None
        reason = INTERVENED if self._meter.intervened else self._reason
        whole = _response(self._id, self._echo, self._created, self._output, reason, usage)
        return whole if status is None else whole | {"status": status, "incomplete_details": None}

    def _say(self, kind: str, **members: object) -> bytes:
        event = {"type": kind, "sequence_number": self._number} | members
        self._number += 1
        return sse.encode(kind, msgspec.json.encode(event))


def usage_of(usage: Usage) -> Table:
    """OpenAI's usage of a response: cached tokens are a part of the input's."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read,
            "cache_write_tokens": usage.cache_write_5m + usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.output,
    }


def _response(
    identity: str, echo: Table, created: int, output: list[Table], reason: str | None, usage: Usage | None
) -> Table:
    cut = INCOMPLETE.get(reason or "")
    return {
        "id": f"resp_{identity}",
        "object": "response",
        "created_at": created,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "output": list(output),
        "usage": usage_of(usage) if usage is not None else None,
    } | echo


def _item(identity: str, place: int, block: Block, said: bytes, arguments: bytes, status: str) -> Table:
    """One item of an answer: a message, or the call of a function. `said` and `arguments` are JSON strings."""
    common = {"id": _id_of(identity, place, block), "status": status}
    if block.type == "text":
        return common | {"type": "message", "role": "assistant", "content": [_text(said)]}
    return common | {"type": "function_call", "call_id": block.id, "name": block.name, "arguments": Raw(arguments)}


def _id_of(identity: str, place: int, block: Block) -> str:
    return f"{'msg' if block.type == 'text' else 'fc'}_{identity}_{place}"


def _text(said: bytes) -> Table:
    return {"type": "output_text", "text": Raw(said), "annotations": [], "logprobs": []}


def _quoted(raw: Raw) -> bytes:
    """A JSON value as the text of a JSON string."""
    return msgspec.json.encode(bytes(raw).decode(errors="replace"))
