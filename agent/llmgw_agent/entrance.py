"""The forwarder's two doors: a unix socket, and 127.0.0.1 for tools that know only addresses.

Any page in a browser and any user of this machine can send requests to a loopback port. So there, all of this holds:
the Host is exactly ours (a rebound name is not), nothing smells of a browser, and the caller knows the local secret.
The unix socket needs no secret: the kernel says who is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import web

from llmgw_agent import system
from llmgw_agent.errors import ConfigurationError, RefusedError
from llmgw_agent.forward import BUFFER, Forward, refusal
from llmgw_agent.listener import HOST, Served, listen
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

log = logging.getLogger(__name__)

ADDRESS: Final = "127.0.0.1"
"""Always the literal. Never 0.0.0.0: in a container that is everybody's."""
BROWSER_HEADERS: Final = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Dest")
"""Not Sec-Fetch-Mode: Node's own fetch sends it."""
DRAIN_SECONDS: Final = 8.0
PREFIX: Final = "llmgw-local-"
"""Begins the local secret, so that whoever finds one knows what it is and is not."""


@dataclass(frozen=True, slots=True)
class Door:
    """What a tool needs to come in by 127.0.0.1. Kept from start to start: it stands in the settings of tools."""

    port: int
    secret: str

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{ADDRESS}:{self.port}"


class Entrance:
    """Listens and lets in; what is let in goes to `Forward`."""

    def __init__(self, forward: Forward, *, gateway_url: str, file: Path, socket: Path, port: int | None) -> None:
        """Keep what it takes; nothing is opened yet.

        Args:
            forward: Takes what was let in.
            gateway_url: Its host is a good one on the unix socket: some clients send it there.
            file: Where the door is remembered, for its owner alone.
            socket: The unix socket.
            port: The port on 127.0.0.1; None: whichever is free; 0: never listen there.
        """
        self._forward = forward
        self._hosts = frozenset({HOST, "localhost", urlsplit(gateway_url).netloc})
        self._file = file
        self.socket = socket
        self._port = port
        self._relay: Served | None = None
        self._local: Served | None = None
        self._turn = asyncio.Lock()
        self.door: Door | None = None
        """Set while 127.0.0.1 is listened at."""

    @property
    def place(self) -> str | None:
        """Where the unix socket lies; None where there is none."""
        return str(self.socket) if system.HAS_SOCKETS else None

    @property
    def served(self) -> list[Served]:
        """What is open: the unix socket first, then the port."""
        return [each for each in (self._relay, self._local) if each is not None]

    async def start(self, relay: socket.socket | None = None, port: socket.socket | None = None) -> None:
        """Listen on the unix socket; on 127.0.0.1 only if that was asked for, now or once before.

        A port that cannot be had is no reason to hand out no tokens: `open` tells it to whoever wants the port.

        Args:
            relay: The unix socket if it listens already; else it is made.
            port: The port's socket if it listens already.
        """
        if system.HAS_SOCKETS:
            self._relay = await self._serve(self._by_socket, relay or listen(self.socket))
        known = self._remembered() if port is not None else None
        if (
            port is not None
            and known is not None
            and known.port == port.getsockname()[1]
            and self._port in {None, known.port}
        ):
            self.door, self._local = known, await self._serve(self._by_port, port)
            return
        if port is not None:
            port.close()
        if self._port or (self._port is None and self._file.exists()):
            try:
                await self.open()
            except ConfigurationError as error:
                log.warning("not forwarding at 127.0.0.1: %s", error)

    async def open(self) -> Door:
        """Listen on 127.0.0.1, if not yet, and say how to come in.

        RefusedError if the settings forbid it, ConfigurationError if the port that they name is taken.
        """
        if self._port == 0:
            raise RefusedError("the forwarder's port is switched off here (forward_port)", "Use its unix socket")
        async with self._turn:  # whoever asks second may connect only when it listens
            return self.door or await self._open()

    async def _open(self) -> Door:
        known = self._remembered()
        wanted = self._port or (known.port if known else 0)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, system.BINDING, 1)
        try:
            listener.bind((ADDRESS, wanted))
        except OSError as error:
            listener.close()
            if self._port:
                found = f"port {wanted} of this machine cannot be had ({error.strerror})"
                raise ConfigurationError(found, "Name another forward_port") from None
            # Whoever has our port may have been told our secret by a tool: neither is used again.
            log.warning("port %d is taken: another port and another secret are used", wanted)
            known = None
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.bind((ADDRESS, 0))
        secret = known.secret if known else PREFIX + secrets.token_urlsafe(32)
        self.door = Door(listener.getsockname()[1], secret)
        self._remember(self.door)
        self._local = await self._serve(self._by_port, listener)
        log.info("forwarding at %s", self.door.url)
        return self.door

    async def close(self) -> None:
        """Stop listening; what is under way may go on for a while."""
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
        for each in self.served:
            await each.close()

    async def _serve(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], listener: socket.socket
    ) -> Served:
        server = web.Server(
            handler, access_log=None, handler_cancellation=True, auto_decompress=False, read_bufsize=BUFFER
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=DRAIN_SECONDS)
        served = Served(runner, listener)
        await served.start()
        return served

    async def _by_socket(self, request: web.BaseRequest) -> web.StreamResponse:
        peer = system.peer(request.transport)
        if peer is None or not peer[1]:
            return refusal(request, ErrorCode.CREDENTIAL_MISSING, "This socket is another user's.")
        if _host(request) not in self._hosts or _is_browser(request):
            return refusal(request, ErrorCode.CREDENTIAL_MISSING, "The forwarder is not for browsers.")
        return await self._forward.relay(request)

    async def _by_port(self, request: web.BaseRequest) -> web.StreamResponse:
        door = self.door
        if door is None or _host(request) != urlsplit(door.url).netloc or _is_browser(request):
            return refusal(request, ErrorCode.CREDENTIAL_MISSING, "The forwarder is not for browsers.")
        if not _knows(request, door.secret):
            text = "The forwarder wants the local secret as its API key. To see it: llmgw forward"
            return refusal(request, ErrorCode.CREDENTIAL_MISSING, text)
        return await self._forward.relay(request)

    def _remembered(self) -> Door | None:
        try:
            document = json.loads(self._file.read_text(encoding="utf-8"))
            port, secret = document["port"], document["secret"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        is_ours = isinstance(port, int) and isinstance(secret, str) and secret.startswith(PREFIX)
        return Door(port, secret) if is_ours else None

    def _remember(self, door: Door) -> None:
        temporary = self._file.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        handle = system.create(temporary)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(door), file)
        temporary.replace(self._file)


def _host(request: web.BaseRequest) -> str:
    """The one Host that was named; nothing is looked up where there is none."""
    named = request.headers.getall("Host", [])
    return named[0] if len(named) == 1 else ""


def _is_browser(request: web.BaseRequest) -> bool:
    return any(name in request.headers for name in BROWSER_HEADERS)


def _knows(request: web.BaseRequest, secret: str) -> bool:
    """Whether the request carries the local secret, as clients carry an API key. Compared in constant time.

    AWS clients that sign carry it as their session token; the signature says nothing more about who asks.
    """
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    shown = [request.headers.get("x-api-key", ""), bearer.strip() if scheme.lower() == "bearer" else ""]
    shown.append(request.headers.get("X-Amz-Security-Token", ""))
    return any([hmac.compare_digest(each.encode(), secret.encode()) for each in shown])  # noqa: C419 -- all are compared, always
