"""Requests in the test's own bytes, right and wrong ones: no library stands between the test and the wire."""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.lab.loopback import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.gateway import Gateway

SECONDS = 30
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@contextmanager
def connected(gateway: Gateway, *, source: str = HOST) -> Iterator[socket.socket]:
    """A connection; `source` is the client's address, any of 127.0.0.0/8."""
    address = (HOST, urlsplit(gateway.url).port)
    with socket.create_connection(address, timeout=SECONDS, source_address=(source, 0)) as raw:
        yield raw


@contextmanager
def encrypted(gateway: Gateway, *, newest: ssl.TLSVersion | None = None) -> Iterator[ssl.SSLSocket]:
    """A TLS connection with the checked certificate of the gateway."""
    context = ssl.create_default_context(cafile=gateway.ca_file)
    if newest is not None:
        context.maximum_version = newest
    with connected(gateway) as raw, context.wrap_socket(raw, server_hostname="localhost") as wrapped:
        yield wrapped


def read_to_end(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer whose connection is closed behind it."""
    return parsed(b"".join(iter(lambda: raw.recv(65536), b"")))


def read_answer(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer with a length, on a connection that stays."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(raw)
    length = int(parsed(data)[1]["content-length"])
    while len(parsed(data)[2]) < length:
        data += _more(raw)
    return parsed(data)


def parsed(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and what follows."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    named = (field.partition(": ") for field in fields)
    return int(status.split()[1]), {name.lower(): value for name, _, value in named}, body


def _more(raw: socket.socket) -> bytes:
    data = raw.recv(65536)
    if not data:
        raise ConnectionError("the connection ended before the answer was whole")
    return data
