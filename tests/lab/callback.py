"""A native app's end of a sign-in: takes the provider's redirect, or the form of `response_mode=form_post`."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, urlsplit

from tests.lab.loopback import HOST

if TYPE_CHECKING:
    from types import TracebackType


class _Server(HTTPServer):
    fields: dict[str, str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._take(urlsplit(self.path).query)

    def do_POST(self) -> None:
        self._take(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())

    def _take(self, query: str) -> None:
        self.server.fields = dict(parse_qsl(query))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"signed in")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Callback:
    """Listens while it is entered; `fields` is what came last. It looks at nothing: a real app must check `state`."""

    def __init__(self, host: str = HOST) -> None:
        self._server = _Server((HOST, 0), _Handler)
        self._server.fields = {}
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.url = f"http://{host}:{self._server.server_port}"

    @property
    def fields(self) -> dict[str, str]:
        return self._server.fields

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
