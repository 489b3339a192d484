"""Who is believed about where a request comes from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.peers import Peers

PROXIES = Peers(["10.0.0.0/8", "2001:db8::/32"], in_clear=True)


@pytest.mark.parametrize(
    ("address", "forwarded", "client"),
    [
        ("198.51.100.7", ["10.0.0.1"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("2001:db8::1", ["2001:db9::7"], "2001:db9::7"),
        ("10.0.0.1", ["203.0.113.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.1", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
    ],
)
def test_the_client_is_whom_the_last_trusted_proxy_saw(address: str, forwarded: list[str], client: str) -> None:
    assert PROXIES.client(address, forwarded) == client


@given(st.lists(st.text(max_size=40), max_size=4))
def test_nothing_that_a_header_says_is_repeated_unless_it_is_an_address(forwarded: list[str]) -> None:
    assert PROXIES.client("198.51.100.7", forwarded) == "198.51.100.7"
    ipaddress.ip_address(PROXIES.client("10.0.0.1", forwarded))


@pytest.mark.parametrize(
    ("address", "admitted"),
    [("10.1.2.3", True), ("127.0.0.1", True), ("::1", True), ("198.51.100.7", False), ("", False)],
)
def test_in_clear_only_proxies_and_this_machine_may_send_credentials(address: str, *, admitted: bool) -> None:
    assert PROXIES.admits(address) is admitted
    assert Peers([], in_clear=False).admits(address)
