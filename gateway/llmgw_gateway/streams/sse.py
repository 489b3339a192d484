"""Server-sent events in the Anthropic format, read and written: an `event:` line, a `data:` line, a blank line.

Source: HTML standard, section 9.2 (Server-sent events).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from llmgw_gateway.streams.eventstream import MOST_BYTES, EventStreamError
from llmgw_gateway.streams.frames import Frame

PING: Final[bytes] = b'event: ping\ndata: {"type": "ping"}\n\n'
_LINE_END: Final = rb"(?>\r\n|\n|\r)"
_LINES: Final = re.compile(_LINE_END)
_BLANK: Final = re.compile(_LINE_END + _LINE_END)
_MARK: Final = b"\xef\xbb\xbf"
_ERROR: Final = b"error"
LONGEST_END: Final = 4
"""Bytes of the longest end of an event."""


def encode(kind: str, data: bytes) -> bytes:
    """One event. `data` is JSON without line breaks, as every upstream sends it; one that has some is folded."""
    if b"\n" in data or b"\r" in data:
        # In JSON a line break can only stand between members: inside a string it is escaped.
        data = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"%b%b\n\n" % (_opening(kind), data)


@lru_cache(maxsize=64)
def _opening(kind: str) -> bytes:
    """How an event begins, remembered: there are a dozen types."""
    return f"event: {kind}\ndata: ".encode()


class EventParser:
    """Collects bytes in any split and gives events as they become complete, as `FrameParser` does with frames.

    An event is a frame without headers, whose payload is the event's data.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begun = False
        self.taken = b""
        """The bytes of the events that the last `feed` returned: whole events only, fit to be passed on."""
        self.ended = False
        """Whether an `error` event was read: it ends the stream, and what follows it is no part of the answer."""

    def feed(self, data: bytes) -> list[Frame]:
        """Add bytes and return the events that are now complete. EventStreamError for one that is too large."""
        self.taken = b""
        if self.ended:
            return []
        if not self._begun:
            data, self._buffer = bytes(self._buffer) + data, bytearray()
            self._begun = len(data) >= len(_MARK)
            data = data.removeprefix(_MARK)
        searched = max(0, len(self._buffer) - LONGEST_END)
        buffer: bytes | bytearray = data  # nearly every read is of whole events: nothing to collect
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        events: list[Frame] = []
        start = 0
        while not self.ended and (blank := _BLANK.search(buffer, max(start, searched))) is not None:
            kind, found = _event(bytes(buffer[start : blank.start()]))
            start = blank.end()
            if found is not None:
                events.append(Frame({}, found))
                self.ended = kind == _ERROR
        self.taken = bytes(buffer[:start])
        if self.ended:
            self._buffer.clear()
        elif buffer is self._buffer:
            del self._buffer[:start]
        elif start < len(data):
            self._buffer += data[start:]
        if len(self._buffer) > MOST_BYTES:
            raise EventStreamError(f"an event is larger than {MOST_BYTES} bytes")
        return events

    def finish(self) -> None:
        """Say that no more bytes come; EventStreamError when an event is incomplete."""
        if self._buffer.strip():
            raise EventStreamError(f"the stream ended inside an event ({len(self._buffer)} bytes of it came)")


def inner_event(frame: Frame) -> bytes:
    """The event itself."""
    return frame.payload


def _event(block: bytes) -> tuple[bytes, bytes | None]:
    """Name and data of the lines of one event; no data: it is none, such as a comment."""
    kind, data = b"", list[bytes]()
    for line in _LINES.split(block):
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            kind = value.removeprefix(b" ")
    return kind, b"\n".join(data) if data else None
