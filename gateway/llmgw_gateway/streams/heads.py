"""Answers as they leave: status line and headers in one piece, and a body of unknown length in chunks."""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp import web


LAST_CHUNK: Final = b"0\r\n\r\n"
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_dates: dict[int, str] = {}
"""The current second as HTTP writes it."""


def head(
    request: web.BaseRequest, status: int, headers: Mapping[str, str], length: int | None, *, keep_alive: bool
) -> bytes:
    """The head of an answer. `length`: bytes of the body; None: it comes in chunks, or ends with the connection.

    ValueError when a header has a line end in it.
    """
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is not None:
        lines.append(f"content-length: {length}")
    elif in_chunks(request):
        lines.append("transfer-encoding: chunked")
    lines.append(f"date: {_date()}")
    if not keep_alive:
        lines.append("connection: close")
    elif request.version < HttpVersion11:
        lines.append("connection: keep-alive")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a header of an answer has a line end in it")
    return f"{text}\r\n\r\n".encode()


def in_chunks(request: web.BaseRequest) -> bool:
    """Whether an answer of unknown length is sent in chunks: to HTTP/1.0 the end of the connection is its end."""
    return request.version >= HttpVersion11


class Framing:
    """How an answer of unknown length leaves."""

    __slots__ = ("_headers", "_in_chunks", "_request", "_stays", "_whole", "opened")

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str]) -> None:
        self._request = request
        self._headers = headers
        self._in_chunks = in_chunks(request)
        self._stays = request.keep_alive and self._in_chunks
        self._whole = False
        self.opened = False
        """Whether the head has left."""

    @property
    def keep_alive(self) -> bool:
        """Whether another request may come on this connection."""
        return self._whole and self._stays

    def opening(self) -> bytes:
        """The head, to be sent now."""
        self.opened = True
        return head(self._request, HTTPStatus.OK.value, self._headers, None, keep_alive=self._stays)

    def framed(self, data: bytes, *, last: bool = False) -> bytes:
        """Data of the body as it is sent; `last`: nothing follows."""
        if self._in_chunks and data:
            data = _size_line(len(data)) + data + b"\r\n"  # RFC 9112 section 7.1
        if last:
            self._whole = True
            if self._in_chunks:
                data += LAST_CHUNK
        return data


@lru_cache(maxsize=1024)
def _size_line(size: int) -> bytes:
    """How a chunk begins, remembered: those of a stream are much alike."""
    return b"%x\r\n" % size


def _date() -> str:
    now = int(time.time())
    known = _dates.get(now)
    if known is None:
        _dates.clear()
        known = _dates[now] = formatdate(now, usegmt=True)
    return known
