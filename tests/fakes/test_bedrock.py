"""The emulator's frames by botocore's parser, the implementation that clients have: each fault is the fault it says."""

from __future__ import annotations

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer, EventStreamMessage, InvalidPayloadLength

from tests.fakes.bedrock import BODIES, HEADS, SILENT_BODY, InBody

FAULTS = {fault.name: fault for fault in (*BODIES, SILENT_BODY)}


def read(data: bytes) -> list[EventStreamMessage]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return list(buffer)


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in HEADS}) == len(HEADS)
    assert len({fault.name for fault in BODIES}) == len(BODIES)


@pytest.mark.parametrize("fault", [fault for fault in BODIES if "xception" in fault.name], ids=lambda f: f.name)
def test_an_exception_is_one_to_botocore(fault: InBody) -> None:
    (message,) = read(fault.sent)
    answer = message.to_response_dict()
    assert answer["status_code"] == 400, "what makes botocore raise an EventStreamError"
    assert answer["headers"][":exception-type"] in fault.sent.decode("latin-1")
    assert b"in the stream" in answer["body"]


@pytest.mark.parametrize("name", ["protocol_error", "error_event", "large_frame"])
def test_other_frames_are_whole(name: str) -> None:
    (message,) = read(FAULTS[name].sent)
    assert message.to_response_dict()["status_code"] == (400 if name == "protocol_error" else 200)


@pytest.mark.parametrize("name", ["bad_crc", "bad_prelude", "junk"])
def test_corruption_is_found_by_botocore_too(name: str) -> None:
    with pytest.raises(ChecksumMismatch):
        read(FAULTS[name].sent)


def test_the_giant_announces_more_than_any_parser_takes() -> None:
    with pytest.raises(InvalidPayloadLength):
        read(FAULTS["giant_frame"].sent)


@pytest.mark.parametrize("name", ["truncated_frame", "cut", "reset", "silence", "slow"])
def test_the_others_hold_no_frame(name: str) -> None:
    assert read(FAULTS[name].sent) == []
