"""Tokens that are bound to a device: each request that carries one is proven by its key, once (RFC 9449 section 7)."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import dpop, tokens
from llmgw_wire.errors import ErrorCode
from tests.gateway.identity import forge
from tests.gateway.identity.test_authenticate import AUDIENCE, ISSUER, Bench, bench, headers

if TYPE_CHECKING:
    from llmgw_gateway.call import Caller
    from llmgw_gateway.identity.authenticate import Authenticator

__all__ = ["bench"]
DEVICE, OTHER = forge.ec_key(), forge.ec_key()
THUMBPRINT = forge.thumbprint(forge.public_jwk(DEVICE))
PATH = "/v1/messages"


def minted(bench: Bench) -> str:
    now = int(time.time())
    claims = tokens.TokenClaims("per_1", "ses_1", "key_1", "tok_1", "client", now, now + 600, THUMBPRINT)
    assert bench.ring.key is not None
    return tokens.mint(claims, issuer=ISSUER, audience=AUDIENCE, kid=bench.ring.kid, key=bench.ring.key).reveal()


def proof(token: str, device: Any = DEVICE, **changed: Any) -> str:
    ath = forge.b64(hashlib.sha256(token.encode()).digest())
    return forge.proof(device, url=ISSUER + PATH, **({"ath": ath} | changed))


def ask(door: Authenticator, token: str, *proofs: str, scheme: str = "DPoP", target: str = PATH) -> Caller:
    pairs = [("Authorization", f"{scheme} {token}"), *(("DPoP", each) for each in proofs)]
    return door.authenticate(headers(*pairs), "POST", target)


async def test_the_device_is_let_in_with_a_proof_for_each_request(bench: Bench) -> None:
    door, token = bench.authenticator(), minted(bench)
    for target in (PATH, f"{PATH}?beta=true"):
        assert ask(door, token, proof(token), target=target).person_id == "per_1"
    assert ask(door, token, proof(token), scheme="Bearer").person_id == "per_1", "the proof counts, not the word"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"htm": "GET"}, "another request"),
        ({"htu": f"{ISSUER}/v1/models"}, "another request"),
        ({"htu": f"https://evil.example{PATH}"}, "another request"),
        ({"ath": forge.b64(hashlib.sha256(b"other").digest())}, "another token"),
        ({"ath": None}, "another token"),
        ({"iat": int(time.time()) - dpop.WINDOW_SECONDS - 60}, "its time"),
        ({"device": OTHER}, "another device"),
    ],
)
async def test_a_proof_of_something_else_lets_nobody_in(bench: Bench, changed: dict[str, Any], why: str) -> None:
    door, token = bench.authenticator(), minted(bench)
    with pytest.raises(GatewayError, match=why) as caught:
        ask(door, token, proof(token, **changed))
    assert caught.value.code is ErrorCode.PROOF_INVALID


@pytest.mark.parametrize("scheme", ["DPoP", "Bearer"])
async def test_whoever_has_only_the_token_has_nothing(bench: Bench, scheme: str) -> None:
    door, token = bench.authenticator(), minted(bench)
    ask(door, token, proof(token))
    for proofs in ([], [proof(token), proof(token)]):
        with pytest.raises(GatewayError, match="exactly one"):
            ask(door, token, *proofs, scheme=scheme)
    with pytest.raises(GatewayError):
        door.authenticate(headers(("x-api-key", token)), "POST", PATH)
    with pytest.raises(GatewayError, match="another request"):
        door.authenticate(headers(("Authorization", f"DPoP {token}"), ("DPoP", proof(token))))


async def test_a_proof_is_good_once(bench: Bench) -> None:
    door, token = bench.authenticator(), minted(bench)
    used = proof(token)
    ask(door, token, used)
    with pytest.raises(GatewayError, match="used before"):
        ask(door, token, used)
    ask(door, token, proof(token))


@pytest.mark.parametrize("binding", [None, "x", {}, {"jkt": 1}, {"jkt": ""}, {"jkt": "a b"}, {"jkt": "a", "x5t": "b"}])
async def test_a_binding_that_is_not_understood_is_no_token(bench: Bench, binding: object) -> None:
    now = int(time.time())
    assert bench.ring.key is not None
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "per_1",
        "client_id": "c",
        "jti": "t",
        "sid": "s",
        "access_key": "k",
    }
    times = {"iat": now, "nbf": now, "exp": now + 60}
    made = forge.token({"alg": "ES256", "typ": "at+jwt", "kid": bench.ring.kid}, payload | times, bench.ring.key)
    bad = forge.token(
        {"alg": "ES256", "typ": "at+jwt", "kid": bench.ring.kid}, payload | times | {"cnf": binding}, bench.ring.key
    )
    door = bench.authenticator()
    assert door.authenticate(headers(("Authorization", f"Bearer {made}"))).person_id == "per_1"
    with pytest.raises(GatewayError) as caught:
        ask(door, bad, proof(bad))
    assert caught.value.code is ErrorCode.TOKEN_INVALID
