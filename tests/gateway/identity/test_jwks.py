"""A provider's keys, fetched from a real server that misbehaves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.identity import jwks
from llmgw_gateway.identity.jwks import MOST_BYTES, ProviderUnavailableError
from tests.gateway.identity import forge
from tests.gateway.identity.provider import EC, RSA, Provider

if TYPE_CHECKING:
    from tests.gateway.identity.provider import Answer

GOOD = forge.public_jwk(EC, kid="ec")


def says(body: bytes, status: int = 200, kind: str = "application/json") -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=kind)

    return answer


async def test_the_keys_are_found_by_their_names(provider: Provider) -> None:
    keys = provider.jwks()
    rsa, ec = await keys.get("rsa"), await keys.get("ec")
    assert rsa is not None
    assert ec is not None
    assert (type(rsa.key).__name__, type(ec.key).__name__) == ("RSAPublicKey", "ECPublicKey")
    assert await keys.get("other") is None
    assert provider.fetches == 1


ANSWERS: dict[str, Answer] = {
    "HTML": says(b"<html>Sign in to the guest network</html>", kind="text/html"),
    "nothing": says(b""),
    "an error": says(b'{"keys":[]}', status=500),
    "no list": says(b'{"keys": 5}'),
    "no keys member": says(b"{}"),
    "keys null": says(b'{"keys": null}'),
    "a list": says(b"[]"),
    "only symmetric keys": says(b'{"keys":[{"kty":"oct","kid":"ec","k":"AAAA"}]}'),
    "keys for encryption only": says(
        forge.raw({"keys": [GOOD | {"use": "enc"}]}),
    ),
    "JSON 30,000 deep": says(b'{"keys":' + b"[" * 30_000),
    "a key that is a number": says(b'{"keys":[5]}'),
    "a type that is a list": says(b'{"keys":[{"kty":["EC"],"kid":"ec"}]}'),
    "a coordinate that is a number": says(forge.raw({"keys": [GOOD | {"x": 5}]})),
    "a modulus that is a number": says(forge.raw({"keys": [forge.public_jwk(RSA, kid="rsa") | {"n": 5}]})),
    "not UTF-8": says(b'{"keys":["\xff"]}'),
    "one byte too many": says(forge.raw({"keys": [GOOD]}).ljust(MOST_BYTES + 1)),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_without_usable_keys_is_as_good_as_none(provider: Provider, case: str) -> None:
    provider.answer = ANSWERS[case]
    with pytest.raises(ProviderUnavailableError):
        await provider.jwks().get("ec")


async def test_an_answer_of_exactly_the_largest_size_is_read(provider: Provider) -> None:
    provider.answer = says(forge.raw({"keys": [GOOD]}).ljust(MOST_BYTES))
    assert await provider.jwks().get("ec")


async def test_an_endless_answer_is_cut_off(provider: Provider) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        try:
            while sent < 1024**3:
                await response.write(b" " * MOST_BYTES)
                sent += MOST_BYTES
        except (ConnectionError, aiohttp.ClientError):
            pass
        return response

    provider.answer = endless
    with pytest.raises(ProviderUnavailableError):
        await provider.jwks().get("ec")
    assert sent < 64 * 1024**2  # what both kernels had room for, not what the server wanted to send


async def test_a_redirect_is_not_followed(provider: Provider) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        if "moved" in request.query:
            return await provider.publish(request)
        return web.Response(status=302, headers={"location": f"{provider.issuer}/keys?moved=1"})

    provider.answer = elsewhere
    with pytest.raises(ProviderUnavailableError):
        await provider.jwks().get("ec")
    assert provider.fetches == 1


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"jwks_uri": "http://203.0.113.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"jwks_uri": ""},
        {"jwks_uri": "http://[::1"},
        {"jwks_uri": 5},
    ],
    ids=str,
)
async def test_a_discovery_document_that_leads_astray_is_not_followed(
    provider: Provider, discovery: dict[str, Any]
) -> None:
    provider.discovery = discovery
    with pytest.raises(ProviderUnavailableError):
        await provider.jwks().get("ec")
    assert provider.fetches == 0


JUNK: list[Any] = [
    None,
    "text",
    [],
    {},
    {"kty": "EC"},
    {"kty": ["EC"]},
    {"kty": "oct", "k": "AAAA", "kid": "ec"},
    GOOD | {"x": 5},
    GOOD | {"kid": "broken", "x": "AAAA"},
    GOOD | {"kid": "curve", "crv": "P-999"},
    GOOD | {"kid": "alg", "alg": "XX999"},
    forge.public_jwk(RSA) | {"n": ["AAAA"]},
    {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "okp"},
]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
async def test_a_key_that_cannot_be_used_does_not_hide_those_that_can(provider: Provider, junk: object) -> None:
    provider.keys = [junk, GOOD]
    assert await provider.jwks().get("ec")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["EC", "RSA", "OKP", "P-256"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["keys", "other"]), json_values, max_size=2))
@example({"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"}]})
def test_a_key_set_of_any_shape_gives_keys_or_a_value_error(document: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert jwks._keys(document)
