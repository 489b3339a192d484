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
_checksum_at: Final = _crc.unpack_from
_crc32: Final = zlib.crc32


class EventStreamError(ValueError):
    """The bytes are no valid event stream: what follows cannot be trusted."""


class FrameParser:
    """Collects bytes in any split and gives frames as they become complete."""

    def __init__(self) -> None:
        self._begun = bytearray()
        """What came of a frame that is not whole."""
        self._wanted = PRELUDE
        """How many bytes of it there have to be before another look at it is worth it."""
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
        frames: list[Frame] = []
        self.taken = b""
        if self._begun or self.ended:  # seldom: nearly every read is of whole frames
            data = self._collected(data)
        start, size = 0, len(data)
        wanted = PRELUDE
        try:
            while size - start >= PRELUDE:
                total, headers_length = _usual_lengths(data[start : start + PRELUDE])
                if total > size - start:
                    wanted = total
                    break
                frame = _frame(data, start, start + PRELUDE + headers_length, start + total - TRAILER)
                frames.append(frame)
                start += total
                if frame.headers.get(":message-type") != "event" and frame.exception is not None:
                    self.ended = True
                    break
        except EventStreamError as fault:
            self._fault = fault
            if not frames:
                raise
        if start == size:
            self.taken = data
        else:
            self.taken = data[:start]
            if not self.ended:
                self._begun += data[start:]
                self._wanted = wanted
        return frames

    def _collected(self, data: bytes) -> bytes:
        """With what came before, as soon as that is worth a look; nothing until then, nor after the end."""
        if self.ended:
            return b""
        self._begun += data
        if len(self._begun) < self._wanted:
            return b""
        data = bytes(self._begun)
        self._begun.clear()
        return data

    def finish(self) -> None:
        """Say that no more bytes come; EventStreamError when a frame is corrupt or incomplete."""
        if self._fault is not None:
            raise self._fault
        if self._begun:
            raise EventStreamError(f"the stream ended inside a frame ({len(self._begun)} bytes of it came)")


@lru_cache(maxsize=1024)
def _usual_lengths(prelude: bytes) -> tuple[int, int]:
    """Of a frame and its headers, judged before any of it is kept. Remembered: pieces of an answer are much alike."""
    total, headers_length, checksum = _prelude.unpack(prelude)
    if _crc32(prelude[:8]) != checksum:
        raise EventStreamError("the checksum of a frame's prelude is wrong")
    if total > MOST_BYTES or headers_length > total - PRELUDE - TRAILER:
        raise EventStreamError(f"a frame announces impossible lengths: {total} and {headers_length} bytes")
    return total, headers_length


def _frame(data: bytes, start: int, body: int, checked: int) -> Frame:
    """The frame that stands there; its lengths are known to be good. `checked`: where its checksum stands."""
    if _crc32(data[start:checked]) != _checksum_at(data, checked)[0]:
        raise EventStreamError("the checksum of a frame is wrong")
    block = data[start + PRELUDE : body]
    found = _usual_headers(block) if len(block) <= USUAL_BYTES else _headers(block)
    return Frame(found, data[body:checked])


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
    message = prelude + _crc.pack(_crc32(prelude)) + block + payload
    return message + _crc.pack(_crc32(message))


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
