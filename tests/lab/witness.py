"""A server that anybody may take for the gateway, a proxy or a cloud: it writes down what it is told, and refuses it.

It speaks HTTP, HTTPS (told apart by the first byte) and CONNECT to itself, so that whoever is led astray by an address,
a proxy or an authority ends here and is heard. Each request gets an error that Claude Code does not repeat.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Self

from tests.lab.loopback import HOST

if TYPE_CHECKING:
    from types import TracebackType

    from tests.lab.certificates import ServerCertificate

TLS_HANDSHAKE = 0x16
SECONDS = 20
REFUSAL = b'{"type":"error","error":{"type":"policy_blocked","message":"the witness has heard it"}}'


@dataclass(frozen=True)
class Heard:
    """One request that could be read."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.method} {self.target} {self.headers} {self.body.decode(errors='replace')}"


@dataclass
class Witness:
    """Listens on a loopback port, and on a unix socket if one is named."""

    certificate: ServerCertificate
    unix_path: str = ""
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self.certificate.certificate, self.certificate.key)
        self._listeners = [socket.create_server((HOST, 0))]
        if self.unix_path:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.unix_path)
            listener.listen()
            self._listeners.append(listener)
        self.port: int = self._listeners[0].getsockname()[1]

    def url(self, scheme: str) -> str:
        """Its address."""
        return f"{scheme}://{HOST}:{self.port}"

    def heard_of(self, text: str) -> list[Heard]:
        """The requests in which a text stood anywhere."""
        return [each for each in self.heard if text in each.text]

    def __enter__(self) -> Self:
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=[listener], daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._converse, args=[connection], daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        # A client that distrusts the certificate, or leaves in the middle, has said nothing.
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            while True:
                if connection.recv(1, socket.MSG_PEEK)[:1] == bytes([TLS_HANDSHAKE]):
                    connection = self._tls.wrap_socket(connection, server_side=True)
                    stack.callback(connection.close)
                with connection.makefile("rb") as stream:
                    heard = _request(stream)
                if heard.method == "CONNECT":
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    continue
                self.heard.append(heard)
                head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(REFUSAL)}\r\n"
                more = "Content-Type: application/json\r\nx-should-retry: false\r\nConnection: close\r\n\r\n"
                connection.sendall((head + more).encode() + REFUSAL)
                return


def _request(stream: BinaryIO) -> Heard:
    """The next request of a connection; ValueError if there is none."""
    words = stream.readline(65537).decode("latin-1").split()
    if len(words) != 3:
        raise ValueError("no request line")
    headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline().split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", "0")))
    return Heard(words[0], words[1], headers, body)
