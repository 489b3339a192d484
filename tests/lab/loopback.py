"""Loopback networking of the laboratory: free ports, and plain requests that no proxy variable can divert."""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HOST = "127.0.0.1"


PORTS = range(15_000, 32_000)
"""Below the ports that any system gives to outgoing connections: while a server is down, nobody else gets its port."""
_given: set[int] = set()


def free_port() -> int:
    """A port that was free a moment ago and that was not given before: a clash is rare and then reported."""
    while True:
        port = secrets.choice(PORTS)  # whatever seed a test has set
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port


def opener(*handlers: urllib.request.BaseHandler, ca_file: Path | None = None) -> urllib.request.OpenerDirector:
    """An opener without proxies that trusts the given authority and no other."""
    context = ssl.create_default_context(cafile=ca_file)
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), *handlers
    )


def answers(url: str, *, ca_file: Path | None = None) -> bool:
    """Whether a GET is answered with 200 right now."""
    try:
        with opener(ca_file=ca_file).open(url, timeout=2) as answer:
            return bool(answer.status == http.client.OK)
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False
