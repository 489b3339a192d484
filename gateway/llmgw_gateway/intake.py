"""Requests as the edge matched them, each in its client's dialect: how the body is read, and how answers are written.

The dialects themselves are pure; here they meet the request, its headers and the clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmgw_gateway.dialects import (
    anthropic,
    bedrock,
    converse,
    openai,
    openai_chat,
    openai_request,
    openai_response_events,
    openai_responses,
)
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe.entry import printable
from llmgw_gateway.streams.converse import ConverseMeter
from llmgw_gateway.streams.converse import inner_event as converse_event
from llmgw_gateway.streams.meter import Meter
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from llmgw_gateway.call import Call, Operation
    from llmgw_gateway.streams.answer import Writer
    from llmgw_gateway.streams.frames import Frame

    Inner = Callable[[Frame], bytes | None]
    Body = Callable[[web.BaseRequest], Awaitable[bytes]]
    """Reads a body within the edge's limits."""


@dataclass(frozen=True, slots=True)
class Anthropic:
    """`POST /v1/messages`."""

    body: Body

    async def read(self, request: web.BaseRequest) -> Call:
        """Read the body into a call."""
        betas = ",".join(request.headers.getall("anthropic-beta", []))
        call = anthropic.read(await self.body(request), betas)
        call.session = session_of(request)
        call.version = request.headers.get("anthropic-version", "")
        return call

    def meter(self, call: Call) -> Meter:
        """What follows the answer's usage."""
        return Meter(long_cache=call.long_cache)

    @property
    def inner(self) -> Inner:
        """What finds the event in a frame of the provider."""
        return bedrock.inner_event

    def writer(self, _meter: Meter) -> Writer:
        """How a stream is written."""
        return anthropic.EventWriter()

    def event_writer(self, _meter: Meter) -> Writer:
        """The same from server-sent events in the Anthropic format."""
        return anthropic.PassThrough()

    def answer(self, body: bytes, _meter: Meter) -> bytes:
        """A whole answer in this dialect: the provider's own."""
        return body

    def refusal(self, status: int, body: bytes, *, billed: bool) -> tuple[int, bytes]:  # noqa: ARG002 -- others need it
        """A refusal of the provider, unmodified: clients recover by its wording."""
        return status, body


@dataclass(frozen=True, slots=True)
class Bedrock:
    """`POST /bedrock/model/{model}/...`; model, operation and mode stand in the path."""

    body: Body
    model: str
    operation: Operation
    stream: bool

    async def read(self, request: web.BaseRequest) -> Call:
        """Read the body into a call."""
        body = await self.body(request)
        if self.operation == "count":
            return bedrock.read_count(body, self.model)
        read = converse.read if self.operation == "converse" else bedrock.read
        call = read(body, self.model, stream=self.stream)
        call.session = session_of(request)
        return call

    def meter(self, call: Call) -> Meter:
        """What follows the answer's usage."""
        kind = ConverseMeter if self.operation == "converse" else Meter
        return kind(long_cache=call.long_cache)

    @property
    def inner(self) -> Inner:
        """What finds the event in a frame of the provider."""
        return converse_event if self.operation == "converse" else bedrock.passed_event

    def writer(self, _meter: Meter) -> Writer:
        """How a stream is written."""
        return bedrock.EventWriter()

    def event_writer(self, meter: Meter) -> Writer:
        """The same from server-sent events in the Anthropic format."""
        return bedrock.ChunkWriter(meter)

    def answer(self, body: bytes, _meter: Meter) -> bytes:
        """A whole answer in this dialect: the provider's own."""
        return body

    def refusal(self, status: int, body: bytes, *, billed: bool) -> tuple[int, bytes]:
        """A refusal of the provider, as AWS's SDKs read it."""
        return bedrock.refusal(status, body, billed=billed)


@dataclass(slots=True)
class OpenAIChat:
    """`POST /openai/v1/chat/completions`. One for each request: it remembers how the answer is wanted."""

    body: Body
    created: int = field(default_factory=lambda: int(time.time()))
    _model: str = ""
    _include_usage: bool = False

    async def read(self, request: web.BaseRequest) -> Call:
        """Read the body into a call."""
        chat = openai_request.read(await self.body(request))
        self._model, self._include_usage = chat.call.model, chat.include_usage
        return chat.call

    def meter(self, call: Call) -> Meter:
        """What follows the answer's usage."""
        return Meter(long_cache=call.long_cache)

    @property
    def inner(self) -> Inner:
        """What finds the event in a frame of the provider."""
        return bedrock.inner_event

    def writer(self, meter: Meter) -> Writer:
        """How a stream is written."""
        return openai_chat.EventWriter(
            meter, model=self._model, created=self.created, include_usage=self._include_usage
        )

    def event_writer(self, meter: Meter) -> Writer:
        """The same from server-sent events in the Anthropic format."""
        return self.writer(meter)

    def answer(self, body: bytes, meter: Meter) -> bytes:
        """A whole answer in this dialect."""
        answered = openai_chat.answer(
            body, model=self._model, created=self.created, usage=meter.usage, intervened=meter.intervened
        )
        return _converted(answered)

    def refusal(self, status: int, body: bytes, *, billed: bool) -> tuple[int, bytes]:  # noqa: ARG002 -- others need it
        """A refusal of the provider in OpenAI's envelope."""
        return openai.refusal(status, body)


@dataclass(slots=True)
class OpenAIResponses:
    """`POST /openai/v1/responses`. One for each request: it remembers what the answer repeats."""

    body: Body
    created: int = field(default_factory=lambda: int(time.time()))
    _echo: dict[str, Any] = field(default_factory=dict)

    async def read(self, request: web.BaseRequest) -> Call:
        """Read the body into a call."""
        asked = openai_responses.read(await self.body(request))
        self._echo = asked.echo
        return asked.call

    def meter(self, call: Call) -> Meter:
        """What follows the answer's usage."""
        return Meter(long_cache=call.long_cache)

    @property
    def inner(self) -> Inner:
        """What finds the event in a frame of the provider."""
        return bedrock.inner_event

    def writer(self, meter: Meter) -> Writer:
        """How a stream is written."""
        return openai_response_events.EventWriter(meter, echo=self._echo, created=self.created)

    def event_writer(self, meter: Meter) -> Writer:
        """The same from server-sent events in the Anthropic format."""
        return self.writer(meter)

    def answer(self, body: bytes, meter: Meter) -> bytes:
        """A whole answer in this dialect."""
        answered = openai_response_events.answer(
            body, echo=self._echo, created=self.created, usage=meter.usage, intervened=meter.intervened
        )
        return _converted(answered)

    def refusal(self, status: int, body: bytes, *, billed: bool) -> tuple[int, bytes]:  # noqa: ARG002 -- others need it
        """A refusal of the provider in OpenAI's envelope."""
        return openai.refusal(status, body)


def session_of(request: web.BaseRequest) -> str:
    """The coding session that Claude Code names; "" when the client names none."""
    named = request.headers.get("x-claude-code-session-id")
    return printable(named, 64) if named else ""


def agent_of(request: web.BaseRequest) -> str:
    """The sub-agent of that session that asks; "" for the session itself."""
    named = request.headers.get("x-claude-code-agent-id")
    return printable(named, 64) if named else ""


def _converted(answer: bytes | None) -> bytes:
    if answer is None:
        raise GatewayError(ErrorCode.UPSTREAM_INVALID, "The provider's answer is no message that can be converted.")
    return answer
