"""AWS event streams (`application/vnd.amazon.eventstream`): bytes in, frames out, no I/O.

Source of the format: "Amazon Event Stream Specification" of the Smithy documentation. A frame is total length and
headers length (4 bytes each, big-endian), the CRC-32 of these 8 bytes, headers, payload, the CRC-32 of all before it.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Final

from llmgw_gateway.streams.frames import Frame

PRELUDE: Final = 12
TRAILER: Final = 4
MOST_BYTES: Final = 16 * 1024 * 1024
"""The largest frame by the specification; checked before anything is buffered for it."""
USUAL_BYTES: Final = 256
"""Headers up to this size are remembered."""
_BYTES: Final = 6
_STRING: Final = 7
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Header types with values of a fixed size: booleans, integers, timestamp, UUID."""
_lengths: Final = struct.Struct(">II")
_prelude: Final = struct.Struct(">III")
_crc: Final = struct.Struct(">I")
_short: Final = struct.Struct(">H")


class EventStreamError(ValueError):
    """The bytes are no valid event stream: what follows cannot be trusted."""


class FrameParser:
    """Collects bytes in any split and gives frames as they become complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fault: EventStreamError | None = None
        self.taken = b""
        """The bytes of the frames that the last `feed` returned: whole frames only, fit to be passed on."""
        self.ended = False
        """Whether an exception frame was read: it ends the stream, and what follows it is no part of the answer."""

    def feed(self, data: bytes) -> list[Frame]:
        """Add bytes and return the frames that are now complete.

        EventStreamError on a wrong length or checksum, once the good frames ahead of it were returned: they may carry
        the usage of the whole answer.
        """
        if self._fault is not None:
            raise self._fault
        if self.ended:
            self.taken = b""
            return []
        buffer: bytes | bytearray = data  # nearly every read is of whole frames: nothing to collect
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        frames: list[Frame] = []
        start, size = 0, len(buffer)
        try:
            while size - start >= PRELUDE:
                total, headers_length = _lengths_at(buffer, start)
                end = start + total
                if end > size:
                    break
                frame = _frame(buffer, start, start + PRELUDE + headers_length, end - TRAILER)
                frames.append(frame)
                start = end
                if frame.headers.get(":message-type") != "event" and frame.exception is not None:
                    self.ended = True
                    break
        except EventStreamError as fault:
            self._fault = fault
            if not frames:
                raise
        if start == size and buffer is data:
            self.taken = data
        else:
            self.taken = bytes(buffer[:start])
            self._keep(data, buffer, start)
        return frames

    def _keep(self, data: bytes, buffer: bytes | bytearray, start: int) -> None:
        """Keep what is no whole frame yet."""
        if self.ended:
            self._buffer.clear()
        elif buffer is self._buffer:
            del self._buffer[:start]
        elif start < len(data):
            self._buffer += data[start:]

    def finish(self) -> None:
        """Say that no more bytes come; EventStreamError when a frame is corrupt or incomplete."""
        if self._fault is not None:
            raise self._fault
        if self._buffer:
            raise EventStreamError(f"the stream ended inside a frame ({len(self._buffer)} bytes of it came)")


def _lengths_at(buffer: bytes | bytearray, start: int) -> tuple[int, int]:
    """Of the frame at `start` and of its headers. Judged before anything is buffered."""
    total, headers_length, checksum = _prelude.unpack_from(buffer, start)
    if zlib.crc32(buffer[start : start + 8]) != checksum:
        raise EventStreamError("the checksum of a frame's prelude is wrong")
    if total > MOST_BYTES or headers_length > total - PRELUDE - TRAILER:
        raise EventStreamError(f"a frame announces impossible lengths: {total} and {headers_length} bytes")
    return total, headers_length


def _frame(buffer: bytes | bytearray, start: int, body: int, checked: int) -> Frame:
    """The frame that stands there; its lengths are known to be good. `checked`: where its checksum stands."""
    if zlib.crc32(buffer[start:checked]) != _crc.unpack_from(buffer, checked)[0]:
        raise EventStreamError("the checksum of a frame is wrong")
    block = bytes(buffer[start + PRELUDE : body])
    found = _usual_headers(block) if len(block) <= USUAL_BYTES else _headers(block)
    return Frame(found, bytes(buffer[body:checked]))


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


@lru_cache(maxsize=64)
def _usual_headers(block: bytes) -> dict[str, str]:
    """The same, remembered: all events of a stream have the same few headers, byte for byte."""
    return _headers(block)


def _headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    names: set[str] = set()
    position = 0
    try:
        while position < len(block):
            length = block[position]
            name = block[position + 1 : position + 1 + length].decode()
            if name in names:
                raise EventStreamError(f"a frame has the header {name[:40]!r} twice")
            names.add(name)
            kind = block[position + 1 + length]
            position += length + 2
            if kind in _FIXED:
                position += _FIXED[kind]
                continue
            if kind not in {_BYTES, _STRING}:
                raise EventStreamError(f"a frame's header has the unknown type {kind}")
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
