"""The Bedrock dialect: `POST /bedrock/model/{id}/invoke[-with-response-stream]` and its answers."""

from __future__ import annotations

import base64
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.call import Call
from llmgw_gateway.dialects import messages
from llmgw_gateway.dialects.shapes import Chunk
from llmgw_gateway.streams import eventstream
from llmgw_gateway.streams.refusals import error_text, error_type
from llmgw_wire.errors import MODEL_FAILED, REPEATED_BY_AWS
from llmgw_wire.headers import EVENT_STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.streams.frames import Frame
    from llmgw_gateway.streams.meter import Meter

_EXCEPTIONS: Final = {
    "rate_limit_error": "throttlingException",
    "invalid_request_error": "validationException",
    "overloaded_error": "serviceUnavailableException",
    "timeout_error": "modelTimeoutException",
    "authentication_error": "validationException",  # a stream has no exception for access; this one is not repeated
}


def read(body: bytes, model: str, *, stream: bool) -> Call:
    """Read a request; the model stands in the path, already percent-decoded."""
    members = messages.members_of(body)
    messages.refuse_compaction(members)
    messages.refuse_guarding(members)
    media, long_cache = messages.holds(body)
    return Call(
        dialect="bedrock",
        model=model,
        stream=stream,
        max_tokens=messages.max_tokens_of(members),
        size=len(body),
        body=body,
        members=members,
        media=media,
        long_cache=long_cache,
        least_tokens=messages.least_tokens_of(members),
        long_context=messages.wants_long_context(messages.betas_of(members)),
        kind=None,
    )


def read_count(body: bytes, model: str) -> Call:
    """Read a question for the tokens of a prompt, which holds the prompt in either of Bedrock's formats."""
    members = messages.members_of(body)
    return Call(
        dialect="bedrock",
        model=model,
        stream=False,
        max_tokens=0,
        size=len(body),
        body=body,
        members=members,
        operation="count",
    )


class EventWriter:
    """Passes the upstream's bytes on as they are: both sides speak the same format."""

    content_type = EVENT_STREAM
    # No frame that a client would ignore is known: Claude Code does not count a ping frame as a sign of life.
    keepalive: bytes | None = None

    def write(self, raw: bytes, _events: Sequence[tuple[str, bytes]], _broken: Frame | None) -> bytes:
        """The same bytes, an exception frame among them."""
        return raw

    def failure(self, kind: str, message: str) -> bytes:
        """An exception frame: how Bedrock itself ends a stream that failed after the headers."""
        headers = {
            ":exception-type": _EXCEPTIONS.get(kind, "internalServerException"),
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return eventstream.encode(headers, json.dumps({"message": message}).encode())


class ChunkWriter(EventWriter):
    """Writes the events of an upstream that speaks the Anthropic format as Bedrock's frames.

    The last one tells the tokens, too, as Bedrock's does: LangChain counts by it.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def write(self, _raw: bytes, events: Sequence[tuple[str, bytes]], _broken: Frame | None) -> bytes:
        """The frames of all events of one read."""
        return b"".join(self._frame(kind, data) for kind, data in events)

    def _frame(self, kind: str, data: bytes) -> bytes:
        if kind == "error":
            return self.failure(error_type(data), error_text(data))
        if kind == "message_stop" and self._meter.completeness == "complete":
            data = self._with_metrics(data)
        payload = b'{"bytes":"' + base64.b64encode(data) + b'"}'
        return eventstream.encode(_CHUNK, payload)

    def _with_metrics(self, data: bytes) -> bytes:
        usage = self._meter.usage
        counts = {
            "inputTokenCount": usage.input,
            "outputTokenCount": usage.output,
            "cacheReadInputTokenCount": usage.cache_read,
            "cacheWriteInputTokenCount": usage.cache_write_5m + usage.cache_write_1h,
        }
        members = messages.members_of(data)
        return msgspec.json.encode({**members, "amazon-bedrock-invocationMetrics": counts})


_CHUNK: Final = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}


def refusal(status: int, body: bytes, *, billed: bool) -> tuple[int, bytes]:
    """A provider's refusal as AWS's SDKs read it, which repeat by the status alone.

    One that may have been billed gets a status that they do not repeat. In the Anthropic format `message` is added at
    the top of the body, and "overloaded" has AWS's status.
    """
    if billed and status in REPEATED_BY_AWS:
        status = _TIMED_OUT if status == HTTPStatus.GATEWAY_TIMEOUT else MODEL_FAILED
    elif status == _OVERLOADED and not billed:
        status = HTTPStatus.SERVICE_UNAVAILABLE
    return status, _with_message(body)


_OVERLOADED: Final = 529
_TIMED_OUT: Final = 408
"""ModelTimeoutException."""


def _with_message(body: bytes) -> bytes:
    try:
        found = msgspec.json.decode(body)
    except messages.UNREADABLE:
        return body
    if not isinstance(found, dict) or not isinstance(found.get("error"), dict) or "message" in found:
        return body
    return msgspec.json.encode(found | {"message": str(found["error"].get("message", ""))})


_chunk: Final = msgspec.json.Decoder(Chunk)


_DELTA: Final = b'{"type":"content_block_delta",'
_DELTA_PAYLOAD: Final = b'{"bytes":"' + base64.b64encode(_DELTA)
"""How the payload of nearly every frame begins. Three bytes are four characters, and these are thirty."""


def passed_event(frame: Frame) -> bytes | None:
    """As much of the event as its meter wants, for frames that are passed on as they came: of a delta, its type."""
    return _DELTA if frame.payload.startswith(_DELTA_PAYLOAD) else inner_event(frame)


def inner_event(frame: Frame) -> bytes | None:
    """The Anthropic event inside a `chunk` frame; None when the frame holds none."""
    try:
        return _chunk.decode(frame.payload).event
    except messages.UNREADABLE:
        return None
