"""A cloud that costs nearly nothing and a client that does, on one event loop: what the proxies are measured with.

Both are bare asyncio protocols: through an HTTP library they would cost more than what stands between them. A prompt
says how it wants to be answered: `[[200,5]]` is 200 pieces of 5 ms each; without it the answer is one document.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from tests.lab.aws_frames import frame
from tests.lab.loopback import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HEAD_END: Final = b"\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_LENGTH: Final = re.compile(rb"content-length: ?(\d+)", re.IGNORECASE)
_PACE: Final = re.compile(rb"\[\[(\d+),(\d+)\]\]")
_PIECE: Final = re.compile(rb"sent-(\d{16})|:event-type")
"""A piece in the Anthropic dialect says when it was sent; in Bedrock's frames that stands in base64, so they count."""
_HEADERS: Final = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
_USAGE: Final = {"input_tokens": 10_000, "output_tokens": 200}
"""So little that no limit that can be configured is reached."""
ANSWER: Final = json.dumps(
    {"id": "msg_1", "type": "message", "content": [{"type": "text", "text": "word " * 180}], "usage": _USAGE}
).encode()
_START: Final = json.dumps({"type": "message_start", "message": {"usage": _USAGE}}, separators=(",", ":")).encode()
_DELTA: Final = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"sent-%016d word"}}'
_END: Final = json.dumps({"type": "message_delta", "usage": {"output_tokens": 200}}, separators=(",", ":")).encode()
_STOP: Final = b'{"type":"message_stop"}'
BESIDES: Final = 3
"""Events of a stream that are no piece of the answer."""


def _as_frame(event: bytes) -> bytes:
    return frame(_HEADERS, b'{"bytes":"' + base64.b64encode(event) + b'","p":"abcdefgh"}')


def _as_sse(event: bytes) -> bytes:
    kind = event[9 : event.index(b'"', 9)]
    return b"event: " + kind + b"\ndata: " + event + b"\n\n"


class Cloud(asyncio.Protocol):
    """One connection of the cloud: Bedrock where the path says `/model/`, else Anthropic's own API."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(HEAD_END)) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            whole = end + len(HEAD_END) + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            bedrock = self._buffer.startswith(b"POST /model/", 0, end)
            found = _PACE.search(self._buffer, end, whole)
            pace = [int(number) for number in found.groups()] if found else []
            del self._buffer[:whole]
            if not pace:
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                self._transport.write(head % len(ANSWER) + ANSWER)
            else:
                self._stream(_as_frame if bedrock else _as_sse, pace[0], pace[1] / 1000)

    def _stream(self, written: Callable[[bytes], bytes], pieces: int, seconds: float) -> None:
        kind = b"application/vnd.amazon.eventstream" if written is _as_frame else b"text/event-stream"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._transport.write(head % kind + _chunk(written(_START)))
        loop = asyncio.get_running_loop()
        began = loop.time()

        def go_on(number: int) -> None:
            if self._transport.is_closing():
                return
            if number > pieces:
                self._transport.write(_chunk(written(_END)) + _chunk(written(_STOP)) + LAST_CHUNK)
                return
            self._transport.write(_chunk(written(_DELTA % time.monotonic_ns())))
            loop.call_at(began + number * seconds, partial(go_on, number + 1))

        loop.call_at(began + seconds, partial(go_on, 1))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class Reply:
    """What one request came to; times in seconds."""

    due: float
    first: float = 0.0
    """From when it was due to the first byte of the answer."""
    whole: float = 0.0
    delays: list[float] = field(default_factory=list)
    """Of each piece, from the cloud's write to the client's read."""
    pieces: int = 0
    head: bytes = b""


class Client(asyncio.Protocol):
    """One connection of the client: one request at a time."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = -1
        """Bytes of the answer that are still to come; -1: the head is, -2: it comes in chunks."""
        self._reply = Reply(0.0)
        self._done: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the answer was cut off"))

    def ask(self, request: bytes, due: float) -> asyncio.Future[Reply]:
        self._rest, self._left, self._reply = b"", -1, Reply(due)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        reply = self._reply
        if not reply.first:
            reply.first = now / 1e9 - reply.due
        if self._left == -1:
            head, found, data = (self._rest + data).partition(HEAD_END)
            self._rest = b"" if found else head
            if not found:
                return
            reply.head = head
            length = _LENGTH.search(head)
            self._left = int(length[1]) if length else -2
        if self._left >= 0:
            self._left -= len(data)
            ended = not self._left
        else:
            data = self._rest + data
            end = 0
            for piece in _PIECE.finditer(data):
                end = piece.end()
                reply.pieces += 1
                if piece[1]:
                    reply.delays.append((now - int(piece[1])) / 1e9)
            self._rest = data[max(end, len(data) - 64) :]
            ended = self._rest.endswith(LAST_CHUNK)
        if ended and self._done is not None:
            reply.whole = now / 1e9 - reply.due
            self._done.set_result(reply)

    def close(self) -> None:
        self._transport.close()


@dataclass(frozen=True)
class Load:
    """A scenario: what is sent, and how often. `size`: bytes of the prompt; `pieces` and `pace` (ms) of the answer."""

    requests: int
    size: int = 1000
    pieces: int = 0
    pace: int = 0
    at_once: int = 0
    """So many clients, each with its next request as soon as it has an answer; 0: `rate` requests a second."""
    rate: float = 0.0

    def body(self, **members: object) -> bytes:
        mark = f"[[{self.pieces},{self.pace}]]" if self.pieces else ""
        text = (mark + "word " * self.size)[: self.size - 100]
        return json.dumps(members | {"max_tokens": 4096, "messages": [{"role": "user", "content": text}]}).encode()


@dataclass(frozen=True)
class Door:
    """Where a proxy is asked: its port, a path, a credential, and what the body has to say besides."""

    port: int
    path: str
    token: str = "none"
    members: dict[str, object] = field(default_factory=dict)

    def request(self, load: Load) -> bytes:
        # Bedrock's dialect says in the path whether an answer streams, Anthropic's in the body.
        streams = {"stream": load.pieces > 0} if "model" in self.members else {}
        body = load.body(**self.members, **streams)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nAccept: */*\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def drive(door: Door, load: Load) -> list[Reply]:
    """Put a load on a door; every answer must be good and whole."""
    request = door.request(load)
    idle: list[Client] = []

    async def ask(due: float) -> Reply:
        client = idle.pop() if idle else await _connect(door.port)
        reply = await client.ask(request, due)
        idle.append(client)
        return reply

    async def one_after_another(count: int) -> list[Reply]:
        return [await ask(time.monotonic()) for _ in range(count)]

    if load.at_once:
        share = load.requests // load.at_once
        parts = await asyncio.gather(*(one_after_another(share) for _ in range(load.at_once)))
        replies = [reply for part in parts for reply in part]
    else:
        asked = [asyncio.ensure_future(ask(due)) async for due in _dues(load)]
        replies = await asyncio.gather(*asked)
    for client in idle:
        client.close()
    for reply in replies:
        assert reply.head.startswith(b"HTTP/1.1 200 "), reply.head
        # Of frames, each event is counted; of server-sent events, each piece.
        assert reply.pieces in {load.pieces, load.pieces + BESIDES if load.pieces else 0}, reply
    return replies


async def _dues(load: Load) -> AsyncIterator[float]:
    began = time.monotonic()
    for number in range(load.requests):
        due = began + number / load.rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield due


async def _connect(port: int) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(Client, HOST, port)
    return client
