"""What aiohttp's server is given for answers that the gateway writes itself."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from llmgw_gateway.streams.heads import Framing


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


class Streamed(web.StreamResponse):
    """An answer that has left already, head, chunks and all."""

    def __init__(self, framing: Framing) -> None:
        self._status = HTTPStatus.OK
        self._framing = framing

    @property
    def prepared(self) -> bool:
        """Whether the head has left."""
        return self._framing.opened

    @property
    def keep_alive(self) -> bool:
        """Whether another request may come on this connection."""
        return self._framing.keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Everything has been sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """The same."""
