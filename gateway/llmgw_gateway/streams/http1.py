"""HTTP/1.1 answers of an upstream: bytes in, head and body out.

Strict where an answer could be taken for another one (RFC 9112): two framings, a length that is none, line ends that
are none are refused, and a connection is used again only after an answer that ended where it said it would. Bodies are
handed on as they come, in any split; nothing is inflated, because nothing compressed is asked for. Pure.
"""

from __future__ import annotations

import re
from typing import Final

MOST_HEAD: Final = 64 * 1024
"""Bytes of status line and headers, or of the trailers of a body."""
MOST_SIZE_LINE: Final = 4096
"""Bytes of the line that says how long a chunk is."""
MOST_INTERIM: Final = 8
"""Answers of the kind "100 Continue" that may come before the real one."""
HEAD_END: Final = b"\r\n\r\n"
FIRST_FINAL: Final = 200
SWITCHING: Final = 101
WITHOUT_BODY: Final = frozenset({204, 304})
_TEXT: Final = rb"[\t\x20-\x7e\x80-\xff]*"
_HEAD: Final = re.compile(
    rb"HTTP/1\.[01] [1-5][0-9]{2}(?: " + _TEXT + rb")?\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:" + _TEXT + rb"\r\n)*\r\n"
)
# Bounded in each of its parts, so that no size line that matches is longer than one that is waited for.
_CHUNK: Final = re.compile(
    rb"([0-9A-Fa-f]{1,8})"
    rb"(?:;[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
    rb"(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}|\"[\t !#-\[\]-~\x80-\xff]{0,126}\"))?){0,16}\r\n"
)
_DIGITS: Final = bytes(int(chr(each), 16) if chr(each) in "0123456789abcdefABCDEF" else 255 for each in range(256))
"""What each byte is worth as a hexadecimal digit; 255: it is none."""
BASE: Final = 16
MOST_DIGITS: Final = 8
"""Of the size of a chunk."""
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:" + _TEXT + rb"\r\n")
# What an interim answer must not say (RFC 9110 section 8.6, RFC 9112 section 6.1): that it has a body, or is the last.
_NOT_INTERIM: Final = re.compile(rb"(?is)HTTP/1\.0|.*\r\n(?:connection:[^\r]*close|content-length:|transfer-encoding:)")
_NUMBER: Final = re.compile(r"[0-9]{1,15}")


class AnswerError(ValueError):
    """The bytes are no HTTP/1.1 answer, or not the whole of one."""


class Head:
    """Status and headers."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        """By lower-case name; the values of one that came several times are joined by commas (RFC 9110 section 5.3)."""


class AnswerParser:
    """Reads one answer to a POST.

    `feed` returns the bytes of the body that came; `head` is there as soon as it is whole, `ended` once nothing
    belongs to the answer any more. `reusable` says then whether the connection is fit for another request.
    """

    __slots__ = ("_chunked", "_interim", "_left", "_rest", "_within", "ended", "head", "reusable")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.ended = False
        self.reusable = False
        self._rest = b""
        """What came and cannot be read without what follows."""
        self._chunked = False
        self._left = -1
        """Bytes to come of the body or the chunk, at most to come of trailers; -1: unknown, or between chunks."""
        self._within = "size"
        """Where in a body of chunks: at a size, in the data, at the end of the data, or in the trailers."""
        self._interim = 0

    def feed(self, data: bytes) -> bytes:
        """Add bytes; returns those of the body. AnswerError when this is no answer."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self.head is None:
            data = data[self._read_head(data) :]
        if self.ended or self.head is None:
            self.reusable = self.reusable and not data  # what nobody asked for
            return b""
        if self._chunked:
            return self._unchunk(data)
        if self._left < 0:
            return data
        self._left -= len(data)
        if self._left > 0:
            return data
        self.ended = True
        if self._left < 0:
            self.reusable = False
            data = data[: self._left]
        return data

    def finish(self) -> None:
        """Say that the connection has ended; AnswerError when the answer has not."""
        if self.ended:
            return
        if self.head is None or self._chunked or self._left > 0:
            raise AnswerError("the connection ended in the middle of the answer")
        self.ended = True

    def _read_head(self, data: bytes) -> int:
        """Look for the head; returns where the body begins."""
        start = 0
        while (end := data.find(HEAD_END, start, start + MOST_HEAD)) >= 0:
            block = data[start : end + len(HEAD_END)]
            if not _HEAD.fullmatch(block):
                raise AnswerError("what came is no HTTP/1.1 answer")
            start += len(block)
            status = int(block[9:12])
            if status >= FIRST_FINAL:
                self._begin(status, block)
                return start
            self._interim += 1
            if status == SWITCHING or self._interim > MOST_INTERIM or _NOT_INTERIM.match(block):
                raise AnswerError(f"the upstream answered {status}, which was not asked for")
        if len(data) - start > MOST_HEAD:
            raise AnswerError("the head of the answer is too large")
        self._rest = data[start:]
        return len(data)

    def _begin(self, status: int, block: bytes) -> None:
        headers: dict[str, str] = {}
        for line in block.decode("latin-1").split("\r\n")[1:-2]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.head = Head(status, headers)
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        is_new = block.startswith(b"HTTP/1.1")
        options = headers.get("connection", "").lower()
        self.reusable = is_new and (not options or "close" not in [each.strip() for each in options.split(",")])
        if coding is not None:
            if coding.lower() != "chunked" or length is not None or not is_new:
                raise AnswerError("the answer says in two ways, or in none, where it ends")
            self._chunked = True
        elif length is not None:
            if not _NUMBER.fullmatch(length):
                raise AnswerError("the answer says in two ways, or in none, where it ends")
            self._left = int(length)
        else:
            self.reusable = False
        if status in WITHOUT_BODY or self._left == 0:
            self.ended = True

    def _unchunk(self, data: bytes) -> bytes:
        """The data of chunks; nearly every read is of whole ones."""
        if self._within == "size" and (begin := _whole_chunk(data)):
            return data[begin:-2]
        size = len(data)
        found: list[bytes] = []
        position = 0
        while 0 <= position < size and not self.ended:
            if self._within == "size":
                position = self._read_size(data, position)
            elif self._within == "data":
                end = min(position + self._left, size)
                found.append(data[position:end])
                self._left -= end - position
                position = end
                if not self._left:
                    self._within = "end"
            elif self._within == "end":
                position = self._read_end(data, position)
            else:
                position = self._read_trailer(data, position)
        return found[0] if len(found) == 1 else b"".join(found)

    def _read_size(self, data: bytes, position: int) -> int:
        line = _CHUNK.match(data, position)
        if line is None:
            return self._wait(data, position, MOST_SIZE_LINE)
        self._left = int(line[1], 16)
        self._within = "data"
        if not self._left:
            self._within, self._left = "trailers", MOST_HEAD
        return line.end()

    def _read_end(self, data: bytes, position: int) -> int:
        if not data.startswith(b"\r\n", position):
            if data[position:] != b"\r":
                raise AnswerError("a chunk of the answer is longer than it says")
            return self._wait(data, position, 1)
        self._within = "size"
        return position + 2

    def _read_trailer(self, data: bytes, position: int) -> int:
        if data.startswith(b"\r\n", position):
            self.ended = True
            self.reusable = self.reusable and position + 2 == len(data)
            return position + 2
        trailer = _TRAILER.match(data, position)
        if trailer is None:
            return self._wait(data, position, self._left + len(b"\r\n"))
        self._left -= trailer.end() - position
        if self._left < 0:
            raise AnswerError("the trailers of the answer are too large")
        return trailer.end()

    def _wait(self, data: bytes, position: int, most: int) -> int:
        """Keep the beginning of a line; AnswerError when it is whole all the same, or too long. Returns -1."""
        rest = data[position:]
        if b"\r\n" in rest or len(rest) > most:
            raise AnswerError("the chunks of the answer cannot be read")
        self._rest = rest
        return -1


def _whole_chunk(data: bytes) -> int:
    """Where the data of a chunk begins, when this is one of them, and whole, as servers write it; else 0.

    By the byte and not by `_CHUNK`: a chunk is nearly every read of a stream, and compiled, this makes no objects.
    """
    size, begin, whole = 0, 0, len(data)
    while begin < min(MOST_DIGITS, whole) and (digit := _DIGITS[data[begin]]) < BASE:
        size = size * BASE + digit
        begin += 1
    if not begin or not size or begin + size + 4 != whole:
        return 0
    return begin + 2 if data[begin : begin + 2] == b"\r\n" and data.endswith(b"\r\n") else 0
