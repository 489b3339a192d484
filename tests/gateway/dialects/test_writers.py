"""Writing an answer: each dialect's own bytes, and a failure that its client understands."""

from __future__ import annotations

import base64
import json

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.dialects import anthropic, bedrock
from llmgw_gateway.streams.eventstream import Frame
from llmgw_gateway.streams.refusals import message_of
from llmgw_wire.headers import EVENT_STREAM


def exception(name: str, payload: bytes = b'{"message":"slow down"}') -> Frame:
    return Frame({":message-type": "exception", ":exception-type": name}, payload)


def test_bedrock_s_own_bytes_are_passed_through() -> None:
    raw = b"any bytes at all"
    assert bedrock.EventWriter().write(raw, [("message_start", b"{}")], exception("x")) is raw
    assert bedrock.EventWriter().content_type == EVENT_STREAM
    assert bedrock.EventWriter().keepalive is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("overloaded_error", "serviceUnavailableException"),
        ("timeout_error", "modelTimeoutException"),
        ("api_error", "internalServerException"),
        ("anything", "internalServerException"),
    ],
)
def test_a_failure_in_bedrock_s_dialect_is_an_exception_that_botocore_reads(kind: str, name: str) -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(bedrock.EventWriter().failure(kind, "It broke: «why»."))
    (message,) = list(buffer)
    assert message.headers == {
        ":exception-type": name,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    assert json.loads(message.payload) == {"message": "It broke: «why»."}


@given(st.binary(max_size=100))
def test_the_event_in_a_chunk_is_found(event: bytes) -> None:
    payload = json.dumps({"bytes": base64.b64encode(event).decode(), "p": "abc"}).encode()
    assert bedrock.inner_event(Frame({}, payload)) == event


@given(st.binary(max_size=60))
@example(b"{}")
@example(b'{"bytes":5}')
@example(b'{"bytes":"%"}')
@example(b'{"\xff":1}')
@example(b"[" * 100_000)
def test_a_frame_without_an_event_gives_none_and_nothing_worse(payload: bytes) -> None:
    assert bedrock.inner_event(Frame({}, payload)) is None
    assert message_of(Frame({}, payload))


def test_events_become_server_sent_events_in_one_write() -> None:
    events = [("message_start", b'{"a":1}'), ("ping", b"{}")]
    stream = anthropic.EventWriter().write(b"raw", events, None)
    assert stream == b'event: message_start\ndata: {"a":1}\n\nevent: ping\ndata: {}\n\n'


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", "rate_limit_error"),
        ("validationException", "invalid_request_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("modelTimeoutException", "timeout_error"),
        ("internalServerException", "api_error"),
        ("neverHeardOfException", "api_error"),
    ],
)
def test_an_exception_in_the_stream_ends_it_with_an_error_event(name: str, kind: str) -> None:
    stream = anthropic.EventWriter().write(b"raw", [("ping", b"{}")], exception(name))
    first, last = stream.decode().strip().split("\n\n")
    assert first == "event: ping\ndata: {}"
    head, _, data = last.partition("\ndata: ")
    assert head == "event: error"
    assert json.loads(data) == {"type": "error", "error": {"type": kind, "message": "slow down"}}


@given(st.text(st.characters(), max_size=60))
def test_a_failure_of_any_wording_is_one_event(message: str) -> None:
    stream = anthropic.EventWriter().failure("api_error", message)
    head, data, end = stream.decode().split("\n", 2)
    assert (head, end) == ("event: error", "\n")
    assert json.loads(data.removeprefix("data: "))["error"]["message"] == message


def test_the_page_of_models_has_the_members_that_clients_read() -> None:
    page = json.loads(anthropic.models_page([("a", "A"), ("b", "B")]))
    assert [(each["id"], each["display_name"], each["type"]) for each in page["data"]] == [
        ("a", "A", "model"),
        ("b", "B", "model"),
    ]
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a", "b", False)
    assert json.loads(anthropic.models_page([]))["first_id"] is None
