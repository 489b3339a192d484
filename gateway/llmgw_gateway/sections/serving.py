"""The section `[server]` of the configuration: where the gateway listens, and what it bears from clients."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from llmgw_gateway.sections import faults
from llmgw_gateway.sections.reading import Section

if TYPE_CHECKING:
    from pathlib import Path

Text = Annotated[str, Meta(min_length=1, max_length=2048)]
Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Connections = Annotated[int, Meta(ge=1, le=1_000_000)]


class Server(Section, frozen=True, kw_only=True):
    """Where the gateway listens."""

    listen: Text = "127.0.0.1:8080"
    """host:port of the public endpoints."""
    admin_listen: Text = "127.0.0.1:9090"
    """host:port of /metrics; never the public listener."""
    public_url: Text
    """What clients type; the issuer (`iss`) of gateway tokens. https, or http on loopback."""
    certificate_file: str = ""
    """The chain in PEM form with which `listen` speaks TLS 1.3; empty: it speaks plain HTTP."""
    key_file: str = ""
    """Its private key, open to its owner only."""
    redirect_listen: str = ""
    """host:port that sends browsers from http to `public_url`; empty: none."""
    trusted_proxies: tuple[Text, ...] = ()
    """Networks (CIDR) of the proxies in front. Only theirs is X-Forwarded-For, and what comes in clear."""
    drain_seconds: Seconds = 120
    """How long running streams may go on after SIGTERM."""
    head_seconds: Seconds = 15
    """How long a client may take for the TLS handshake, and to send the head of a request."""
    body_seconds: Seconds = 60
    """How long a client may take to send its request body."""
    idle_seconds: Seconds = 75
    """How long a connection may rest between two requests."""
    questions_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 300
    """What one person may ask of one replica that costs nothing: `/v1/me`, `/v1/models`, counts of tokens."""
    most_connections: Connections = 10_000
    """Open at a time; more are closed at once."""
    most_connections_per_address: Connections = 1_000
    """Of one client address; proxies that are trusted may have them all."""

    @property
    def in_clear(self) -> bool:
        """Whether what is sent to `listen` could be read on its way from another machine."""
        return not self.certificate_file and not faults.is_loopback(faults.listen_address(self.listen)[0])

    def faults(self, base: Path) -> list[str]:
        """Addresses that cannot be listened on, a public URL that cannot be an issuer, credentials in clear."""
        found = faults.url_faults("public_url", self.public_url)
        good = True
        for name in ("listen", "admin_listen", *(("redirect_listen",) if self.redirect_listen else ())):
            try:
                faults.listen_address(getattr(self, name))
            except ValueError as error:
                good = False
                found.append(f"{name}: {error}")
        if self.public_url.endswith("/"):
            found.append("public_url: must not end with a slash (it is the issuer of tokens, compared exactly)")
        for network in self.trusted_proxies:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                found.append(f"trusted_proxies: {network!r} is not a network such as 10.0.0.0/8")
        return found + self._tls_faults(base) + (self._clear_faults() if good else [])

    def _tls_faults(self, base: Path) -> list[str]:
        if not (self.certificate_file and self.key_file):
            if self.certificate_file or self.key_file:
                return ["key_file: certificate_file and key_file are needed together"]
            return ["redirect_listen: needs certificate_file and key_file"] if self.redirect_listen else []
        _, found = faults.secret_file("key_file", base / self.key_file, "the certificate's private key in PEM form")
        found += faults.path_faults("certificate_file", base / self.certificate_file)
        if not found:
            found += faults.key_pair_faults("certificate_file", base / self.certificate_file, base / self.key_file)
        if not self.public_url.startswith("https://"):
            found.append("public_url: must be https, because certificate_file is given")
        return found

    def _clear_faults(self) -> list[str]:
        if self.in_clear and not self.trusted_proxies:
            text = "would take credentials in clear from other machines: give certificate_file and key_file"
            return [f"listen: {text}, or the networks of the proxies in front as trusted_proxies"]
        return []
