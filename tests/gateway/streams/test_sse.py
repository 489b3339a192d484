"""Server-sent events, read back by the rules of the HTML standard (section 9.2.6)."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.streams import sse
from llmgw_gateway.streams.eventstream import MOST_BYTES, EventStreamError

documents = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3)
    ),
    max_size=4,
)
kinds = st.sampled_from(["message_start", "content_block_delta", "message_delta", "ping", "error"])


def events(stream: bytes) -> list[tuple[str, str]]:
    """Every event that a client would dispatch: its type and its data."""
    found, kind, data = [], "", list[str]()
    for line in re.split("\r\n|\n|\r", stream.decode())[:-1]:  # what no line end follows is no line yet
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


@given(kinds, documents, st.booleans())
def test_an_event_on_one_line_is_passed_on_byte_for_byte(kind: str, document: dict[str, Any], ascii_only: bool) -> None:  # noqa: FBT001 -- drawn
    data = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert events(sse.encode(kind, data)) == [(kind, data.decode())]


@given(kinds, documents, st.sampled_from(["\n", "\r\n", "\r"]))
@example("content_block_delta", {"text": "two  spaces,\ta tab"}, "\n")
def test_an_event_with_line_breaks_stays_one_event_of_the_same_content(
    kind: str, document: dict[str, Any], line_break: str
) -> None:
    data = json.dumps(document, indent=2, ensure_ascii=False).replace("\n", line_break).encode()
    ((dispatched, text),) = events(sse.encode(kind, data))
    assert dispatched == kind
    assert json.loads(text) == document


@given(st.lists(st.tuples(kinds, documents), max_size=5))
def test_events_written_together_are_read_apart(written: list[tuple[str, dict[str, Any]]]) -> None:
    stream = b"".join(sse.encode(kind, json.dumps(document).encode()) for kind, document in written)
    assert [(kind, json.loads(data)) for kind, data in events(stream)] == written


@pytest.mark.parametrize("pings", [1, 3])
def test_the_ping_is_an_event_of_its_own(pings: int) -> None:
    assert events(sse.PING * pings) == [("ping", '{"type": "ping"}')] * pings


def read(portions: list[bytes]) -> tuple[list[bytes], bytes]:
    """The data of each event, and the bytes that were fit to be passed on."""
    parser, found, passed = sse.EventParser(), list[bytes](), b""
    for portion in portions:
        found += [sse.inner_event(frame) for frame in parser.feed(portion)]
        passed += parser.taken
    return found, passed


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
lines = st.sampled_from(
    ["event: ping", "data: {}", "data", "data:x", ": comment", "id: 7", "retry: 9", "", "", "event"]
)
streams = st.tuples(
    st.lists(st.one_of(lines, texts.map(lambda text: f"data: {text}")), max_size=14),
    st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=14, max_size=14),
).map(lambda drawn: "".join(line + end for line, end in zip(*drawn, strict=False)).encode())


@given(streams, st.lists(st.integers(0, 255), max_size=4))
@example(b"data: a\n\r\ndata: b\r\r\n\r\n", [1, 60, 90, 200])
@example(b"\xef\xbb\xbfdata: a\n\n", [1, 20, 50])
def test_whatever_the_split_events_are_read_as_the_standard_says(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut * len(stream) // 256 for cut in cuts), len(stream)]
    found, passed = read([stream[begin:end] for begin, end in pairwise(edges)])
    told = stream.removeprefix(b"\xef\xbb\xbf")
    assert [each.decode() for each in found] == [data for _, data in events(told)]
    assert told.startswith(passed), "not a byte is lost, added or moved"
    assert [each.decode() for each in found] == [data for _, data in events(passed)], "what is passed on is whole"


def test_an_error_is_the_last_event() -> None:
    error = sse.encode("error", b'{"type":"error"}')
    parser = sse.EventParser()
    assert len(parser.feed(sse.PING + error + sse.PING + b"junk")) == 2
    assert parser.taken == sse.PING + error
    assert parser.ended
    assert parser.feed(sse.PING) == []
    parser.finish()


@pytest.mark.parametrize("rest", [b"data: {", b"event: ping\n", b"<html>"])
def test_a_stream_that_ends_inside_an_event_is_no_whole_one(rest: bytes) -> None:
    parser = sse.EventParser()
    assert len(parser.feed(sse.PING + rest)) == 1
    with pytest.raises(EventStreamError, match="inside an event"):
        parser.finish()


def test_an_event_has_a_largest_size() -> None:
    parser = sse.EventParser()
    parser.feed(b"data: " + b"x" * (MOST_BYTES - 10))
    with pytest.raises(EventStreamError, match="larger than"):
        parser.feed(b"x" * 10)
