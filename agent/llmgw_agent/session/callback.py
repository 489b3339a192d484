"""The browser's way back: a listener on 127.0.0.1 that lives for one sign-in (RFC 8252 section 7.3).

Any page or program can send requests here. So the state is compared before anything else is read, errors included, and
a wrong one changes nothing: otherwise whoever guesses the port could end a sign-in, or slip in a foreign account.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from llmgw_agent.errors import ConfigurationError, TemporaryError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESS: Final = "127.0.0.1"
"""Always the literal: `localhost` may be another machine's business, 0.0.0.0 is everybody's."""
HOSTS: Final = frozenset({"127.0.0.1", "localhost"})
MOST_BYTES: Final = 16 * 1024
SECONDS: Final = 300
"""How long a sign-in may take."""

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>llmgw</title>
<h1>{title}</h1><p>{text}</p></html>"""
RECEIVED: Final = PAGE.format(title="Received", text="You can close this page. The terminal says whether it worked.")
NOT_FOUND: Final = PAGE.format(title="Nothing here", text="This address serves one sign-in of llmgw, and not this way.")


class Callback:
    """Listens from `start` until the right answer came, the time is up, or `close`."""

    def __init__(self, *, host: str, path: str) -> None:
        if host not in HOSTS:
            raise ConfigurationError(f"the gateway offers the redirect host {host!r}", "Only loopback names are served")
        self._host = host
        self._path = path
        self._state = ""
        self._answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._runner: web.ServerRunner | None = None
        self.redirect_uri = ""

    async def start(self) -> None:
        """Bind an ephemeral port; sets `redirect_uri`."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((ADDRESS, 0))
        server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        self.redirect_uri = f"http://{self._host}:{listener.getsockname()[1]}{self._path}"

    def expect(self, state: str) -> None:
        """Say which state belongs to this sign-in. Until then nothing is accepted."""
        self._state = state

    def deliver(self, answer: Mapping[str, str]) -> bool:
        """Take an answer, from the browser or pasted; False, and nothing has changed, if its state is another."""
        state = answer.get("state", "")
        if not self._state or not hmac.compare_digest(state.encode(), self._state.encode()) or self._answer.done():
            return False
        self._answer.set_result(dict(answer))
        return True

    def deliver_pasted(self, address: str) -> None:
        """Take the address that a browser elsewhere ended at; UsageError if it does not belong to this sign-in."""
        if not self.deliver(_parameters(urlsplit(address.strip()).query) or {}):
            raise UsageError("that is not the address of this sign-in", "Copy all of it from the browser's address bar")

    async def wait(self) -> dict[str, str]:
        """The parameters of the answer; TemporaryError when the time is up."""
        try:
            return await asyncio.wait_for(self._answer, SECONDS)
        except TimeoutError:
            raise TemporaryError(
                f"the sign-in was not finished within {SECONDS // 60} minutes", "Run: llmgw login"
            ) from None

    async def close(self) -> None:
        """Stop listening; a page being sent is finished first."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.host != urlsplit(self.redirect_uri).netloc or request.path != (self._path or "/"):
            return _page(404, NOT_FOUND)
        parameters: dict[str, str] | None = None
        if request.method == "GET":
            parameters = _parameters(request.rel_url.raw_query_string)
        elif request.method == "POST" and request.content_type == "application/x-www-form-urlencoded":
            body = await request.content.read(MOST_BYTES + 1)
            while len(body) <= MOST_BYTES and not request.content.at_eof():
                body += await request.content.read(MOST_BYTES + 1 - len(body))
            parameters = _parameters(body.decode("utf-8", "replace"))
        if parameters is None or not self.deliver(parameters):
            return _page(404, NOT_FOUND)
        return _page(200, RECEIVED)


def _parameters(query: str) -> dict[str, str] | None:
    """The parameters; None if it is too long or names one twice (two parsers would see two different answers)."""
    if len(query) > MOST_BYTES:
        return None
    pairs = parse_qsl(query, keep_blank_values=True)
    parameters = dict(pairs)
    return parameters if len(parameters) == len(pairs) else None


def _page(status: int, text: str) -> web.Response:
    response = web.Response(status=status, text=text, content_type="text/html", headers=HEADERS)
    response.force_close()
    return response
