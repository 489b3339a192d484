"""The frame parser against botocore's, which reads the same bytes by its own code."""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from itertools import pairwise

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.streams.eventstream import MOST_BYTES, EventStreamError, FrameParser, encode
from llmgw_gateway.streams.frames import Frame

STRING = 7


@dataclass(frozen=True)
class Header:
    """A header of any type, as it stands in the bytes."""

    name: str
    kind: int
    value: bytes

    def dump(self) -> bytes:
        name = self.name.encode()
        return bytes([len(name)]) + name + bytes([self.kind]) + self.value


def frame(block: bytes, payload: bytes) -> bytes:
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    message = prelude + struct.pack(">I", binascii.crc32(prelude)) + block + payload
    return message + struct.pack(">I", binascii.crc32(message))


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


names = st.text(min_size=1, max_size=30)
values = st.one_of(
    st.tuples(st.sampled_from([0, 1]), st.just(b"")),
    *(
        st.tuples(st.just(kind), st.binary(min_size=size, max_size=size))
        for kind, size in ((2, 1), (3, 2), (4, 4), (5, 8), (8, 8), (9, 16))
    ),
    st.tuples(st.just(6), st.binary(max_size=40).map(sized)),
    st.tuples(st.just(STRING), st.text(max_size=40).map(lambda text: sized(text.encode()))),
)
blocks = st.dictionaries(names, values, max_size=6).map(
    lambda headers: b"".join(Header(name, kind, value).dump() for name, (kind, value) in headers.items())
)
frames = st.builds(frame, blocks, st.binary(max_size=200))
streams = st.lists(frames, min_size=1, max_size=5)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in portions such as a network makes them: whole, single bytes, or anything between."""
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12) | st.just(list(range(len(data)))))
    edges = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges)]


def ours(portions: list[bytes]) -> tuple[list[Frame], bool]:
    """The frames, and whether the stream was found to be corrupt."""
    parser = FrameParser()
    found: list[Frame] = []
    try:
        for portion in portions:
            found += parser.feed(portion)
        parser.finish()
    except EventStreamError:
        return found, True
    return found, False


def theirs(portions: list[bytes]) -> tuple[list[Frame], bool]:
    """The same by botocore; of its headers only those that are strings, as ours are."""
    buffer = EventStreamBuffer()
    found: list[Frame] = []
    try:
        for portion in portions:
            buffer.add_data(portion)
            for message in buffer:
                strings = {name: value for name, value in message.headers.items() if type(value) is str}
                found.append(Frame(strings, message.payload))
    except ParserError:
        return found, True
    return found, False


@given(streams, st.data())
def test_any_stream_in_any_split_is_read_as_botocore_reads_it(stream: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(stream)
    found, corrupt = ours(data.draw(split(whole)))
    assert not corrupt
    assert (found, corrupt) == theirs([whole])


@given(streams, st.data())
def test_what_may_be_passed_on_is_whole_frames_and_loses_no_byte(stream: list[bytes], data: st.DataObject) -> None:
    parser, passed = FrameParser(), b""
    for portion in data.draw(split(b"".join(stream))):
        count = len(parser.feed(portion))
        again, corrupt = ours([parser.taken])
        assert (len(again), corrupt) == (count, False)
        passed += parser.taken
    assert passed == b"".join(stream)


@given(streams, st.data())
def test_a_flipped_bit_is_never_taken_for_data(stream: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(b"".join(stream))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    found, corrupt = ours(data.draw(split(bytes(whole))))
    assert corrupt
    good = theirs([b"".join(stream)])[0]
    assert found == good[: len(found)]


@given(streams, st.data())
def test_frames_before_a_corrupt_one_are_not_lost_however_the_bytes_arrive(
    stream: list[bytes], data: st.DataObject
) -> None:
    # They may carry the usage of the whole answer.
    bad = bytearray(data.draw(frames))
    bad[data.draw(st.integers(0, len(bad) - 1))] ^= 1
    whole = b"".join(stream) + bytes(bad)
    found, corrupt = ours(data.draw(split(whole)))
    assert corrupt
    assert found == theirs([b"".join(stream)])[0]


@given(streams, st.data())
def test_a_stream_that_ends_inside_a_frame_is_not_complete(stream: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(stream)
    edges = {len(b"".join(stream[:count])) for count in range(len(stream) + 1)}
    end = data.draw(st.integers(0, len(whole)))
    assert ours([whole[:end]])[1] is (end not in edges)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_at_worst_an_event_stream_error(junk: bytes) -> None:
    assert ours([junk])[1] is bool(junk)


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_headers_of_any_kind_are_at_worst_an_event_stream_error(block: bytes, payload: bytes) -> None:
    found, corrupt = ours([frame(block, payload)])
    assert corrupt or found[0].payload == payload


@pytest.mark.parametrize(
    ("total", "headers"),
    [(MOST_BYTES + 1, 0), (2**32 - 1, 0), (2**32 - 1, 2**32 - 17), (0, 0), (15, 0), (16, 1), (100, 85)],
)
def test_impossible_lengths_are_refused_before_a_byte_of_the_frame_is_there(total: int, headers: int) -> None:
    lengths = struct.pack(">II", total, headers)
    with pytest.raises(EventStreamError, match="impossible lengths"):
        FrameParser().feed(lengths + struct.pack(">I", binascii.crc32(lengths)))


def test_a_wrong_checksum_of_the_lengths_alone_is_refused_as_soon_as_it_is_there() -> None:
    whole = bytearray(frame(b"", b"payload"))
    whole[11] ^= 1
    whole[-4:] = struct.pack(">I", binascii.crc32(whole[:-4]))  # the frame's own is right
    assert theirs([bytes(whole)])[1]
    with pytest.raises(EventStreamError, match="prelude"):
        FrameParser().feed(bytes(whole[:12]))


def test_what_follows_an_exception_is_no_part_of_the_answer_and_not_kept() -> None:
    parser = FrameParser()
    fault = encode({":message-type": "exception", ":exception-type": "throttlingException"}, b"")
    assert len(parser.feed(fault + b"more")) == 1
    assert parser.taken == fault
    assert (parser.feed(frame(b"", b"more")), parser.taken) == ([], b"")
    parser.finish()


def test_the_smallest_frame_and_the_largest_header_block_are_read() -> None:
    assert ours([frame(b"", b"")]) == ([Frame({}, b"")], False)
    value = "v" * 65_535
    assert ours([encode({"name": value}, b"p")]) == ([Frame({"name": value}, b"p")], False)


@pytest.mark.parametrize("kind", [10, 11, 127, 255])
def test_a_header_of_a_type_that_nobody_defined_is_refused(kind: int) -> None:
    # Its length is unknown, so everything after it would be guessed.
    assert ours([frame(Header("name", kind, sized(b"value")).dump(), b"")])[1]


@given(st.dictionaries(names, st.text(max_size=60), max_size=6), st.binary(max_size=300))
def test_what_we_encode_botocore_reads(headers: dict[str, str], payload: bytes) -> None:
    assert theirs([encode(headers, payload)]) == ([Frame(headers, payload)], False)


@pytest.mark.parametrize(
    ("headers", "exception"),
    [
        ({":message-type": "event", ":event-type": "chunk"}, None),
        ({}, None),
        ({":message-type": "exception", ":exception-type": "throttlingException"}, "throttlingException"),
        ({":message-type": "exception"}, "unknownException"),
        ({":message-type": "error", ":error-code": "InternalError"}, "InternalError"),
        ({":message-type": "error"}, "unknownError"),
        # The type of an exception without the message type is only a header.
        ({":message-type": "event", ":exception-type": "throttlingException"}, None),
    ],
)
def test_exceptions_are_told_from_events(headers: dict[str, str], exception: str | None) -> None:
    assert Frame(headers, b"").exception == exception
