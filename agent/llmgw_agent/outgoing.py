"""Requests that leave the laptop (all but those of MSAL): limits on time and size, no redirect, no surprise.

Environment proxies and CA variables are not honoured: they change who reads a token, and any program may set them.
"""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
import truststore

from llmgw_agent.errors import ConfigurationError, TemporaryError
from llmgw_agent.settings import url_fault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MOST_BYTES: Final = 512 * 1024
"""Of an answer. Metadata, key sets and tokens are a few kilobytes; more than this is a mistake or an attack."""
TIMEOUT: Final = aiohttp.ClientTimeout(total=6, connect=4)
"""Seconds. What `llmgw-token` waits for, 10 s in all, may take two or three requests."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `clock_offset` is the server's clock minus ours in seconds; None if it sent no date."""

    status: int
    body: bytes
    clock_offset: float | None

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one if it is anything else. Never raises."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """What the operating system trusts, and the company's extra authorities. There is no way to switch this off."""
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except (OSError, ssl.SSLError):
            raise ConfigurationError(f"{ca_file} holds no certificates", "Set ca_file to a PEM file") from None
    return context


class Outgoing:
    """Sends one request, reads one answer."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=8),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=TIMEOUT,
            trust_env=False,
        )

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET; TemporaryError if nothing usable came back. The status is for the caller to judge."""
        return await self._request("GET", url, None, headers)

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        """POST a form; as `get`."""
        return await self._request("POST", url, form, headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _request(
        self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str] | None
    ) -> Answer:
        if fault := url_fault(url.partition("?")[0]):
            raise ConfigurationError(f"the address {url.partition('?')[0]} {fault}", "Tell the gateway's operator")
        host = urlsplit(url).netloc
        wanted = {"Accept": "application/json", "Accept-Encoding": "identity"} | dict(headers or {})
        try:
            sent = time.time()
            async with self._session.request(method, url, data=form, headers=wanted, allow_redirects=False) as answer:
                body = await answer.content.read(MOST_BYTES + 1)
                while len(body) <= MOST_BYTES and not answer.content.at_eof():
                    body += await answer.content.read(MOST_BYTES + 1 - len(body))
                ahead = offset(answer.headers.get("Date", ""), (sent + time.time()) / 2)
                status = answer.status
        except TimeoutError:
            raise TemporaryError(f"{host} did not answer in time", "Check the network (VPN?) and try again") from None
        except aiohttp.ClientConnectorCertificateError:
            raise ConfigurationError(
                f"the certificate of {host} is not trusted", "Set ca_file to your company's authority"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TemporaryError(
                f"{host} cannot be reached ({type(error).__name__})", "Check the network (VPN?) and try again"
            ) from None
        if len(body) > MOST_BYTES:
            raise TemporaryError(f"{host} sent far too much", "Check that nothing stands between you and it")
        if 300 <= status < 400:  # noqa: PLR2004 -- the class of redirects
            raise TemporaryError(
                f"{host} answered with a redirect ({status})", "Sign in to the network you are on, then try again"
            )
        return Answer(status, body, ahead)


def offset(date: str, at: float) -> float | None:
    """How far the clock that wrote a `Date` is ahead of ours, in seconds; None if it wrote none."""
    try:
        # The header is cut to whole seconds: half of one is the best guess for the rest.
        return parsedate_to_datetime(date).timestamp() + 0.5 - at
    except (ValueError, TypeError):
        return None
