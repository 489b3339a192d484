"""The meter: usage is never lost, an explicit zero is no absence, and no byte makes it fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.call import Usage
from llmgw_gateway.streams.meter import Meter, event_type

STOP = {"type": "message_stop"}
counts = st.integers(0, 10**8)


def start(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "usage": usage}}


def delta(**usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


def metered(*events: dict[str, Any]) -> Meter:
    meter = Meter()
    for event in events:
        assert meter.event(json.dumps(event, separators=(",", ":")).encode()) == event["type"]
    return meter


def test_an_ordinary_answer_is_complete_and_every_class_counted() -> None:
    meter = metered(
        start(
            input_tokens=10,
            output_tokens=1,
            cache_read_input_tokens=20,
            cache_creation_input_tokens=70,
            cache_creation={"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 40},
        ),
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        delta(output_tokens=50),
        STOP,
    )
    assert meter.usage == Usage(input=10, output=50, cache_read=20, cache_write_5m=30, cache_write_1h=40)
    assert meter.completeness == "complete"
    assert (meter.started, meter.stopped) == (True, True)


def test_a_final_event_that_repeats_the_cache_total_keeps_the_one_hour_share() -> None:
    # The usage of `message_delta` has the total, but not the split; an hour costs more to write than five minutes.
    split = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 40}
    meter = metered(
        start(input_tokens=10, output_tokens=1, cache_creation_input_tokens=70, cache_creation=split),
        delta(input_tokens=10, output_tokens=50, cache_creation_input_tokens=70, cache_read_input_tokens=0),
        STOP,
    )
    assert (meter.usage.cache_write_5m, meter.usage.cache_write_1h) == (30, 40)


@pytest.mark.parametrize(
    ("usage", "five", "hour"),
    [
        ({"cache_creation_input_tokens": 70}, 70, 0),
        ({"cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 40}}, 30, 40),
        ({"cache_creation_input_tokens": 70, "cache_creation": {"ephemeral_1h_input_tokens": 40}}, 30, 40),
        ({"cache_creation_input_tokens": 70, "cache_creation": None}, 70, 0),
        ({"cache_creation_input_tokens": 0, "cache_creation": {}}, 0, 0),
        # When total and split disagree, no token that any of them names is forgotten.
        ({"cache_creation_input_tokens": 0, "cache_creation": {"ephemeral_5m_input_tokens": 5}}, 5, 0),
        ({"cache_creation_input_tokens": 90, "cache_creation": {"ephemeral_5m_input_tokens": 5}}, 90, 0),
    ],
)
def test_cache_writes_are_split_by_their_life(usage: dict[str, Any], five: int, hour: int) -> None:
    seen = metered(start(**usage)).usage
    assert (seen.cache_write_5m, seen.cache_write_1h) == (five, hour)


MEMBERS = {"input_tokens": "input", "output_tokens": "output", "cache_read_input_tokens": "cache_read"}


@given(st.lists(st.dictionaries(st.sampled_from(sorted(MEMBERS)), counts | st.none()), min_size=1, max_size=6))
def test_each_class_is_what_was_said_of_it_last_and_silence_says_nothing(said: list[dict[str, int | None]]) -> None:
    meter = metered(*(start(**usage) if number == 0 else delta(**usage) for number, usage in enumerate(said)))
    for member, name in MEMBERS.items():
        known = [usage[member] for usage in said if usage.get(member) is not None]
        assert getattr(meter.usage, name) == (known[-1] if known else 0)


def test_an_explicit_zero_is_a_zero_and_an_absent_member_leaves_what_is_known() -> None:
    assert metered(start(input_tokens=9, output_tokens=3), delta(output_tokens=0)).usage == Usage(input=9, output=0)
    assert metered(start(input_tokens=9, output_tokens=3), delta()).usage == Usage(input=9, output=3)
    assert metered(start(input_tokens=9), delta(input_tokens=0, output_tokens=3)).usage == Usage(output=3)


@pytest.mark.parametrize(
    ("events", "completeness"),
    [
        ([], "none"),
        ([{"type": "ping"}], "none"),
        ([{"type": "message_start", "message": {"id": "msg_1"}}], "none"),
        ([start(input_tokens=5, output_tokens=1)], "partial"),
        # The last delta says why the answer ended; its count is the whole answer's, whether or not the end arrives.
        ([start(input_tokens=5, output_tokens=1), delta(output_tokens=7)], "complete"),
        ([start(input_tokens=5), {"type": "message_delta", "usage": {"output_tokens": 7}}], "partial"),
        ([start(input_tokens=5), {"type": "message_delta", "delta": 1, "usage": {"output_tokens": 7}}], "partial"),
        ([start(input_tokens=5), {"type": "message_delta", "usage": {"output_tokens": 7}}, STOP], "complete"),
        # Without the prompt it would be nearly free.
        ([start(output_tokens=1), delta(output_tokens=7), STOP], "partial"),
        ([start(input_tokens=5, output_tokens=1), delta(output_tokens=7), STOP], "complete"),
        ([start(input_tokens=0, output_tokens=0), delta(output_tokens=0), STOP], "complete"),
        # The output of `message_start` is a beginning, not a result.
        ([start(input_tokens=5, output_tokens=1), STOP], "partial"),
        ([start(input_tokens=5), delta(), STOP], "partial"),
        ([start(cache_read_input_tokens=9), delta(output_tokens=7), STOP], "partial"),
        ([start(output_tokens=1), delta(input_tokens=5, output_tokens=7), STOP], "complete"),
        ([STOP], "none"),
    ],
)
def test_an_answer_is_complete_only_with_its_prompt_its_output_and_its_end(
    events: list[dict[str, Any]], completeness: str
) -> None:
    assert metered(*events).completeness == completeness


def test_a_message_that_started_is_known_to_be_paid_for() -> None:
    assert not metered({"type": "ping"}).started
    assert metered(start(input_tokens=1)).started
    assert not metered(start(input_tokens=1)).stopped


@given(counts, counts, counts)
def test_a_whole_answer_is_metered_like_a_stream(prompt: int, output: int, cached: int) -> None:
    usage = {"input_tokens": prompt, "output_tokens": output, "cache_read_input_tokens": cached}
    meter = Meter()
    meter.answer(json.dumps({"type": "message", "content": [], "usage": usage}).encode())
    assert (meter.usage, meter.completeness) == (Usage(prompt, output, cached), "complete")


@pytest.mark.parametrize(
    ("body", "completeness"),
    [
        (b"", "none"),
        (b"{}", "none"),
        (b"<html>", "none"),
        (b'{"usage": null}', "none"),
        (b'{"usage": {"input_tokens": 5}}', "partial"),
        (b'{"usage": {"output_tokens": 5}}', "partial"),
        (b'{"usage": {"input_tokens": null, "output_tokens": 5}}', "partial"),
        (b'{"usage": {"input_tokens": 5, "output_tokens": 0}}', "complete"),
    ],
)
def test_a_whole_answer_without_its_prompt_or_its_output_is_not_complete(body: bytes, completeness: str) -> None:
    meter = Meter()
    meter.answer(body)
    assert meter.completeness == completeness


PASSES = [
    {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500, "cache_read_input_tokens": 10},
    {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000, "cache_creation_input_tokens": 20},
]
LAST = {"input_tokens": 23_000, "output_tokens": 1_000, "cache_creation_input_tokens": 20}


def test_of_an_answer_in_several_passes_all_are_counted() -> None:
    # The top level has the numbers of the last pass only; a compaction before it is billed besides.
    whole = Usage(input=203_000, output=4_500, cache_read=10, cache_write_5m=20)
    meter = Meter()
    meter.answer(json.dumps({"usage": LAST | {"iterations": PASSES}}).encode())
    assert (meter.usage, meter.completeness) == (whole, "complete")
    stream = metered(start(input_tokens=23_000, output_tokens=1), delta(**LAST, iterations=PASSES), STOP)
    assert (stream.usage, stream.completeness) == (whole, "complete")


def test_a_single_pass_that_is_not_in_the_top_level_is_counted() -> None:
    meter = Meter()
    meter.answer(json.dumps({"usage": {"input_tokens": 0, "output_tokens": 0, "iterations": PASSES[:1]}}).encode())
    assert meter.usage == Usage(input=180_000, output=3_500, cache_read=10)


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_a_pass_without_its_numbers_makes_the_whole_unknown(name: str) -> None:
    known = [PASSES[0], {key: value for key, value in PASSES[1].items() if key != name}]
    meter = Meter()
    meter.answer(json.dumps({"usage": LAST | {"iterations": known}}).encode())
    assert meter.completeness == "partial"


scraps = st.sampled_from(
    [
        *(b'{"type":"message_start"', b'{"type":"message_delta","usage":{', b'"usage":', b'"message":{', b"}", b"{"),
        *(b'"output_tokens":', b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"null", b'"', b"\xff", b"\\ud800", b","),
        *(b'"cache_creation":', b"[", b"]", b"NaN", b"\x00", b"true", b'{"type" :"', b"[" * 3000),
    ]
)


@given(st.binary(max_size=60) | st.lists(scraps, max_size=10).map(b"".join))
@example(b'{"type" :"\xff"}')
@example(b'{"type":"message_start","message":{"usage":{"\xff":1}}}')
@example(b'{"type":"message_start","a":' + b"[" * 100_000)
@example(b'{"a":' + b"[" * 100_000)
@example(b'{"type":"message_delta","usage":{"output_tokens":-5}}')
@example(b'{"type":"')
def test_bytes_of_any_kind_neither_raise_nor_take_away_what_is_known(junk: bytes) -> None:
    meter = metered(start(input_tokens=11, cache_read_input_tokens=3))
    meter.event(junk)
    meter.answer(junk)
    assert meter.completeness != "none"
    for count in (meter.usage.input, meter.usage.output, meter.usage.cache_read, meter.usage.prompt):
        assert count >= 0
    event_type(junk)


@given(
    st.sampled_from(["message_start", "message_delta", "message_stop", "content_block_delta", "ping"]), st.booleans()
)
def test_the_type_is_found_wherever_it_stands(kind: str, first: bool) -> None:  # noqa: FBT001 -- drawn
    members = {"type": kind, "index": 0} if first else {"index": 0, "type": kind}
    for separators in ((",", ":"), (", ", ": ")):
        assert event_type(json.dumps(members, separators=separators).encode()) == kind


@pytest.mark.parametrize("name", ["input_tokens", "output_tokens", "cache_read_input_tokens"])
def test_a_count_beyond_reason_is_unknown_not_believed(name: str) -> None:
    """A number that no model can reach would empty a budget for good."""
    usage = {"input_tokens": 1, "output_tokens": 2} | {name: 100_000_001}
    meter = Meter()
    meter.answer(json.dumps({"usage": usage}).encode())
    assert (meter.usage, meter.completeness) == (Usage(), "none")
    for event in (start(**usage), {"type": "message_delta", "usage": usage}, STOP):
        meter.event(json.dumps(event).encode())
    assert (meter.usage, meter.completeness) == (Usage(), "none")
    usage[name] = 100_000_000
    meter.answer(json.dumps({"usage": usage}).encode())
    assert meter.completeness == "complete"
