"""AWS event streams (`application/vnd.amazon.eventstream`): bytes in, frames out, no I/O.

Source of the format: "Amazon Event Stream Specification" of the Smithy documentation. A frame is total length and
headers length (4 bytes each, big-endian), the CRC-32 of these 8 bytes, headers, payload, the CRC-32 of all before it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

PRELUDE = 12
TRAILER = 4
MOST_BYTES = 16 * 1024 * 1024
"""The largest frame by the specification; checked before anything is buffered for it."""
_STRING = 7
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Header types with values of a fixed size: booleans, integers, timestamp, UUID."""
_lengths = struct.Struct(">II")
_crc = struct.Struct(">I")
_short = struct.Struct(">H")


class EventStreamError(ValueError):
    """The bytes are no valid event stream: what follows cannot be trusted."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. Only string headers are kept: all that decide anything (`:event-type` and its kin) are strings."""

    headers: dict[str, str]
    payload: bytes

    @property
    def exception(self) -> str | None:
        """The name of the exception that this frame reports, or None for an event."""
        kind = self.headers.get(":message-type")
        if kind == "exception":
            return self.headers.get(":exception-type", "unknownException")
        if kind == "error":
            return self.headers.get(":error-code", "unknownError")
        return None


class FrameParser:
    """Collects bytes in any split and gives frames as they become complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.taken = b""
        """The bytes of the frames that the last `feed` returned: whole frames only, fit to be passed on."""

    def feed(self, data: bytes) -> list[Frame]:
        """Add bytes and return the frames that are now complete. EventStreamError on a wrong length or checksum."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= PRELUDE:
            total, headers_length = _lengths.unpack_from(buffer, start)
            if zlib.crc32(buffer[start : start + 8]) != _crc.unpack_from(buffer, start + 8)[0]:
                raise EventStreamError("the checksum of a frame's prelude is wrong")
            if total > MOST_BYTES or headers_length > total - PRELUDE - TRAILER:
                raise EventStreamError(f"a frame announces impossible lengths: {total} and {headers_length} bytes")
            if len(buffer) - start < total:
                break
            end = start + total
            if zlib.crc32(buffer[start : end - TRAILER]) != _crc.unpack_from(buffer, end - TRAILER)[0]:
                raise EventStreamError("the checksum of a frame is wrong")
            body = start + PRELUDE + headers_length
            headers = _headers(bytes(buffer[start + PRELUDE : body]))
            frames.append(Frame(headers, bytes(buffer[body : end - TRAILER])))
            start = end
        self.taken = bytes(buffer[:start])
        del buffer[:start]
        return frames

    def finish(self) -> None:
        """Say that no more bytes come; EventStreamError when a frame is incomplete."""
        if self._buffer:
            raise EventStreamError(f"the stream ended inside a frame ({len(self._buffer)} bytes of it came)")


def encode(headers: dict[str, str], payload: bytes) -> bytes:
    """Build one frame with string headers."""
    block = b"".join(
        bytes([len(name.encode())])
        + name.encode()
        + bytes([_STRING])
        + _short.pack(len(value.encode()))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = _lengths.pack(PRELUDE + len(block) + len(payload) + TRAILER, len(block))
    message = prelude + _crc.pack(zlib.crc32(prelude)) + block + payload
    return message + _crc.pack(zlib.crc32(message))


def _headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    position = 0
    try:
        while position < len(block):
            length = block[position]
            name = block[position + 1 : position + 1 + length].decode()
            kind = block[position + 1 + length]
            position += length + 2
            if kind in _FIXED:
                position += _FIXED[kind]
                continue
            size = _short.unpack_from(block, position)[0]
            value = block[position + 2 : position + 2 + size]
            position += 2 + size
            if kind == _STRING:
                headers[name] = value.decode()
        if position != len(block):
            raise EventStreamError("a frame's headers end inside a value")
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise EventStreamError("a frame's headers cannot be read") from error
    return headers
