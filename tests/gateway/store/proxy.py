"""A network between gateway and server that breaks where a test wants it to."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING, Self

from tests.lab.loopback import HOST

if TYPE_CHECKING:
    from types import TracebackType

COMMIT = b"COMMIT\x00"


class Proxy:
    """Forwards connections. `cut_commits`: so many answers to COMMIT are not delivered; the connection ends instead.

    `before`: the COMMIT itself is not delivered either.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_commits = 0
        self.before = False
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._target))
            self._open += [client, server]
            self._run(self._forward, client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        committing = False
        with client, server, contextlib.suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and self.cut_commits and data.endswith(COMMIT):
                        committing = True
                        self.cut_commits -= 1
                        self.cuts += 1
                        if self.before:
                            return
                    elif source is server and committing:
                        return
                    (server if source is client else client).sendall(data)

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type] # any callable
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):  # closed by its thread, which is woken by this otherwise
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()
