"""Hostile ID tokens, judged with a provider's documents that come over real HTTP; signatures are real."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from llmgw_agent.errors import ConfigurationError, RefusedError, TemporaryError
from llmgw_agent.session.id_token import Discovery, account_of, validate
from llmgw_wire.messages import IssuerOffer
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from llmgw_agent.outgoing import Outgoing

Token = Callable[[str], Secret]
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
ACCESS = Secret("access")
AT_HASH = base64.urlsafe_b64encode(hashlib.sha256(b"access").digest()[:16]).rstrip(b"=").decode()
KEYS = {
    "keys": [
        RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True) | {"kid": "r", "use": "sig", "alg": "RS256"},
        ECAlgorithm.to_jwk(CURVE.public_key(), as_dict=True) | {"kid": "e", "use": "sig", "alg": "ES256"},
        RSAAlgorithm.to_jwk(OTHER.public_key(), as_dict=True) | {"kid": "enc", "use": "enc"},
    ]
}


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": issuer, "aud": "llmgw-agent", "sub": "ada", "iat": now, "exp": now + 300, "nonce": "n"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(payload: dict[str, Any], key: Any = KEY, algorithm: str = "RS256", **header: Any) -> Secret:
    return Secret(jwt.encode(payload, key, algorithm=algorithm, headers={"kid": "r"} | header))


@dataclass
class Provider:
    """Serves metadata and keys, both to be spoilt by a test."""

    issuer: str
    metadata: dict[str, Any]
    keys: str = json.dumps(KEYS)
    key_fetches: int = 0

    @property
    def offer(self) -> IssuerOffer:
        return IssuerOffer(issuer=self.issuer, client_id="llmgw-agent")

    async def serve_metadata(self, _request: web.Request) -> web.Response:
        return web.json_response(self.metadata)

    async def serve_keys(self, _request: web.Request) -> web.Response:
        self.key_fetches += 1
        return web.Response(text=self.keys)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider("", {})
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", made.serve_metadata)
    app.router.add_get("/jwks", made.serve_keys)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
    made.metadata = {
        "issuer": made.issuer,
        "authorization_endpoint": f"{made.issuer}/auth",
        "token_endpoint": f"{made.issuer}/token",
        "jwks_uri": f"{made.issuer}/jwks",
        "id_token_signing_alg_values_supported": ["none", "HS256", "RS256", "ES256"],
    }
    yield made
    await runner.cleanup()


@pytest.fixture
def discovery(outgoing: Outgoing) -> Discovery:
    return Discovery(outgoing)


@pytest.mark.parametrize(
    "token",
    [
        lambda i: signed(claims(i)),
        lambda i: signed(claims(i, at_hash=AT_HASH)),
        lambda i: signed(claims(i, aud=["llmgw-agent"], azp="llmgw-agent")),
        lambda i: signed(claims(i, aud=["llmgw-agent", "other"], azp="llmgw-agent")),
        lambda i: signed(claims(i), CURVE, "ES256", kid="e"),
        lambda i: signed(claims(i, exp=int(time.time()) - 60)),
    ],
)
async def test_good_tokens(discovery: Discovery, provider: Provider, token: Token) -> None:
    found = await validate(
        discovery, provider.offer, token(provider.issuer), nonce="n", now=time.time(), access_token=ACCESS
    )
    assert account_of(found, "oidc").subject == "ada"


@pytest.mark.parametrize(
    "token",
    [
        lambda _: Secret("garbage"),
        lambda _: Secret(""),
        lambda _: Secret("a.b.c"),
        lambda i: signed(claims(i, iss="https://op.example/")),
        lambda i: signed(claims(i, iss="https://evil.example")),
        lambda i: signed(claims(i, aud="another-client")),
        lambda i: signed(claims(i, aud=None)),
        lambda i: signed(claims(i, azp="another-client")),
        lambda i: signed(claims(i, aud=["llmgw-agent", "other"])),
        lambda i: signed(claims(i, sub=None)),
        lambda i: signed(claims(i, iat=None)),
        lambda i: signed(claims(i, exp=None)),
        lambda i: signed(claims(i, exp=int(time.time()) - 600)),
        lambda i: signed(claims(i, iat=int(time.time()) + 600)),
        lambda i: signed(claims(i, nbf=int(time.time()) + 600)),
        lambda i: signed(claims(i, exp=True)),
        lambda i: signed(claims(i, iat="now")),
        lambda i: signed(claims(i, exp=[4102444800])),
        lambda i: signed(claims(i, nonce="another")),
        lambda i: signed(claims(i, nonce=None)),
        lambda i: signed(claims(i, nonce=7)),
        lambda i: signed(claims(i, at_hash="AAAA")),
        lambda i: signed(claims(i), OTHER),
        lambda i: signed(claims(i), OTHER, kid="enc"),
        lambda i: signed(claims(i), kid="unknown"),
        lambda i: signed(claims(i), "k" * 64, "HS256"),
        lambda i: signed(claims(i), None, "none"),
        lambda i: signed(claims(i), KEY, "PS256"),
        lambda i: signed(claims(i), typ="at+jwt"),
        lambda i: signed(claims(i), CURVE, "ES256"),
    ],
)
async def test_hostile_tokens(discovery: Discovery, provider: Provider, token: Token) -> None:
    hostile = token(provider.issuer)
    with pytest.raises(RefusedError) as failure:
        await validate(discovery, provider.offer, hostile, nonce="n", now=time.time(), access_token=ACCESS)
    assert not hostile or hostile.reveal() not in failure.value.line


async def test_unknown_keys_cause_one_fetch(discovery: Discovery, provider: Provider) -> None:
    for number in range(20):
        with pytest.raises(RefusedError):
            await validate(
                discovery, provider.offer, signed(claims(provider.issuer), kid=f"k{number}"), nonce="n", now=time.time()
            )
    assert provider.key_fetches == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "{issuer}/"},
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://op.example/token"},
        {"token_endpoint": 7},
        {"jwks_uri": None},
        {"id_token_signing_alg_values_supported": ["none", "HS256"]},
    ],
)
async def test_discovery_is_believed_only_if_it_is_exact(
    discovery: Discovery, provider: Provider, changes: dict[str, Any]
) -> None:
    changes = {
        name: value.format(issuer=provider.issuer) if isinstance(value, str) else value
        for name, value in changes.items()
    }
    provider.metadata |= changes
    with pytest.raises(ConfigurationError):
        await discovery.metadata(provider.issuer)


@pytest.mark.parametrize(
    "keys", ["<html>", "[]", '{"keys": []}', '{"keys": 7}', '{"keys": [{"kty": "oct", "k": "AA"}]}']
)
async def test_a_key_set_that_is_none_is_temporary_or_refused(
    discovery: Discovery, provider: Provider, keys: str
) -> None:
    provider.keys = keys
    with pytest.raises((TemporaryError, RefusedError)):
        await validate(discovery, provider.offer, signed(claims(provider.issuer)), nonce="n", now=time.time())


def test_names_for_people_are_cut_and_printable() -> None:
    account = account_of(
        claims("i", name="A\x1b[31m\n" + "x" * 999, email=7, preferred_username="ada@example.com"), "oidc"
    )
    assert account.name.startswith("A[31mx")
    assert len(account.name) == 256
    assert account.email == "ada@example.com"
    assert account_of(claims("i", tid="t", oid="o"), "entra").subject == "t/o"
