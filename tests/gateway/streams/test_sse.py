"""Server-sent events, read back by the rules of the HTML standard (section 9.2.6)."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.streams import sse

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
    for line in re.split("\r\n|\n|\r", stream.decode()):
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
