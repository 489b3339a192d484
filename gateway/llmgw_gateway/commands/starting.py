"""What would keep a good configuration from starting on this machine: found without starting."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING

from llmgw_gateway.listener import listen_fault
from llmgw_gateway.providers.credentials import chain_faults
from llmgw_gateway.sections.faults import listen_address

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.settings import Settings

PROBE_SECONDS = 2
MOST_PROBED = 65_536


def start_faults(settings: Settings) -> list[str]:
    """Every one of them, as a sentence that begins with its place."""
    files = [("audit", settings.path(settings.audit.path))]
    if settings.store.path:
        store = settings.path(settings.store.path)
        files += [("store", store), ("store", store.with_name(store.name + ".lock"))]
    found = [fault for key, path in files for fault in _file(key, path)]
    for profile in sorted({"", *(region.profile for region in settings.regions)}):
        found += chain_faults(profile)
    server = settings.server
    found += _address("listen", server.listen, "/healthz", b"alive", tls=bool(server.certificate_file))
    found += _address("admin_listen", server.admin_listen, "/metrics", b"llmgw_")
    if address := settings.administration.listen:
        mark = b"The Admin API takes"  # what it says to whoever brings no credential
        found += _address(
            "listen", address, "/admin/v1/me", mark, section="administration", tls=bool(server.certificate_file)
        )
    if server.redirect_listen:
        found += _address("redirect_listen", server.redirect_listen, "/", b"")
    return found


def _file(key: str, path: Path) -> list[str]:
    if path.is_dir():
        return [f"{key}: {path} is a folder where the gateway needs a file"]
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return [f"{key}: {path} cannot be written by this user"]
    return []


def _address(
    name: str, address: str, path: str, mark: bytes, *, section: str = "server", tls: bool = False
) -> list[str]:
    """Whether it can be listened on. That a gateway does so already is no fault: `check` is run beside it."""
    host, port = listen_address(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _says(host, port, path, mark, tls=tls):
            return []
        return [f"{section}.{name}: {listen_fault(address, error)}"]
    return []


def _says(host: str, port: int, path: str, mark: bytes, *, tls: bool) -> bool:
    connection = HTTPConnection(host, port, timeout=PROBE_SECONDS)
    if tls:
        anybody = ssl.create_default_context()  # nothing is sent that another program must not see
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(host, port, timeout=PROBE_SECONDS, context=anybody)
    try:
        connection.request("GET", path)
        return mark in connection.getresponse().read(MOST_PROBED)
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
