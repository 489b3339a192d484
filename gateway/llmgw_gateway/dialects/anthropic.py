"""The Anthropic Messages dialect: `POST /v1/messages` and its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import Call
from llmgw_gateway.dialects import messages
from llmgw_gateway.streams import sse
from llmgw_gateway.streams.refusals import message_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_gateway.streams.frames import Frame


def read(body: bytes, betas: str) -> Call:
    """Read a request. `betas` is the `anthropic-beta` header; GatewayError(REQUEST_MALFORMED) names a bad member."""
    members = messages.members_of(body)
    messages.refuse_guarding(members)
    named = tuple([each.strip() for each in betas.split(",") if each.strip()]) if betas else ()
    media, long_cache = messages.holds(body)
    return Call(
        dialect="anthropic",
        model=messages.text_of(members, "model"),
        stream=messages.flag_of(members, "stream"),
        max_tokens=messages.max_tokens_of(members),
        size=len(body),
        body=body,
        members=members,
        betas=named,
        media=media,
        long_cache=long_cache,
        least_tokens=messages.least_tokens_of(members),
        long_context=messages.wants_long_context(named) if named else False,
        compaction=messages.wants_compaction(members),
    )


class EventWriter:
    """Writes the events of an upstream as server-sent events."""

    content_type = "text/event-stream; charset=utf-8"
    keepalive: bytes | None = sse.PING

    def write(self, _raw: bytes, events: Sequence[tuple[str, bytes]], broken: Frame | None) -> bytes:
        """The bytes for all events of one upstream read, joined into one write."""
        written = sse.encode(*events[0]) if len(events) == 1 else b"".join([sse.encode(*each) for each in events])
        if broken is not None:
            written += self.failure(kind_of(broken), message_of(broken))
        return written

    def failure(self, kind: str, message: str) -> bytes:
        """The terminal event after the headers are out."""
        document = {"type": "error", "error": {"type": kind, "message": message}}
        return sse.encode("error", json.dumps(document).encode())


class PassThrough(EventWriter):
    """Passes on what an upstream wrote that speaks the same format."""

    def write(self, raw: bytes, _events: Sequence[tuple[str, bytes]], _broken: Frame | None) -> bytes:
        """The same bytes: whole events, an `error` among them."""
        return raw


_KINDS: Final = {
    "throttlingException": "rate_limit_error",
    "validationException": "invalid_request_error",
    "serviceUnavailableException": "overloaded_error",
    "modelTimeoutException": "timeout_error",
}
"""Bedrock's exceptions as Anthropic's error types."""


def kind_of(frame: Frame) -> str:
    """The type of the error that an exception frame reports."""
    return _KINDS.get(frame.exception or "", "api_error")


def models_page(models: Sequence[tuple[str, str]]) -> bytes:
    """The answer of `GET /v1/models`: (id, display name) of each model that the caller may use."""
    data = [_model(name, display) for name, display in models]
    page = {
        "data": data,
        "has_more": False,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }
    return json.dumps(page).encode()


def model_page(name: str, display: str) -> bytes:
    """The answer of `GET /v1/models/{id}`."""
    return json.dumps(_model(name, display)).encode()


def _model(name: str, display: str) -> dict[str, str]:
    return {"type": "model", "id": name, "display_name": display, "created_at": "1970-01-01T00:00:00Z"}
