"""An identity provider at the outer edge: discovery and keys over real loopback HTTP, tokens by real keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from llmgw_gateway.identity.jwks import Jwks
from llmgw_gateway.identity.signin import SignInVerifier
from llmgw_gateway.sections.exchanging import Issuer
from llmgw_wire.messages import ID_TOKEN_TYPE
from llmgw_wire.secret import Secret
from tests.gateway.identity import forge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmgw_gateway.identity.signin import SignIn

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

NOW = 1_790_000_000
CLIENT = "llmgw-client"
RSA = rsa.generate_private_key(65537, 2048)
EC = forge.ec_key()


class Provider:
    """A provider with two keys, that counts how often it is asked; `answer` replaces what it says of its keys."""

    def __init__(self) -> None:
        self.fetches = 0
        self.answer: Answer = self.publish
        self.discovery: dict[str, Any] = {}
        self.keys: list[Any] = [
            forge.public_jwk(RSA, kid="rsa", use="sig", alg="RS256"),
            forge.public_jwk(EC, kid="ec", use="sig", alg="ES256"),
        ]
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._discover)
        application.router.add_get("/keys", self._keys)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        self._port = 0

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.http = aiohttp.ClientSession(auto_decompress=False, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.stop()

    async def stop(self) -> None:
        """Go down: connections are refused from now on."""
        await self._runner.cleanup()

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def configured(self, **changed: Any) -> Issuer:
        """This provider as the configuration of a gateway names it."""
        return Issuer(**({"issuer": self.issuer, "client_id": CLIENT} | changed))

    def jwks(self) -> Jwks:
        return Jwks(self.issuer, self.http, None)

    def verifier(self, *, names_people: bool = False, **changed: Any) -> SignInVerifier:
        issuers = {self.issuer: (self.configured(**changed), self.jwks())}
        return SignInVerifier(issuers, names_people=names_people)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of an ID token issued now; None leaves one out."""
        good = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": "subject-1",
            "iat": NOW,
            "exp": NOW + 3600,
            "name": "Ada Lovelace",
            "email": "ada@example.com",
            "email_verified": True,
        }
        return {name: value for name, value in (good | changed).items() if value is not None}

    def token(self, header: dict[str, Any] | None = None, key: forge.PrivateKey = RSA, **changed: Any) -> str:
        """A token as this provider signs it."""
        head = {"alg": "RS256", "kid": "rsa", "typ": "JWT"} | (header or {})
        return forge.token(
            {name: value for name, value in head.items() if value is not None},
            self.claims(**changed),
            key,
            str(head["alg"]) if key is RSA else "ES256",
        )

    async def publish(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"keys": self.keys})

    async def _discover(self, _request: web.Request) -> web.StreamResponse:
        document = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"} | self.discovery
        return web.Response(body=json.dumps(document).encode(), content_type="application/json")

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        self.fetches += 1
        return await self.answer(request)


async def sign_in(verifier: SignInVerifier, token: str, kind: str = ID_TOKEN_TYPE, now: float = NOW) -> SignIn:
    return await verifier.verify(Secret(token), kind, now)
