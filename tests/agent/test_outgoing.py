"""Faults of the network (made with aioresponses) and odd answers (of a real server) to the agent's requests."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web
from aioresponses import aioresponses

from llmgw_agent.errors import AgentError, ConfigurationError, RefusedError, SignInRequiredError, TemporaryError
from llmgw_agent.exchange import Gateway
from llmgw_agent.outgoing import MOST_BYTES, Outgoing, trust
from llmgw_agent.vault import Vault
from llmgw_wire.errors import ErrorCode, oauth_body
from tests.lab import certificates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


URL = "https://gw.example.com"
BOOTSTRAP = f"{URL}/.well-known/llmgw"


@pytest.fixture
def network() -> Iterator[aioresponses]:
    with aioresponses() as made:
        yield made


@dataclass
class OddServer:
    """Answers everything with the same."""

    url: str = ""
    status: int = 503
    body: bytes = b""
    date: str = ""

    async def handle(self, _request: web.BaseRequest) -> web.Response:
        headers = {"Location": "https://evil.example"} | ({"Date": self.date} if self.date else {})
        return web.Response(status=self.status, body=self.body, headers=headers)


@pytest.fixture
async def odd() -> AsyncIterator[OddServer]:
    made = OddServer()
    runner = web.ServerRunner(web.Server(made.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def gateway(outgoing: Outgoing, home: Path) -> Gateway:
    return Gateway(URL, outgoing, Vault(home / "vault.bin", "profile"))


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (TimeoutError(), TemporaryError, "did not answer in time"),
        (aiohttp.ClientConnectionError("canary"), TemporaryError, "cannot be reached (ClientConnectionError)"),
        (aiohttp.ServerDisconnectedError(), TemporaryError, "cannot be reached"),
        (OSError("canary"), TemporaryError, "cannot be reached"),
    ],
)
async def test_a_failing_network_is_temporary(
    network: aioresponses, gateway: Gateway, fault: Exception, kind: type[AgentError], words: str
) -> None:
    network.get(BOOTSTRAP, exception=fault)
    with pytest.raises(kind) as failure:
        await gateway.bootstrap()
    assert words in failure.value.line
    assert "gw.example.com" in failure.value.line
    assert "canary" not in failure.value.line
    assert not gateway.is_reachable


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (302, b"", TemporaryError, "redirect"),
        (404, b"not here", ConfigurationError, "not an llmgw gateway"),
        (200, b"<html>captive portal</html>", ConfigurationError, "not JSON"),
        (200, b'{"gateway": "x"}', ConfigurationError, "'issuers'"),
        (200, b"x" * (MOST_BYTES + 1), TemporaryError, "far too much"),
        (403, b"<html>proxy</html>", TemporaryError, "not as an llmgw gateway"),
        (502, b"", TemporaryError, "answered 502"),
        (429, b"", TemporaryError, "answered 429"),
        (503, oauth_body(ErrorCode.DRAINING, "Going away.", "r"), TemporaryError, "Going away"),
        (400, oauth_body(ErrorCode.PERSON_DISABLED, "Ask Bob.\x1b[31m", "r"), RefusedError, "Ask Bob.[31m"),
        (401, oauth_body(ErrorCode.SIGN_IN_INVALID, "Too old.", "r"), SignInRequiredError, "Too old. Run: llmgw login"),
    ],
)
async def test_answers_and_what_becomes_of_them(
    odd: OddServer, outgoing: Outgoing, home: Path, status: int, body: bytes, kind: type[AgentError], words: str
) -> None:
    odd.status, odd.body = status, body
    with pytest.raises(kind) as failure:
        await Gateway(odd.url, outgoing, Vault(home / "vault.bin", "profile")).bootstrap()
    assert words in failure.value.line


async def test_the_gateway_s_clock_is_measured(odd: OddServer, outgoing: Outgoing, home: Path) -> None:
    odd.date = "Tue, 01 Jan 2030 00:00:00 GMT"
    gateway = Gateway(odd.url, outgoing, Vault(home / "vault.bin", "profile"))
    with pytest.raises(TemporaryError):
        await gateway.bootstrap()
    assert gateway.now() == pytest.approx(1893456000.5, abs=1)


@pytest.mark.parametrize("url", ["http://gw.example.com/x", "ftp://gw.example.com", "https://u:p@gw.example.com"])
async def test_addresses_that_are_not_asked(outgoing: Outgoing, url: str) -> None:
    with pytest.raises(ConfigurationError):
        await outgoing.get(url)


async def test_a_certificate_of_an_unknown_authority_is_a_configuration_error(
    outgoing: Outgoing, tmp_path: Path
) -> None:
    made = certificates.issue(tmp_path / "tls")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ConfigurationError, match="is not trusted"):
        await outgoing.get(url)
    trusting = Outgoing(trust(made.ca))
    with pytest.raises(TemporaryError):
        await trusting.get(url)
    await trusting.close()
    server.close()


def test_a_ca_file_without_certificates_is_a_configuration_error(home: Path) -> None:
    (home / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match="holds no certificates"):
        trust(home / "empty.pem")
