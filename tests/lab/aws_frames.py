"""`application/vnd.amazon.eventstream`: written here, read with botocore's own parser.

Independent of the gateway's implementation on purpose: two that agree are worth more than one that agrees with itself.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import TYPE_CHECKING, Any

from botocore.eventstream import EventStreamBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator

STRING = 7


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message: prelude, its CRC, headers, payload, CRC of it all."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", 12 + len(head) + len(payload) + 4, len(head))
    message = prelude + crc(prelude) + head + payload
    return message + crc(message)


def crc(data: bytes) -> bytes:
    """The checksum as it stands in a frame."""
    return struct.pack(">I", binascii.crc32(data))


def chunk(event: dict[str, Any]) -> bytes:
    """An Anthropic event as Bedrock sends it."""
    payload = {"bytes": base64.b64encode(json.dumps(event, separators=(",", ":")).encode()).decode(), "p": "abcdefgh"}
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(payload).encode())


def event(kind: str, payload: dict[str, Any]) -> bytes:
    """An event of Converse: its type stands in a header."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(payload).encode())


def exception(kind: str, message: str) -> bytes:
    """An error in the middle of a stream, such as `throttlingException`."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())


class EventReader:
    """Feeds on the bytes of a stream in any portions; yields the Anthropic events in it. CRC faults raise."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()

    @property
    def empty(self) -> bool:
        """Whether all that was fed has been read."""
        return not self._buffer._data  # botocore has no other way to ask

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        self._buffer.add_data(data)
        for message in self._buffer:
            headers = message.headers
            if headers.get(":message-type") == "error":
                yield {"type": "exception", "kind": headers[":error-code"], "message": headers[":error-message"]}
                continue
            payload = json.loads(message.payload)
            if headers.get(":message-type") == "exception":
                yield {"type": "exception", "kind": headers[":exception-type"], **payload}
            else:
                yield json.loads(base64.b64decode(payload["bytes"]))


def _header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + bytes([STRING]) + struct.pack(">H", len(value)) + value.encode()
