"""Heads of answers as they leave: status line and headers in one piece, and a body of unknown length in chunks."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11, web

if TYPE_CHECKING:
    from collections.abc import Mapping


class Whole(web.StreamResponse):
    """An answer in one piece. aiohttp's own response would convert, check and compute what is known here."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """`headers`: by lower-case name, all but length, date and those about the connection."""
        self._status = status
        self._headers = headers  # type: ignore[assignment]  # written as they are
        self.body = body

    def usual(self) -> web.Response:
        """The same as aiohttp makes one."""
        return web.Response(status=self._status, body=self.body, headers=self._headers)


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


def _date() -> str:
    now = int(time.time())
    known = _dates.get(now)
    if known is None:
        _dates.clear()
        known = _dates[now] = formatdate(now, usegmt=True)
    return known
