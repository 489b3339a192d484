"""The keys of one identity provider, fetched with limits: no token can make us fetch at will."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
from yarl import URL

from llmgw_gateway.sections.faults import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 65_536
FETCH_SECONDS = 3
FRESH_SECONDS = 3600
COOL_DOWN_SECONDS = 10
"""The least time between two fetches, however many unknown key ids arrive."""
_KEY_TYPES = frozenset({"RSA", "EC", "OKP"})
log = logging.getLogger("llmgw.identity")


class ProviderUnavailableError(Exception):
    """The provider's keys were never seen: no sign-in of it can be judged now."""


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A public key of a provider, and the one algorithm it is for; None: any that fits its type."""

    key: Any
    algorithm: str | None


class Jwks:
    """kid to key of one issuer. The last good set survives an outage of the provider."""

    def __init__(self, issuer: str, http: aiohttp.ClientSession, ca_file: Path | None) -> None:
        self._issuer = issuer
        self._http = http
        self._ssl = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._lock = asyncio.Lock()
        self._keys: dict[str, ProviderKey] = {}
        self._fetched = -FRESH_SECONDS * 2.0
        self._tried = -COOL_DOWN_SECONDS * 2.0

    async def get(self, kid: str) -> ProviderKey | None:
        """The key, or None when the provider has none. ProviderUnavailableError before the first good answer."""
        if self._due(kid) or (kid not in self._keys and self._lock.locked()):
            async with self._lock:  # one fetch in flight; the others look again when it is over
                if self._due(kid):
                    self._tried = time.monotonic()
                    await self._fetch()
        if not self._keys:
            raise ProviderUnavailableError
        return self._keys.get(kid)

    def _due(self, kid: str) -> bool:
        now = time.monotonic()
        wanted = kid not in self._keys or now - self._fetched > FRESH_SECONDS
        return wanted and now - self._tried > COOL_DOWN_SECONDS

    async def _fetch(self) -> None:
        try:
            metadata = await self._document(URL(self._issuer.rstrip("/") + "/.well-known/openid-configuration"))
            if metadata.get("issuer") != self._issuer:
                raise ValueError("its discovery document names another issuer")  # noqa: TRY301 -- one way out of all faults
            address = URL(str(metadata.get("jwks_uri", "")))
            if address.scheme != "https" and not is_loopback(address.host or ""):
                raise ValueError("its jwks_uri is not https")  # noqa: TRY301 -- the same
            keys = _keys(await self._document(address))
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            log.warning("the keys of %s could not be fetched: %s", self._issuer, str(error) or type(error).__name__)
            return
        self._keys, self._fetched = keys, time.monotonic()

    async def _document(self, address: URL) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        async with self._http.get(address, allow_redirects=False, ssl=self._ssl, timeout=timeout) as answer:
            if answer.status != 200:  # noqa: PLR2004 -- OK
                raise ValueError(f"HTTP status {answer.status} from {address.host}")
            body = await answer.content.read(MOST_BYTES + 1)
            while len(body) <= MOST_BYTES and (more := await answer.content.read(MOST_BYTES)):
                body += more
        if len(body) > MOST_BYTES:
            raise ValueError("its answer is too large")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("its answer is not a JSON object")  # noqa: TRY004 -- one way out of all faults
        return document


def _keys(document: dict[str, Any]) -> dict[str, ProviderKey]:
    """The usable signature keys; ValueError when there is none. Symmetric keys and unknown types are passed over."""
    keys: dict[str, ProviderKey] = {}
    listed = document.get("keys")
    for jwk in listed if isinstance(listed, list) else []:
        if not isinstance(jwk, dict) or str(jwk.get("kty")) not in _KEY_TYPES or jwk.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK.from_dict(jwk).key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        algorithm = jwk.get("alg")
        keys.setdefault(str(jwk.get("kid", "")), ProviderKey(key, algorithm if isinstance(algorithm, str) else None))
    if not keys:
        raise ValueError("its key set holds no usable key")
    return keys
