"""The listener's TLS: version 1.3 only, and a certificate that is replaced while connections go on."""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509

if TYPE_CHECKING:
    from pathlib import Path

CHECK_SECONDS = 30
"""How often the files are looked at."""
log = logging.getLogger("llmgw.tls")


class Certificate:
    """A chain and its key, in a context that new connections use as it is at their time."""

    def __init__(self, chain: Path, key: Path) -> None:
        """OSError (ssl.SSLError among them) when the files cannot be used."""
        self._chain = chain
        self._key = key
        self.context = self._fresh()
        self._seen = self._stamp()
        self._task: asyncio.Task[None] | None = None
        self._tell()

    def start(self) -> None:
        """Begin to follow the files."""
        self._task = asyncio.create_task(self._follow(), name="certificate")

    def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()

    def reload(self) -> None:
        """Take the files as they are now; while they do not fit together, keep what was."""
        try:
            stamp = self._stamp()
            self._fresh()  # tried apart: what fails halfway must not spoil the one in use
            self.context.load_cert_chain(self._chain, self._key)
        except (OSError, ValueError) as error:
            log.error("the certificate was not replaced, the last one stays in use: %s", error)  # noqa: TRY400
            return
        self._seen = stamp
        self._tell()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                changed = self._stamp() != self._seen
            except OSError:
                changed = True  # and `reload` says what is wrong
            if changed:
                self.reload()

    def _fresh(self) -> ssl.SSLContext:
        return server_context(self._chain, self._key)

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        seen = [path.stat() for path in (self._chain, self._key)]
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in seen)

    def _tell(self) -> None:
        ends = x509.load_pem_x509_certificate(self._chain.read_bytes()).not_valid_after_utc
        say = log.error if ends <= datetime.now(UTC) else log.info
        say("the certificate in use is good until %s", ends.isoformat(timespec="minutes"))


def server_context(chain: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3, HTTP/1.1. OSError when the files are not there, or do not fit together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    # Without a question back for the key's password, which nobody would answer.
    context.load_cert_chain(chain, key, password=_no_password)
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; the gateway needs it without a password")
