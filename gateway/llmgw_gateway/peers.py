"""Who is at the other end of a connection: a client, or a proxy that is trusted to say for whom it asks."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address

FORWARDED_FOR: Final = "X-Forwarded-For"


class Peers:
    """Tells proxies from clients. `in_clear`: whether what clients send could be read on its way."""

    def __init__(self, trusted: Sequence[str], *, in_clear: bool) -> None:
        self._trusted = tuple(ipaddress.ip_network(each) for each in trusted)
        self._in_clear = in_clear
        # The same few proxies and many clients: looked at once each.
        self.trusts = lru_cache(maxsize=4096)(self._trusts)
        """Whether an address is one of the proxies'."""
        self._is_local = lru_cache(maxsize=4096)(_is_loopback)

    def admits(self, address: str) -> bool:
        """Whether a credential may come over a connection from this address."""
        return not self._in_clear or self.trusts(address) or self._is_local(address)

    def client(self, address: str, forwarded: Sequence[str]) -> str:
        """The client's address: what the last trusted proxy saw. What a client itself claims counts for nothing.

        `forwarded`: the values of X-Forwarded-For, in the order in which they came.
        """
        if not forwarded or not self.trusts(address):
            return address
        for hop in reversed(",".join(forwarded).split(",")):
            parsed = _parsed(hop.strip())
            if parsed is None:
                break
            address = str(parsed)
            if not self.trusts(address):
                break
        return address

    def _trusts(self, address: str) -> bool:
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._trusted)


def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # On a socket for both families a client of the old one has an address like ::ffff:10.0.0.1.
    return getattr(address, "ipv4_mapped", None) or address


def _is_loopback(address: str) -> bool:
    parsed = _parsed(address)
    return parsed is not None and parsed.is_loopback
