"""What is fuzzed: everything that reads bytes of somebody else. Each target takes bytes and fails where a promise does.

A promise is more than "does not raise": what two implementations read must be the same, what is written must be
readable, what is known must not be forgotten.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import re
import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpResponseParser
from botocore.eventstream import EventStreamBuffer, ParserError

from llmgw_gateway.dialects import (
    anthropic,
    bedrock,
    converse,
    openai_chat,
    openai_embeddings,
    openai_request,
    openai_response_events,
    openai_responses,
)
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.entries import entry
from llmgw_gateway.providers import bridge
from llmgw_gateway.scim import documents, filters, patching
from llmgw_gateway.scim.attributes import USERS
from llmgw_gateway.scim.refusals import ScimError
from llmgw_gateway.streams import sse
from llmgw_gateway.streams.converse import ConverseMeter
from llmgw_gateway.streams.eventstream import EventStreamError, FrameParser
from llmgw_gateway.streams.frames import Frame
from llmgw_gateway.streams.http1 import FIRST_FINAL, AnswerError, AnswerParser
from llmgw_gateway.streams.meter import Meter
from llmgw_gateway.streams.refusals import StreamRefused, message_of
from tests.lab import aws_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_gateway.call import Call

ORDER = ("none", "partial", "complete")
MOST_COUNT = 4 * 100_000_000
MOST_SINGLE = 512
FRAMING = re.compile(rb"(?i)content-length|transfer-encoding")
HEADER_SAFE = re.compile(r"[A-Za-z]{1,64}")


def frames(data: bytes) -> None:
    """Raw bytes as an event stream, cut where the first of them say: botocore reads the same."""
    cuts, stream = sorted(data[:4]), data[4:]
    whole, corrupt = _ours([stream])
    edges = [0, *(cut * len(stream) // 256 for cut in cuts), len(stream)]
    portions = [stream[begin:end] for begin, end in pairwise(edges)]
    assert _ours(portions) == (whole, corrupt), "the split of the bytes makes a difference"
    theirs, refused = _theirs(stream)
    if not any(frame.exception for frame in whole):  # we stop there, botocore's parser does not
        assert whole == theirs[: len(whole)]
        assert corrupt or not refused


def headers(data: bytes) -> None:
    """Any bytes as headers and payload of a frame whose lengths and checksums are right."""
    if not data:
        return
    size = min(data[0], len(data) - 1)
    block, payload = data[1 : size + 1], data[size + 1 :]
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    message = prelude + aws_frames.crc(prelude) + block + payload
    stream = message + aws_frames.crc(message)
    found, corrupt = _ours([stream])
    theirs, refused = _theirs(stream)
    assert corrupt or (found == theirs and not refused), "botocore, which takes more than we, reads something else"
    for frame in found:
        refusal = StreamRefused.by_frame(frame)
        assert HEADER_SAFE.fullmatch(refusal.error_type)
        assert isinstance(json.loads(refusal.body), dict)
        assert message_of(frame)
        bedrock.inner_event(frame)


def events(data: bytes) -> None:
    """Lines as events of one answer: usage is never forgotten, and each event is one to an SSE client."""
    meter, level = Meter(long_cache=bool(data[:1] == b"L")), 0
    for line in data.split(b"\x00"):
        known = meter.usage
        kind = meter.event(line)
        assert ORDER.index(meter.completeness) >= level, "what was known is unknown again"
        level = ORDER.index(meter.completeness)
        usage = meter.usage
        for count in (usage.input, usage.output, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h):
            assert 0 <= count <= MOST_COUNT
        assert usage.prompt >= 0
        if level == 0:
            assert usage == known
        written = sse.encode(kind, line)
        dispatched = _dispatched(written)
        assert len(dispatched) == 1, "one event became several, or none"
        assert dispatched[0][0] == kind
        if kind == "error":
            refusal = StreamRefused.by_event(line)
            assert HEADER_SAFE.fullmatch(refusal.error_type)


def server_sent(data: bytes) -> None:
    """Raw bytes as server-sent events, cut where the first of them say: read by the standard, passed on whole."""
    cuts, stream = sorted(data[:4]), data[4:]
    edges = [0, *(cut * len(stream) // 256 for cut in cuts), len(stream)]
    parser, found, passed = sse.EventParser(), list[bytes](), b""
    for begin, end in pairwise(edges):
        found += [sse.inner_event(event) for event in parser.feed(stream[begin:end])]
        passed += parser.taken
    told = stream.removeprefix(b"\xef\xbb\xbf")
    assert told.startswith(passed), "not a byte is lost, added or moved"
    seen = [text for _, text in _dispatched(passed)]
    assert [each.decode("utf-8", "replace") for each in found] == seen, "what is passed on is whole events"
    if not parser.ended:
        assert len(_dispatched(told)) - len(seen) <= 1, "only what no line end follows may be left"


def http1(data: bytes) -> None:
    """Raw bytes as an answer of an upstream: the same in any split, and what is taken aiohttp's parser reads alike."""
    cuts, stream = sorted(data[:4]), data[4:]
    edges = [0, *(cut * len(stream) // 256 for cut in cuts), len(stream)]
    whole = _answered([stream])
    assert _answered([stream[begin:end] for begin, end in pairwise(edges)]) == whole, "the split makes a difference"
    single = [stream[place : place + 1] for place in range(min(len(stream), MOST_SINGLE))]
    assert _answered([*single, stream[MOST_SINGLE:]]) == whole, "the split makes a difference"
    if whole is None:
        return
    # The first beginning that is a whole answer; an answer without framing is all there is.
    end = bisect.bisect_left(range(len(stream)), x=True, key=lambda size: _ended(stream[:size]))
    assert whole.reusable <= (end == len(stream)), "a connection with more in it is not fit for another request"
    if len(FRAMING.findall(stream[:end])) > 1:
        return  # among the trailers, which we overlook and llhttp judges
    with contextlib.suppress(LineTooLong):
        assert _by_aiohttp(stream[:end]) == (whole.status, whole.headers, whole.body)


def answers(data: bytes) -> None:
    """A whole answer: what the meter calls readable is JSON, and its numbers are numbers of tokens."""
    meter = Meter()
    if meter.answer(data):
        assert isinstance(_json(data), dict)
    else:
        assert meter.completeness == "none"
    assert 0 <= meter.usage.prompt <= 4 * MOST_COUNT
    assert 0 <= meter.usage.output <= MOST_COUNT


def requests(data: bytes) -> None:
    """A client's body in both dialects: refused in words, or sent on as it was judged."""
    betas, _, body = data.partition(b"\x00")
    for dialect in ("anthropic", "bedrock"):
        try:
            if dialect == "anthropic":
                call = anthropic.read(body, betas.decode("latin-1"))
            else:
                call = bedrock.read(body, "model", stream=True)
            sent = bridge.invoke_body(call, "claude-sonnet-4-5")
            call.clamp(1)
            clamped = bridge.invoke_body(call, "claude-sonnet-4-5")
        except GatewayError:
            continue
        assert call.max_tokens == 1
        # What is no text in a client's message is the provider's to refuse.
        assert dialect == "bedrock" or "model" not in _json(sent.decode("utf-8", "replace"))
        assert _json(clamped.decode("utf-8", "replace")).get("max_tokens", 1) == 1
        try:
            passed, names = bridge.message(call, "claude-sonnet-4-5", "claude-x")
        except GatewayError:
            continue
        assert re.fullmatch(r"[A-Za-z0-9._,-]*", names), "fit for a header"
        document = _json(passed.decode("utf-8", "replace"))
        assert not document or (document["model"], document["max_tokens"]) == ("claude-x", 1)


def conversions(data: bytes) -> None:
    """A client's body in a dialect that is converted, or in Converse: refused in words, or sent on with its cap."""
    reads: tuple[Callable[[bytes], Call], ...] = (
        lambda body: openai_request.read(body).call,
        lambda body: openai_responses.read(body).call,
        lambda body: openai_embeddings.calls(openai_embeddings.read(body), "cohere.embed-v4:0")[0],
        lambda body: converse.read(body, "model", stream=True),
    )
    for read in reads:
        try:
            call = read(data)
            bridge.invoke_body(call, "claude-opus-4-5")
            if call.kind == "text":
                call.clamp(1)
            written = bridge.invoke_body(call, "claude-opus-4-5").decode("utf-8", "replace")
        except GatewayError:
            continue
        sent = _json(written)
        assert isinstance(sent, dict)
        if sent and call.kind == "text":
            assert (sent["inferenceConfig"]["maxTokens"] if call.operation == "converse" else sent["max_tokens"]) == 1


def chunks(data: bytes) -> None:
    """Lines as events of one answer, as OpenAI's clients get them: whatever comes, each event is JSON and is one."""
    meter = Meter()
    lines = [(meter.event(line), line) for line in data.split(b"\x00")]
    echo = openai_responses.read(b'{"model":"m","input":"x"}').echo
    chat = openai_chat.EventWriter(meter, model="m", created=1, include_usage=True)
    for kind, written in _dispatched(chat.write(b"", lines, None) + chat.failure("api_error", "why")):
        assert kind == ""
        assert written == "[DONE]" or isinstance(_json(written), dict)
    responses = openai_response_events.EventWriter(meter, echo=echo, created=1)
    for kind, written in _dispatched(responses.write(b"", lines, None) + responses.failure("api_error", "why")):
        assert _json(written)["type"] == kind
    ConverseMeter().event(data)
    for whole in (
        openai_chat.answer(data, model="m", created=1, usage=meter.usage),
        openai_response_events.answer(data, echo=echo, created=1, usage=meter.usage),
    ):
        assert whole is None or isinstance(_json(whole.decode()), dict)


def provisioning(data: bytes) -> None:
    """A filter, and a directory's change of a person: refused in words, or what is kept can be read and kept again."""
    text, _, body = data.partition(b"\x00")
    person = {"userName": "ada", "emails": [{"type": "work", "value": "a@x"}], "active": False}
    for parse in (filters.parse, filters.parse_path):
        with contextlib.suppress(ScimError):
            filters.holds(parse(text.decode("latin-1"), USERS), person, USERS)
    with contextlib.suppress(ScimError):
        changed = patching.patched(person, documents.decoded(body), USERS)
        assert documents.read(changed, USERS) == changed
        kept = entry(changed)
        assert kept.active == changed["active"]
        assert _json(kept.attributes).items() <= changed.items()
        assert kept.user_name.encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (frames, headers, events, server_sent, http1, answers, requests, conversions, chunks, provisioning)
}


def _ours(portions: list[bytes]) -> tuple[list[Frame], bool]:
    parser, found = FrameParser(), list[Frame]()
    try:
        for portion in portions:
            found += parser.feed(portion)
        parser.finish()
    except EventStreamError:
        return found, True
    return found, False


def _theirs(stream: bytes) -> tuple[list[Frame], bool]:
    buffer, found = EventStreamBuffer(), list[Frame]()
    try:
        buffer.add_data(stream)
        for message in buffer:
            strings = {name: value for name, value in message.headers.items() if type(value) is str}
            found.append(Frame(strings, message.payload))
    except (ParserError, UnicodeDecodeError, struct.error, IndexError, KeyError):
        return found, True
    return found, False


class _Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool


def _answered(portions: list[bytes]) -> _Answer | None:
    """What we read; None when it is refused, or breaks off."""
    parser, body = AnswerParser(), b""
    try:
        for portion in portions:
            body += parser.feed(portion)
        parser.finish()
    except AnswerError:
        return None
    assert parser.head is not None
    return _Answer(parser.head.status, parser.head.headers, body, parser.reusable)


def _ended(stream: bytes) -> bool:
    parser = AnswerParser()
    parser.feed(stream)
    return parser.ended


def _by_aiohttp(stream: bytes) -> tuple[int, dict[str, str], bytes]:
    loop: Any = object()  # is never asked for anything
    parser = HttpResponseParser(BaseProtocol(loop), loop, 2**20, auto_decompress=False, read_until_eof=True)
    messages, _, _ = parser.feed_data(stream)
    parser.feed_eof()
    (message, payload), *more = [each for each in messages if each[0].code >= FIRST_FINAL]
    assert not more, "one answer became several"
    headers = dict[str, list[str]]()
    for name, value in message.headers.items():
        headers.setdefault(name.lower(), []).append(value.encode("utf-8", "surrogateescape").decode("latin-1"))
    return message.code, {name: ", ".join(values) for name, values in headers.items()}, payload.read_nowait()


def _dispatched(stream: bytes) -> list[tuple[str, str]]:
    """What a client of server-sent events sees (HTML standard, section 9.2.6)."""
    found, kind, data = [], "", list[str]()
    for line in re.split("\r\n|\n|\r", stream.decode("utf-8", "replace")):
        name, _, value = line.partition(":")
        if not line:
            if data:
                found.append((kind, "\n".join(data)))
            kind, data = "", []
        elif name == "event":
            kind = value.removeprefix(" ")
        elif name == "data":
            data.append(value.removeprefix(" "))
    return found


def _json(data: bytes | str) -> Any:
    """Read by the standard library; {} for what is only too much for it (nesting, digits)."""
    try:
        return json.loads(data)
    except (RecursionError, ValueError) as error:
        if isinstance(error, RecursionError) or "digits" in str(error):
            return {}
        raise
