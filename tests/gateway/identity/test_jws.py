"""Both verifiers against generated wrong signatures, and joserfc as the judge of what they accept."""

from __future__ import annotations

import contextlib
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError
from joserfc.jwk import import_key
from joserfc.jwt import JWTClaimsRegistry

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import tokens
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret
from tests.gateway.identity import forge, jws_cases
from tests.gateway.identity.jws_cases import KEYS
from tests.gateway.identity.provider import Provider, sign_in

if TYPE_CHECKING:
    from llmgw_gateway.identity.tokens import TokenClaims

NOW = 1_790_000_000
ISSUER, AUDIENCE = "https://gateway.example", "llmgw"
KEY = KEYS["ES256"]
HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": "own"}
PAYLOAD = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "per_1",
    "client_id": "client",
    "jti": "tok_1",
    "sid": "ses_1",
    "access_key": "key_1",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 600,
}
FEWEST_CASES = 20


def believed(token: str) -> TokenClaims | None:
    """What we make of a gateway token; None: refused as such a token is."""
    try:
        return tokens.verify(Secret(token), {"own": KEY.public_key()}, issuer=ISSUER, audience=AUDIENCE, now=NOW)  # type: ignore[dict-item] # ES256
    except GatewayError:
        return None


def judged(token: str, key: forge.PrivateKey, algorithm: str) -> dict[str, Any] | None:
    """What the second implementation says of a signature: the claims below it; None: that it is wrong."""
    try:
        return dict(joserfc_jwt.decode(token, import_key(forge.public_jwk(key)), algorithms=[algorithm]).claims)
    except (JoseError, ValueError):
        return None


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864")  # the judge's; providers use this name
@pytest.mark.parametrize("algorithm", KEYS)
async def test_no_wrong_signature_is_believed_by_the_exchange_nor_by_the_judge(
    provider: Provider, algorithm: str
) -> None:
    key = KEYS[algorithm]
    provider.keys = [forge.public_jwk(key, kid="own")]
    verifier = provider.verifier(algorithms=(algorithm,))
    good = forge.token({"alg": algorithm, "kid": "own"}, provider.claims(), key, algorithm)
    assert (await sign_in(verifier, good)).subject == "subject-1"
    assert judged(good, key, algorithm) == provider.claims()
    signed, _, signature = good.rpartition(".")
    wrong = dict(jws_cases.signatures(key, signed.encode(), forge.unb64(signature), algorithm))
    assert len(wrong) >= FEWEST_CASES
    accepted = []
    for name, other in wrong.items():
        token = forge.resigned(good, other)
        with contextlib.suppress(GatewayError):
            await sign_in(verifier, token)
            accepted.append(name)
        assert judged(token, key, algorithm) is None, name
    assert accepted == []


def test_no_wrong_signature_is_believed_by_the_gateway() -> None:
    good = forge.token(HEADER, PAYLOAD, KEY)
    assert believed(good)
    signed, _, signature = good.rpartition(".")
    wrong = dict(jws_cases.signatures(KEY, signed.encode(), forge.unb64(signature), "ES256"))
    assert [name for name, other in wrong.items() if believed(forge.resigned(good, other))] == []


@pytest.mark.parametrize(("published", "algorithm"), list(permutations(KEYS, 2)))
async def test_a_key_serves_no_other_algorithm(provider: Provider, published: str, algorithm: str) -> None:
    """Signed by the right key, under the name of an algorithm that is accepted here, but not for this key."""
    key = KEYS[published]
    provider.keys = [forge.public_jwk(key, kid="own", alg=published)]
    verifier = provider.verifier(algorithms=tuple(KEYS))
    signs_as = published if "EdDSA" in {published, algorithm} else algorithm
    token = forge.token({"alg": algorithm, "kid": "own"}, provider.claims(), key, signs_as)
    with pytest.raises(GatewayError) as caught:
        await sign_in(verifier, token)
    assert caught.value.code is ErrorCode.SIGN_IN_INVALID
    good = forge.token({"alg": published, "kid": "own"}, provider.claims(), key, published)
    assert (await sign_in(verifier, good)).subject == "subject-1"


STRANGE: list[Any] = [
    None,
    True,
    0,
    -1,
    NOW + 3600,
    NOW - 3600,
    1e9,
    10**400,
    float("inf"),
    float("nan"),
    str(NOW),
    "",
    "\0",
    "per_2",
    "\ud800",
    [],
    ["llmgw"],
    ["llmgw", "other"],
    {},
    {"a": 1},
]
members = st.dictionaries(
    st.sampled_from([*HEADER, "crit", "b64", "jwk", "jku", "zip", "cty"]), st.sampled_from(STRANGE)
)
claims = st.dictionaries(st.sampled_from([*PAYLOAD, "cnf", "act", "scope"]), st.sampled_from(STRANGE), max_size=3)


@given(st.just({}) | members, claims, st.sampled_from([KEY, forge.ec_key()]))
def test_whatever_is_believed_is_believed_by_a_second_implementation(
    header: dict[str, Any], payload: dict[str, Any], key: forge.PrivateKey
) -> None:
    token = forge.token(HEADER | header, PAYLOAD | payload, key)
    ours = believed(token)
    if ours is None:
        return
    theirs = judged(token, KEY, "ES256")
    assert theirs is not None
    registry = JWTClaimsRegistry(
        now=lambda: NOW,
        leeway=tokens.LEEWAY,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
        sub={"essential": True, "value": ours.person_id},
        sid={"essential": True, "value": ours.session},
        jti={"essential": True, "value": ours.token_id},
    )
    registry.validate(theirs)


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("AQgw_-.=+/ \n")), min_size=1, max_size=3))
def test_a_token_with_characters_changed_or_added_is_believed_by_nobody_or_by_both(
    edits: list[tuple[float, str]],
) -> None:
    good = forge.token(HEADER, PAYLOAD, KEY)
    changed = good
    for place, character in edits:
        at = int(place * (len(changed) - 1))
        changed = changed[:at] + character + changed[at + (character not in ".=") :]
    if believed(changed):
        assert judged(changed, KEY, "ES256") == PAYLOAD
