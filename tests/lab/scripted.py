"""`ScriptedBedrock`: the cloud's edge, for what ministack cannot do.

It asks for tools, so that the real `claude` goes round its loop; it holds a stream open, breaks it off, leaves usage
out, throttles. It checks every signature as AWS would (403), and counts exactly what it served. Its frames are checked
with botocore's parser in `test_scripted.py`, so that it cannot drift from what clients accept.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.lab import aws_frames, converse, guardrails, sigv4
from tests.lab.ministack import REGION, AwsKey
from tests.lab.threaded import ThreadedServer
from tests.lab.usage import Usage

INVOKE = re.compile(r"/model/(?P<model>[^/]+)/(?P<action>invoke|invoke-with-response-stream|converse|converse-stream)")
EMBEDDING = re.compile(r"(amazon\.titan-embed|([a-z]+\.)?cohere\.embed)")
LARGEST_BODY = 64 * 1024 * 1024
KEY = AwsKey("AKIASCRIPTEDBEDROCK1", "scripted/bedrock/secret/never/leaves/gw")
PIECES = 4
DEFAULT_USAGE = Usage(input=25, output=12)


@dataclass(frozen=True)
class Answer:
    """What the model says, and how the connection behaves while it says it."""

    text: str = "Hello from the scripted cloud."
    tool: str = ""
    """A tool to ask for after the text; with `tool_input`."""
    tool_input: dict[str, Any] = field(default_factory=dict)
    usage: Usage | None = DEFAULT_USAGE
    """None: the answer carries no usage at all."""
    status: int = 200
    error: str = ""
    """The message of an answer with another status, sent as AWS does."""
    error_type: str = "ValidationException"
    hold_after: int | None = None
    """Send so many events, then wait for `Call.release`."""
    pieces: int = PIECES
    """Into how many events the text is cut."""
    pause_seconds: float = 0
    """Wait so long between events (or until released)."""
    break_after: int | None = None
    """Send so many events, then drop the connection."""
    exception_after: int | None = None
    """Send so many events, then a `throttlingException` frame."""


@dataclass
class Call:
    """One request that reached the cloud."""

    number: int
    model: str
    streaming: bool
    request: sigv4.Received
    converse: bool
    body: dict[str, Any]
    answer: Answer
    guarding: guardrails.Guarding
    """The guardrail that it names, and what that did."""
    _server: ThreadedServer
    _released: asyncio.Event
    _steps: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    events_sent: int = 0
    status: int = 0
    finished: bool = False
    """The whole answer was written."""
    client_gone: bool = False
    """The gateway hung up before that."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the cloud has done with it, one way or the other."""

    @property
    def usage(self) -> Usage | None:
        """What the cloud bills for this call, whether or not anyone read it; nothing when it refused to begin."""
        began = self.status == web.HTTPOk.status_code and self.answer.exception_after != 0
        return self.answer.usage if began else None

    def release(self) -> None:
        """Let a held stream go on."""
        self._server.call_soon(self._released.set)

    def step(self) -> None:
        """Let a stream that pauses between events send one more: as soon as it pauses."""
        self._server.call_soon(self._steps.release)

    async def paused(self, seconds: float) -> None:
        """Wait for `step` or `release`, at most so long; used by the server."""
        waiting = [asyncio.ensure_future(self._released.wait()), asyncio.ensure_future(self._steps.acquire())]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    async def released(self) -> None:
        """Wait for `release`; used by the server."""
        await self._released.wait()


class ScriptedBedrock(ThreadedServer):
    """The double and its controls. Without a script every call gets `default`."""

    region = REGION
    key = KEY

    def __init__(self, default: Answer | None = None) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.refused: list[str] = []
        """The reason of every 403."""
        self.default = default or Answer()
        self.counted: list[sigv4.Received] = []
        """The questions for the tokens of a prompt."""
        self.counting: tuple[int, bytes] | None = None
        """Status and body of every CountTokens; None: there is no such operation."""
        self.guardrails: list[guardrails.Guardrail] = []
        """Those of the account."""
        self._script: deque[Answer] = deque()
        self._tool_loop: tuple[Answer, Answer] | None = None
        self._numbers = itertools.count(1)

    @property
    def endpoint(self) -> str:
        return self.url

    def script(self, *answers: Answer) -> None:
        """Give these answers to the next calls, in this order."""
        self._script.extend(answers)

    def reset(self) -> None:
        """Forget calls and script: for a test that shares the cloud with others."""
        self.forget_script()
        self._tool_loop = None
        self.counting = None
        self.guardrails.clear()
        self.counted.clear()
        self.calls.clear()
        self.refused.clear()

    def forget_script(self) -> None:
        """Drop the answers for which no call came."""
        self._script.clear()

    def script_tool_loop(self, tool: str, tool_input: dict[str, Any], final: str) -> None:
        """Ask for the tool until a message holds its result; then say `final`."""
        ask = Answer("I will look.", tool=tool, tool_input=tool_input, usage=Usage(310, 41, cache_write_5m=1200))
        self._tool_loop = (ask, Answer(final, usage=Usage(57, 19, cache_read=1200)))

    @property
    def usages(self) -> list[Usage]:
        """What was billed, in order."""
        return [call.usage for call in self.calls if call.usage is not None]

    def release_all(self) -> None:
        for call in list(self.calls):
            call.release()

    async def application(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        received = sigv4.Received(request.method, request.raw_path, request.headers.copy(), await request.read())
        fault = sigv4.fault(received, KEY, region=self.region)
        if fault:
            self.refused.append(fault)
            return _aws_error(403, "InvalidSignatureException", fault)
        if self.counting is not None and request.raw_path.endswith("/count-tokens"):
            self.counted.append(received)
            status, body = self.counting
            return web.Response(status=status, body=body, content_type="application/json")
        path = INVOKE.fullmatch(request.raw_path)
        if path is None or request.method != "POST":
            return _aws_error(404, "UnknownOperationException", f"no such operation: {request.raw_path}")
        call = self._register(received, unquote(path["model"]), path["action"])
        try:
            if call.guarding.fault:
                return _aws_error(call.status, "ValidationException", call.guarding.fault)
            return await self.answer(request, call)
        finally:
            call.ended.set()

    async def answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        """What the cloud does with a call that it has accepted."""
        if call.status != web.HTTPOk.status_code:
            return _aws_error(call.status, call.answer.error_type, call.answer.error)
        return await (self._stream(request, call) if call.streaming else self._complete(call))

    def _register(self, received: sigv4.Received, model: str, action: str) -> Call:
        body = json.loads(received.body)
        answer = self._next_answer(body)
        if EMBEDDING.match(model) and answer.usage is not None:
            answer = replace(answer, usage=Usage(input=sum(len(text.split()) for text in texts_of(body))))
        number = next(self._numbers)
        streaming, converse = action.endswith("-stream"), action.startswith("converse")
        guarding = guardrails.look(self.guardrails, received, body, converse=converse)
        if guarding.blocked is not None:
            answer = replace(answer, text=guarding.blocked, tool="", usage=Usage(0, 0))
        call = Call(
            number, model, streaming, received, converse, body, answer, guarding, self, asyncio.Event(),
            status=400 if guarding.fault else answer.status,
        )  # fmt: skip
        self.calls.append(call)
        return call

    def _next_answer(self, body: dict[str, Any]) -> Answer:
        if self._script:
            return self._script.popleft()
        if self._tool_loop is not None:
            ask, final = self._tool_loop
            return final if has_tool_result(body) else ask
        return self.default

    async def _complete(self, call: Call) -> web.Response:
        if call.answer.hold_after is not None:
            await call.released()
        call.finished = True
        if EMBEDDING.match(call.model):
            usage = call.answer.usage
            counted = {"x-amzn-Bedrock-Input-Token-Count": str(usage.input)} if usage else {}
            return web.json_response(embeddings(call), headers=counted)
        return web.json_response(converse.answer(call) if call.converse else message(call))

    async def _stream(self, request: web.Request, call: Call) -> web.StreamResponse:
        headers = {"Content-Type": "application/vnd.amazon.eventstream", "x-amzn-RequestId": f"scripted-{call.number}"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        answer = call.answer
        try:
            for frame in converse.frames(call) if call.converse else map(aws_frames.chunk, events(call)):
                if call.events_sent == answer.break_after:
                    drop(request)
                    return response
                if call.events_sent == answer.exception_after:
                    await response.write(aws_frames.exception("throttlingException", "Too many tokens, please wait."))
                    return response
                if call.events_sent == answer.hold_after:
                    await call.released()
                if answer.pause_seconds:
                    await call.paused(answer.pause_seconds)
                await response.write(frame)
                call.events_sent += 1
        except (ConnectionError, asyncio.CancelledError):
            call.client_gone = True
            raise
        call.finished = True
        return response


def has_tool_result(body: dict[str, Any]) -> bool:
    """Whether any message of the conversation carries a tool's result."""
    contents = [message.get("content") for message in body.get("messages", [])]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    results = (
        block.get("type") == "tool_result" or "toolResult" in block for block in blocks if isinstance(block, dict)
    )
    return any(results)


def texts_of(body: dict[str, Any]) -> list[str]:
    """The texts of a request for embeddings: Titan's or Cohere's."""
    return [body["inputText"]] if "inputText" in body else list(body["texts"])


def vector_of(text: str, size: int) -> list[float]:
    """A vector that tells texts apart: its first element is the length of the text."""
    return [float(len(text)), *([0.5] * (size - 1))]


def embeddings(call: Call) -> dict[str, Any]:
    """The answer to a request for embeddings. Cohere's has no count of tokens: it stands in a header alone."""
    body = call.body
    size = body.get("dimensions") or body.get("output_dimension") or 8
    vectors = [vector_of(text, size) for text in texts_of(body)]
    if "texts" in body:
        return {"id": "scripted", "response_type": "embeddings_by_type", "embeddings": {"float": vectors}}
    counted = {"inputTextTokenCount": call.answer.usage.input} if call.answer.usage else {}
    return {"embedding": vectors[0], "embeddingsByType": {"float": vectors[0]}} | counted


def message(call: Call) -> dict[str, Any]:
    """The complete message of an answer that is not streamed."""
    answer = call.answer
    content: list[dict[str, Any]] = [{"type": "text", "text": answer.text}] if answer.text else []
    if answer.tool:
        content.append({**_tool_block(call), "input": answer.tool_input})
    document = _head(call) | {"content": content, "stop_reason": _stop_reason(call)} | call.guarding.members()
    return document | ({"usage": answer.usage.anthropic()} if answer.usage else {})


def events(call: Call) -> list[dict[str, Any]]:
    """The Anthropic events of a streamed answer."""
    answer = call.answer
    found: list[dict[str, Any]] = []
    start = answer.usage.anthropic() | {"output_tokens": 1} if answer.usage else None
    found.append({"type": "message_start", "message": _head(call) | ({"usage": start} if start else {})})
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    if answer.text:
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(answer.text, answer.pieces)]
        blocks.append(({"type": "text", "text": ""}, deltas))
    if answer.tool:
        deltas = [{"type": "input_json_delta", "partial_json": p} for p in _pieces(json.dumps(answer.tool_input))]
        blocks.append(({**_tool_block(call), "input": {}}, deltas))
    for index, (block, deltas) in enumerate(blocks):
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    delta = {
        "type": "message_delta",
        "delta": {"stop_reason": _stop_reason(call), "stop_sequence": None},
    }
    found.append(delta | ({"usage": {"output_tokens": answer.usage.output}} if answer.usage else {}))
    found.append({"type": "message_stop"} | _metrics(answer) | call.guarding.members())
    return found


def _head(call: Call) -> dict[str, Any]:
    head: dict[str, Any] = {"id": f"msg_bdrk_{call.number:024d}", "type": "message", "role": "assistant"}
    return head | {"model": call.model, "content": [], "stop_reason": None, "stop_sequence": None}


def _tool_block(call: Call) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_bdrk_{call.number:020d}", "name": call.answer.tool}


def _stop_reason(call: Call) -> str:
    return call.guarding.stop_reason or ("tool_use" if call.answer.tool else "end_turn")


def _metrics(answer: Answer) -> dict[str, Any]:
    """What Bedrock adds to the last event of a stream."""
    if answer.usage is None:
        return {}
    counts = {"inputTokenCount": answer.usage.input, "outputTokenCount": answer.usage.output}
    return {"amazon-bedrock-invocationMetrics": counts | {"invocationLatency": 100, "firstByteLatency": 50}}


def _pieces(text: str, count: int = PIECES) -> list[str]:
    size = max(1, -(-len(text) // count))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _aws_error(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status, headers={"x-amzn-ErrorType": kind})


def drop(request: web.Request) -> None:
    """End the connection without the end of the answer."""
    if request.transport is not None:
        request.transport.abort()
