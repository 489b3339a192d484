"""Writing an answer: each dialect's own bytes, and a failure that its client understands."""

from __future__ import annotations

import base64
import json

import pytest
from botocore.eventstream import EventStreamBuffer, EventStreamMessage
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.dialects import anthropic, bedrock
from llmgw_gateway.streams.frames import Frame
from llmgw_gateway.streams.meter import Meter
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


EVENTS = (
    b'{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}',
    b'{"type":"content_block_start","index":0}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word"}}',
    b'{"type":"content_block_delta"}',
    b'{"type":"content_block_delta_of_tomorrow","index":0}',
    b'{"index":0,"type":"content_block_delta"}',
    b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}',
    b'{"type":"message_stop"}',
)


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_what_is_passed_on_is_metered_as_if_it_were_read(events: list[bytes]) -> None:
    passed, read = Meter(), Meter()
    for event in events:
        frame = Frame({}, json.dumps({"bytes": base64.b64encode(event).decode(), "p": "abc"}).replace(" ", "").encode())
        assert passed.event(bedrock.passed_event(frame) or b"") == read.event(bedrock.inner_event(frame) or b"")
        assert vars(passed) == vars(read)


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


def test_what_an_upstream_of_the_same_format_wrote_is_passed_through() -> None:
    raw = b"event: x\r\ndata: {}\r\n\r\n"
    assert anthropic.PassThrough().write(raw, [("x", b"{}")], None) is raw
    assert anthropic.PassThrough().keepalive == anthropic.EventWriter.keepalive


def chunks_of(*events: bytes) -> list[EventStreamMessage]:
    """Events of an upstream in the Anthropic format, as botocore reads what a client of Bedrock gets."""
    meter = Meter()
    writer, buffer = bedrock.ChunkWriter(meter), EventStreamBuffer()
    for event in events:
        buffer.add_data(writer.write(b"unused", [(meter.event(event), event)], None))
    return list(buffer)


def test_events_become_chunks_and_the_last_one_counts_as_bedrock_s_does() -> None:
    start = b'{"type":"message_start","message":{"usage":{"input_tokens":3,"cache_read_input_tokens":4}}}'
    delta = b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}'
    messages = chunks_of(start, delta, b'{"type":"message_stop"}')
    assert all(message.headers[":event-type"] == "chunk" for message in messages)
    told = [base64.b64decode(json.loads(message.payload)["bytes"]) for message in messages]
    assert told[:2] == [start, delta]
    assert json.loads(told[2])["amazon-bedrock-invocationMetrics"] == {
        "inputTokenCount": 3,
        "outputTokenCount": 5,
        "cacheReadInputTokenCount": 4,
        "cacheWriteInputTokenCount": 0,
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("overloaded_error", "serviceUnavailableException"),
        ("rate_limit_error", "throttlingException"),
        ("invalid_request_error", "validationException"),
        ("api_error", "internalServerException"),
    ],
)
def test_an_error_event_becomes_an_exception(kind: str, name: str) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "because"}}
    (message,) = chunks_of(json.dumps(error).encode())
    assert (message.headers[":exception-type"], json.loads(message.payload)) == (name, {"message": "because"})


@pytest.mark.parametrize(
    ("status", "billed", "told"),
    [(500, True, 424), (502, True, 424), (504, True, 408), (500, False, 500), (529, False, 503), (529, True, 529)],
)
def test_what_may_have_been_billed_is_nothing_that_boto3_repeats(status: int, *, billed: bool, told: int) -> None:
    body = b'{"type":"error","error":{"type":"api_error","message":"because"}}'
    found, said = bedrock.refusal(status, body, billed=billed)
    assert (found, json.loads(said)["message"]) == (told, "because")


@pytest.mark.parametrize("body", [b'{"message":"AWS says"}', b"<html>", b"[]", b'{"error":"text"}'])
def test_what_is_no_refusal_in_the_anthropic_format_stays_as_it_is(body: bytes) -> None:
    assert bedrock.refusal(400, body, billed=False) == (400, body)
