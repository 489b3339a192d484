"""`FaultyAnthropic`: an upstream in the Anthropic format, as strict as the real one, in which everything goes wrong.

It wants the key, the version and no member that it does not know; it sends pings, rate limits and request ids. The
`anthropic` SDK is its first client (`test_anthropic.py`), so that it cannot drift from what clients accept. Scripts,
calls and their counting are those of the other cloud.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from llmgw_gateway.streams.eventstream import MOST_BYTES
from tests.fakes.bedrock import FaultyBedrock, InBody, InHead
from tests.lab import sigv4
from tests.lab.scripted import Call, drop, events, message

if TYPE_CHECKING:
    from tests.fakes.bedrock import Place

KEY = "sk-ant-api03-fake-key-that-never-leaves-the-gateway"
VERSIONS = ("2023-06-01", "2026-10-21")
REMOVED = frozenset({"temperature", "top_p", "top_k"})
"""Members that the newer version has no more."""
MIB = 1024 * 1024
MEMBERS = frozenset(
    {
        "model",
        "max_tokens",
        "messages",
        "system",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "metadata",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "service_tier",
        "cache_control",
        "inference_geo",
    }
)
WITH_BETA = {"context_management": "context-management-2025-06-27", "safeguards": "dangerous-tool-use-2026-09-03"}
NOT_COUNTED = frozenset({"max_tokens", "stream", "temperature", "metadata"})
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def event(document: dict[str, Any]) -> bytes:
    """One event as Anthropic writes it."""
    return f"event: {document['type']}\ndata: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


def error_document(kind: str, text: str) -> dict[str, Any]:
    """An error, in a body or an event."""
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": "req_fake"}


def told_events(call: Call) -> list[dict[str, Any]]:
    """The events of an answer: all of the usage so far in `message_delta`, and no metrics of Bedrock's."""
    found = []
    for each in events(call):
        said = dict(each)
        said.pop("amazon-bedrock-invocationMetrics", None)
        if said["type"] == "message_delta" and call.answer.usage is not None:
            said["usage"] = call.answer.usage.anthropic()
        found.append(said)
    return found


def stream_of(call: Call) -> list[bytes]:
    """What is written for a call, event by event."""
    written = [event(each) for each in told_events(call)]
    return [written[0] + PING, *written[1:]]


def _said(name: str, status: int, kind: str, told: int = 0, *, free: bool = True, elsewhere: bool = True) -> InHead:
    headers = {
        "content-type": "application/json",
        "request-id": f"req_{name}",
        "anthropic-ratelimit-requests-remaining": "0",
    }
    body = json.dumps(error_document(kind, f"{name}: prompt is too long: 9 tokens > 8 maximum")).encode()
    return InHead(name, told or status, free=free, elsewhere=elsewhere, answered=status, headers=headers, body=body)


def _page(name: str, status: int, *, free: bool = False, elsewhere: bool = False) -> InHead:
    body = f"<html><head><title>{status}</title></head><body>cloudflare</body></html>".encode()
    headers = {"content-type": "text/html"}
    return InHead(name, 502, free=free, elsewhere=elsewhere, answered=status, headers=headers, body=body)


HEADS: tuple[InHead, ...] = (
    _said("throttled", 429, "rate_limit_error"),
    _said("overloaded", 529, "overloaded_error"),
    _said("internal", 500, "api_error"),
    _said("timeout", 504, "timeout_error", free=False, elsewhere=False),
    _said("no_such_model", 404, "not_found_error"),
    _said("key_refused", 401, "authentication_error", told=400),
    _said("denied", 403, "permission_error", told=400),
    _said("invalid", 400, "invalid_request_error", elsewhere=False),
    _said("too_large", 413, "request_too_large", elsewhere=False),
    InHead("foreign_500", 500, answered=500, headers={"content-type": "application/json"}, body=b'{"message":"?"}'),
    _page("html_502", 502),
    _page("html_500", 500),
    _page("html_503", 503, free=True, elsewhere=True),
    _page("html_429", 429, free=True, elsewhere=True),
    _page("html_404", 404, free=True, elsewhere=True),
    _page("html_200", 200),
    InHead("frames_200", answered=200, headers={"content-type": "application/vnd.amazon.eventstream"}, body=b"x"),
    InHead("empty_200", answered=200, headers={"content-type": "application/json"}),
    InHead("reset", then="reset"),
)


def _failure(name: str, kind: str, status: int, *, free: bool = True, elsewhere: bool = True) -> InBody:
    sent = event(error_document(kind, f"{kind} in the stream"))
    return InBody(name, status, free=free, elsewhere=elsewhere, sent=sent)


BODIES: tuple[InBody, ...] = (
    _failure("error_event", "overloaded_error", 529),
    _failure("limit_event", "rate_limit_error", 429),
    _failure("internal_event", "api_error", 500),
    _failure("new_event", "something_new_error", 500),
    _failure("timeout_event", "timeout_error", 504, free=False, elsewhere=False),
    _failure("invalid_event", "invalid_request_error", 400, elsewhere=False),
    # What follows an error is no part of the answer.
    InBody(
        "error_and_more",
        429,
        free=True,
        elsewhere=True,
        sent=event(error_document("rate_limit_error", "rate_limit_error in the stream")),
        then="go on",
    ),
    InBody("truncated_event", sent=PING[: len(PING) // 2]),
    InBody("giant_event", sent=b"data: " + b"x" * (MOST_BYTES + 1), then="hold"),
    InBody("junk", sent=b"<html>504 Gateway Time-out</html>"),
    InBody("cut"),
    InBody("reset", then="reset"),
    InBody("comments", 200, sent=b": still there\n\n", then="go on", harmless=True),
    InBody("large_event", 200, sent=event({"type": "ping", "padding": "x" * MIB}), then="go on", harmless=True),
    InBody("slow", 200, then="go on slowly", harmless=True),
)


class FaultyAnthropic(FaultyBedrock):
    """The upstream and its controls, which are those of the other cloud."""

    api_key = KEY

    def __init__(self) -> None:
        super().__init__()
        self.betas: list[str] = []
        """The header `anthropic-beta` of every call."""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        received = sigv4.Received(request.method, request.raw_path, request.headers.copy(), await request.read())
        if self.api_key not in (request.headers.get("x-api-key"), _bearer(request)):
            self.refused.append("x-api-key")
            return _error(401, "authentication_error", "invalid x-api-key")
        counting = request.raw_path == "/v1/messages/count_tokens"
        if request.method != "POST" or not (counting or request.raw_path == "/v1/messages"):
            return _error(404, "not_found_error", f"no such route: {request.raw_path}")
        body = json.loads(received.body)
        betas = request.headers.get("anthropic-beta", "")
        if fault := _fault(request, body, betas, counting=counting):
            return _error(400, "invalid_request_error", fault)
        if counting:
            self.counted.append(received)
            return web.json_response({"input_tokens": len(received.body)}, headers={"request-id": "req_count"})
        call = self._register(
            received, body["model"], "invoke-with-response-stream" if body.get("stream") else "invoke"
        )
        self.betas.append(betas)
        try:
            return await self.answer(request, call)
        finally:
            call.ended.set()

    async def _complete(self, call: Call) -> web.Response:
        if call.answer.hold_after is not None:
            await call.released()
        call.finished = True
        return web.json_response(message(call), headers=_headers(call))

    async def _stream(self, request: web.Request, call: Call) -> web.StreamResponse:
        response = await _begin(request, call)
        answer = call.answer
        try:
            for written in stream_of(call):
                if call.events_sent == answer.break_after:
                    drop(request)
                    return response
                if call.events_sent == answer.hold_after:
                    await call.released()
                await response.write(written)
                call.events_sent += 1
                if answer.pause_seconds:
                    await call.paused(answer.pause_seconds)
        except ConnectionError:
            call.client_gone = True
            return response
        call.finished = True
        return response

    async def _events(self, request: web.Request, call: Call, fault: InBody, place: Place) -> web.StreamResponse:
        written, kinds = stream_of(call), [each["type"] for each in told_events(call)]
        index = place.index(kinds)
        response = await _begin(request, call)
        if index:
            await response.write(b"".join(written[:index]))
            await call.released()
        await self._go_wrong(request, response, fault, b"".join(written[index:]))
        return response

    async def _document(self, request: web.Request, call: Call, fault: InBody) -> web.StreamResponse:
        body = json.dumps(message(call)).encode()
        begun, rest = body[: len(body) // 2], body[len(body) // 2 :]
        response = web.StreamResponse(headers={"Content-Type": "application/json", **_headers(call)})
        await response.prepare(request)
        await response.write(begun)
        await asyncio.sleep(0)
        await self._go_wrong(request, response, fault, rest)
        return response


async def _begin(request: web.Request, call: Call) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **_headers(call)})
    await response.prepare(request)
    return response


def _headers(call: Call) -> dict[str, str]:
    return {
        "request-id": f"req_fake_{call.number}",
        "anthropic-organization-id": "org_fake",
        "anthropic-ratelimit-tokens-remaining": "1000",
    }


def _fault(request: web.Request, body: dict[str, Any], betas: str, *, counting: bool) -> str:
    """What the real one would refuse, in its words."""
    version = request.headers.get("anthropic-version")
    if version not in VERSIONS:
        return "anthropic-version: header is required"
    known = (MEMBERS - NOT_COUNTED if counting else MEMBERS) - (REMOVED if version != VERSIONS[0] else frozenset())
    for name in body:
        if name not in known and (name not in WITH_BETA or WITH_BETA[name] not in betas.split(",")):
            return f"{name}: Extra inputs are not permitted"
    if not counting and "max_tokens" not in body:
        return "max_tokens: Field required"
    return "" if str(body.get("model", "")).startswith("claude-") else "model: Field required"


def _bearer(request: web.Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _error(status: int, kind: str, text: str) -> web.Response:
    return web.json_response(error_document(kind, text), status=status, headers={"request-id": "req_fake"})
