"""`FaultyBedrock`: everything that is known to go wrong between a gateway and its cloud, by name.

A test says which prompt meets which fault, and where; so many clients can ask at the same time. What the frames are is
checked with botocore's parser in `test_bedrock.py`. `ScriptedBedrock` underneath checks signatures and counts calls.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from aiohttp import web

from llmgw_gateway.streams.eventstream import MOST_BYTES
from tests.lab import aws_frames, converse
from tests.lab.scripted import ScriptedBedrock, drop, events, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.scripted import Call

EVENT_STREAM = "application/vnd.amazon.eventstream"
MIB = 1024 * 1024
PIECE = 7
"""Bytes in which a slow answer arrives: never a whole frame."""


class Place(IntEnum):
    """Where in an answer something goes wrong."""

    HEAD = 0
    """Instead of an answer."""
    START = 1
    """After the head, before the first event."""
    CONTENT = 2
    """In the middle of the text."""
    USAGE = 3
    """After the text, before its usage is told."""
    END = 4
    """After the usage, before the last event."""

    def index(self, kinds: list[str]) -> int:
        """How many events of an answer come before it. Converse tells the usage last: it has no end of its own."""
        content, usage = ("contentBlockDelta", "messageStop") if "messageStart" in kinds else _INVOKED
        found = {Place.CONTENT: kinds.index(content) + 1, Place.USAGE: kinds.index(usage)}
        return found.get(self, len(kinds) - 1 if self is Place.END else 0)


_INVOKED = ("content_block_delta", "message_delta")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, and what a gateway must make of it when nothing came before."""

    name: str
    status: int = 502
    """What the client of the gateway is told, when this is the first thing that happens."""
    free: bool = False
    """Whether it is certain that nothing was billed then."""
    elsewhere: bool = False
    """Whether another target may be asked then."""


@dataclass(frozen=True)
class InHead(Fault):
    """Instead of an answer."""

    answered: int = 0
    """The status; 0: none."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    then: Literal["reset", "hold", "wait", ""] = ""
    """wait: until released; hold: until the gateway hangs up."""


@dataclass(frozen=True)
class InBody(Fault):
    """In a body that has begun."""

    sent: bytes = b""
    then: Literal["end", "reset", "hold", "go on", "go on slowly"] = "end"
    harmless: bool = False
    """Whether the client gets the whole answer all the same."""


@dataclass(frozen=True)
class Script:
    """A fault at its place."""

    fault: Fault
    place: Place = Place.HEAD


def _aws(
    name: str, status: int, kind: str, text: str, told: int = 0, *, free: bool = True, elsewhere: bool = True
) -> InHead:
    """A refusal of AWS, which is passed on as it is."""
    headers = {"x-amzn-ErrorType": kind, "content-type": "application/json", "x-amzn-RequestId": f"aws-{name}"}
    body = json.dumps({"message": text}).encode()
    return InHead(name, told or status, free=free, elsewhere=elsewhere, answered=status, headers=headers, body=body)


def _page(name: str, status: int, *, free: bool = False, elsewhere: bool = False) -> InHead:
    """The page of a proxy."""
    body = f"<html><head><title>{status}</title></head><body>nginx</body></html>".encode()
    headers = {"content-type": "text/html"}
    return InHead(name, 502, free=free, elsewhere=elsewhere, answered=status, headers=headers, body=body)


HEADS: tuple[InHead, ...] = (
    _aws("throttled", 429, "ThrottlingException", "Too many requests, please wait."),
    _aws("unavailable", 503, "ServiceUnavailableException", "Service unavailable."),
    _aws("internal", 500, "InternalServerException", "Internal error."),
    _aws("model_error", 424, "ModelErrorException", "The model failed.", free=False, elsewhere=False),
    _aws("model_timeout", 408, "ModelTimeoutException", "The model took too long.", free=False, elsewhere=False),
    _aws("no_such_model", 404, "ResourceNotFoundException", "No such model here."),
    _aws("denied", 403, "AccessDeniedException", "Not authorized.", told=400),
    _aws("invalid", 400, "ValidationException", "prompt is too long: 9 tokens > 8 maximum", elsewhere=False),
    _aws("too_large", 413, "ValidationException", "Too large.", elsewhere=False),
    InHead("empty_500", 500, True, True, 500, {"x-amzn-ErrorType": "InternalServerException"}),  # noqa: FBT003 -- free, elsewhere
    InHead("foreign_500", 500, answered=500, headers={"content-type": "application/json"}, body=b'{"message":"?"}'),
    _page("html_502", 502),
    _page("html_504", 504),
    _page("html_500", 500),
    _page("html_408", 408),
    _page("html_503", 503, free=True, elsewhere=True),
    _page("html_429", 429, free=True, elsewhere=True),
    _page("html_404", 404, free=True, elsewhere=True),
    _page("html_200", 200),
    InHead("sse_200", answered=200, headers={"content-type": "text/event-stream"}, body=b"data: {}\n\n"),
    InHead("empty_200", answered=200, headers={"content-type": "application/json; charset=utf-8"}),
    InHead("reset", then="reset"),
)
SILENT_HEAD = InHead("silence", 529, then="hold")


def _exception(kind: str, status: int, *, free: bool = True, elsewhere: bool = True) -> InBody:
    return InBody(
        kind, status, free=free, elsewhere=elsewhere, sent=aws_frames.exception(kind, f"{kind} in the stream")
    )


PING = aws_frames.chunk({"type": "ping"})
_OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
_PROTOCOL = {":message-type": "error", ":error-code": "InternalError", ":error-message": "broken"}


def _impossible() -> bytes:
    """The prelude of a frame larger than any may be."""
    lengths = struct.pack(">II", 2 * MOST_BYTES, 0)
    return lengths + aws_frames.crc(lengths)


BODIES: tuple[InBody, ...] = (
    _exception("throttlingException", 429),
    _exception("internalServerException", 500),
    _exception("serviceUnavailableException", 503),
    _exception("modelStreamErrorException", 424, free=False, elsewhere=False),
    _exception("modelTimeoutException", 408, free=False, elsewhere=False),
    _exception("validationException", 400, elsewhere=False),
    _exception("somethingNewException", 500),
    InBody("protocol_error", 500, True, True, aws_frames.frame(_PROTOCOL, b"")),  # noqa: FBT003 -- free, elsewhere
    InBody("error_event", 529, True, True, aws_frames.chunk(_OVERLOADED)),  # noqa: FBT003 -- the same
    # What follows an exception is no part of the answer.
    InBody(
        "exception_and_more",
        429,
        free=True,
        elsewhere=True,
        sent=aws_frames.exception("throttlingException", "throttlingException in the stream"),
        then="go on",
    ),
    InBody("truncated_frame", sent=PING[: len(PING) // 2]),
    InBody("bad_crc", sent=PING[:-5] + bytes([PING[-5] ^ 1]) + PING[-4:], then="go on"),
    InBody("bad_prelude", sent=PING[:3] + bytes([PING[3] ^ 1]) + PING[4:], then="go on"),
    InBody("giant_frame", sent=_impossible(), then="go on"),
    InBody("junk", sent=b"<html>504 Gateway Time-out</html>"),
    InBody("cut"),
    InBody("reset", then="reset"),
    InBody(
        "large_frame", 200, sent=aws_frames.chunk({"type": "ping", "padding": "x" * MIB}), then="go on", harmless=True
    ),
    InBody("slow", 200, then="go on slowly", harmless=True),
)
SILENT_BODY = InBody("silence", 529, then="hold")


class FaultyBedrock(ScriptedBedrock):
    """The cloud, with a script for each prompt; a prompt without one gets a good answer.

    A fault after the first event happens when the test says so (`release`): by then the client has the head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.always: Script | None = None
        """What every call meets whose prompt has no script of its own."""
        self._scripts: dict[str, list[Script | None]] = {}
        self._asked: defaultdict[str, int] = defaultdict(int)

    def when(self, prompt: str, *scripts: Script | None) -> None:
        """What the calls with a prompt meet in turn; None: nothing. The last counts for all that follow."""
        self._scripts[prompt] = list(scripts)

    def calls_of(self, prompt: str) -> list[Call]:
        """The calls with a prompt so far."""
        return [call for call in list(self.calls) if _prompt(call) == prompt]

    def release(self, prompt: str) -> None:
        """Let the calls with a prompt go on to their fault."""
        for call in self.calls_of(prompt):
            call.release()

    async def answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        prompt = _prompt(call)
        scripts = self._scripts.get(prompt, [self.always])
        script = scripts[min(self._asked[prompt], len(scripts) - 1)]
        self._asked[prompt] += 1
        if script is None:
            return await super().answer(request, call)
        if isinstance(script.fault, InHead):
            return await self._head(request, call, script.fault)
        assert isinstance(script.fault, InBody)
        if call.streaming:
            return await self._events(request, call, script.fault, script.place)
        return await self._document(request, call, script.fault)

    async def _head(self, request: web.Request, call: Call, fault: InHead) -> web.StreamResponse:
        call.status = fault.answered
        if fault.then == "hold":
            await _hung_up(request)
        if fault.then == "wait":
            await call.released()
        if fault.then == "reset":
            drop(request)
        return web.Response(status=fault.answered or HTTPStatus.OK, headers=fault.headers, body=fault.body)

    async def _events(self, request: web.Request, call: Call, fault: InBody, place: Place) -> web.StreamResponse:
        said = converse.events(call) if call.converse else [(str(each["type"]), each) for each in events(call)]
        frames = [aws_frames.event(*each) if call.converse else aws_frames.chunk(each[1]) for each in said]
        index = place.index([kind for kind, _ in said])
        response = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "x-amzn-RequestId": f"fake-{call.number}"})
        await response.prepare(request)
        if index:
            await response.write(b"".join(frames[:index]))
            await call.released()
        await self._go_wrong(request, response, fault, b"".join(frames[index:]))
        return response

    async def _document(self, request: web.Request, call: Call, fault: InBody) -> web.StreamResponse:
        """An answer in one piece goes wrong in its middle."""
        body = json.dumps(converse.answer(call) if call.converse else message(call)).encode()
        begun, rest = body[: len(body) // 2], body[len(body) // 2 :]
        response = web.StreamResponse(headers={"Content-Type": "application/json", "x-amzn-RequestId": "fake"})
        await response.prepare(request)
        await response.write(begun)
        await self._go_wrong(request, response, fault, rest)
        return response

    async def _go_wrong(self, request: web.Request, response: web.StreamResponse, fault: InBody, rest: bytes) -> None:
        await response.write(fault.sent)
        if fault.then in {"go on", "go on slowly"}:
            for piece in _pieces(rest, PIECE if fault.then == "go on slowly" else len(rest)):
                await response.write(piece)
                await asyncio.sleep(0)
        elif fault.then == "hold":
            await _hung_up(request)
        elif fault.then == "reset":
            drop(request)


async def _hung_up(request: web.Request) -> None:
    """Return when the gateway has given this call up."""
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 -- aiohttp has no event
        await asyncio.sleep(0.05)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _prompt(call: Call) -> str:
    content = call.body["messages"][0]["content"]
    return content if isinstance(content, str) else str(content[0].get("text", ""))
