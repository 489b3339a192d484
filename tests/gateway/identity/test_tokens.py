"""Gateway tokens: every row of the hostile-token table, and properties beyond it."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import ECKey

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import tokens
from llmgw_gateway.identity.tokens import MOST_CHARACTERS, TokenClaims
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret
from tests.gateway.identity import forge
from tests.gateway.identity.forge import b64

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_790_000_000
KEY = forge.ec_key()
STRANGER = forge.ec_key()
KID = "the-kid"
RING = {KID: KEY.public_key()}
ISSUER, AUDIENCE = "https://gateway.example", "llmgw"
CLAIMS = TokenClaims("per_1", "ses_1", "key_1", "tok_1", "client", NOW, NOW + 600)
HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": KID}
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
GOOD = forge.token(HEADER, PAYLOAD, KEY)


def verify(token: str, now: float = NOW) -> TokenClaims:
    return tokens.verify(Secret(token), RING, issuer=ISSUER, audience=AUDIENCE, now=now)


def refusal(token: str, now: float = NOW) -> ErrorCode:
    with pytest.raises(GatewayError) as caught:
        verify(token, now)
    assert len(token) < 40 or token not in caught.value.message
    return caught.value.code


def header(**changed: Any) -> str:
    """A token truly signed, with another header; None leaves a member out."""
    return forge.token({k: v for k, v in (HEADER | changed).items() if v is not None}, PAYLOAD, KEY)


def payload(**changed: Any) -> str:
    """A token truly signed, with other claims; None leaves one out."""
    return forge.token(HEADER, {k: v for k, v in (PAYLOAD | changed).items() if v is not None}, KEY)


def unsigned(alg: Any) -> str:
    return f"{b64(forge.raw(HEADER | {'alg': alg}))}.{b64(forge.raw(PAYLOAD))}."


def hs256_with_the_public_key() -> str:
    signed = f"{b64(forge.raw(HEADER | {'alg': 'HS256'}))}.{b64(forge.raw(PAYLOAD))}"
    return f"{signed}.{b64(hmac.new(forge.pem(KEY), signed.encode(), hashlib.sha256).digest())}"


def with_text(text: bytes, of: bytes, by: bytes) -> str:
    """A token truly signed whose payload (or header) text has one place changed."""
    if of in forge.raw(HEADER):
        return forge.token(forge.raw(HEADER).replace(of, by), text, KEY)
    return forge.token(HEADER, text.replace(of, by), KEY)


TEXT = forge.raw(PAYLOAD)
HOSTILE: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned("none"),
    "alg NoNe": lambda: unsigned("NoNe"),
    "alg none with a signature": lambda: header(alg="none"),
    "alg missing": lambda: header(alg=None),
    "alg a list": lambda: header(alg=["ES256"]),
    "alg null": lambda: forge.token(forge.raw(HEADER).replace(b'"ES256"', b"null"), PAYLOAD, KEY),
    "alg in lower case": lambda: header(alg="es256"),
    "alg of another curve": lambda: header(alg="ES384"),
    "HS256 with the public PEM": hs256_with_the_public_key,
    "embedded jwk of a stranger": lambda: forge.token(HEADER | {"jwk": forge.public_jwk(STRANGER)}, PAYLOAD, STRANGER),
    "embedded jwk, truly signed": lambda: header(jwk=forge.public_jwk(KEY)),
    "jku": lambda: header(jku="https://evil.example/jwks.json"),
    "x5u": lambda: header(x5u="https://evil.example/x"),
    "unknown crit": lambda: header(crit=["exp"], exp=1),
    "b64 false": lambda: header(b64=False),
    "zip": lambda: header(zip="DEF"),
    "any other header member": lambda: header(x="y"),
    "kid a path": lambda: header(kid="../../dev/null"),
    "kid unknown": lambda: header(kid="other"),
    "kid missing": lambda: header(kid=None),
    "kid a list": lambda: header(kid=[KID]),
    "kid a number": lambda: header(kid=0),
    "signed by a stranger under a known kid": lambda: forge.token(HEADER, PAYLOAD, STRANGER),
    "r and s zero": lambda: forge.resigned(GOOD, bytes(64)),
    "r and s the order": lambda: forge.resigned(GOOD, forge.P256_ORDER.to_bytes(32, "big") * 2),
    "signature empty": lambda: GOOD.rpartition(".")[0] + ".",
    "signature in DER": lambda: forge.resigned(GOOD, b"\x30\x06\x02\x01\x01\x02\x01\x01"),
    "signature padded": lambda: GOOD + "==",
    "typ missing": lambda: header(typ=None),
    "typ JWT": lambda: header(typ="JWT"),
    "typ of a proof": lambda: header(typ="dpop+jwt"),
    "typ a list": lambda: header(typ=["at+jwt"]),
    "exp a string": lambda: payload(exp=str(NOW + 600)),
    "exp a fraction": lambda: payload(exp=NOW + 600.5),
    "exp Infinity": lambda: payload(exp=float("inf")),
    "exp NaN": lambda: payload(exp=float("nan")),
    "exp true": lambda: payload(exp=True),
    "exp missing": lambda: payload(exp=None),
    "iat missing": lambda: payload(iat=None),
    "nbf missing": lambda: payload(nbf=None),
    "iat a string": lambda: payload(iat=str(NOW)),
    "iat one hour ahead": lambda: payload(iat=NOW + 3600, exp=NOW + 7200),
    "nbf one hour ahead": lambda: payload(nbf=NOW + 3600),
    "aud another": lambda: payload(aud="other"),
    "aud a list with a stranger": lambda: payload(aud=[AUDIENCE, "stranger"]),
    "aud a list": lambda: payload(aud=[AUDIENCE]),
    "aud missing": lambda: payload(aud=None),
    "iss another": lambda: payload(iss="https://evil.example"),
    "iss with a slash": lambda: payload(iss=ISSUER + "/"),
    "iss missing": lambda: payload(iss=None),
    "sub twice": lambda: with_text(TEXT, b'"sub":"per_1"', b'"sub":"per_2","sub":"per_1"'),
    "sub twice, once escaped": lambda: with_text(TEXT, b'"sub":"per_1"', b'"s\\u0075b":"per_2","sub":"per_1"'),
    "a name twice, deep inside": lambda: with_text(TEXT, b'"sub":"per_1"', b'"sub":"per_1","x":{"a":1,"a":2}'),
    "alg twice": lambda: with_text(TEXT, b'"alg":"ES256"', b'"alg":"none","alg":"ES256"'),
    "sub with NUL": lambda: payload(sub="per_1\0"),
    "sub with a line break": lambda: payload(sub="per_1\n"),
    "sub empty": lambda: payload(sub=""),
    "sub too long": lambda: payload(sub="p" * 65),
    "sub not ASCII": lambda: payload(sub="per_\u0661"),
    "sub a lone surrogate": lambda: payload(sub="\ud800"),
    "sub a number": lambda: payload(sub=1),
    "sub missing": lambda: payload(sub=None),
    "sid with a path": lambda: payload(sid="../ses_1"),
    "access_key missing": lambda: payload(access_key=None),
    "access_key with a slash": lambda: payload(access_key="key/1"),
    "sid missing": lambda: payload(sid=None),
    "jti missing": lambda: payload(jti=None),
    "client_id a list": lambda: payload(client_id=["client"]),
    "JSON 60,000 deep": lambda: forge.token(HEADER, b"[" * 60_000, KEY),
    "JSON as deep as fits": lambda: forge.token(HEADER, b'{"a":' + b"[" * 5_500, KEY),
    "payload a list": lambda: forge.token(HEADER, b"[]", KEY),
    "payload no JSON": lambda: forge.token(HEADER, b"{", KEY),
    "payload not UTF-8": lambda: forge.token(HEADER, b'{"a":"\xff"}', KEY),
    "header a list": lambda: forge.token(b'["alg"]', PAYLOAD, KEY),
    "a number of 5,000 digits": lambda: with_text(TEXT, b'"iat":', b'"x":' + b"9" * 5000 + b',"iat":'),
    "longer than any of ours": lambda: payload(x="x" * MOST_CHARACTERS),
    "empty": lambda: "",
    "two parts": lambda: GOOD.rpartition(".")[0],
    "four parts": lambda: GOOD + ".AAAA",
    "five parts, as of an encrypted token": lambda: GOOD + ".AAAA.AAAA",
    "a line break at the end": lambda: GOOD + "\n",
    "a space in front": lambda: " " + GOOD,
    "the standard alphabet": lambda: "+/" + GOOD[2:],
    "not ASCII": lambda: "\u0660" + GOOD,
    "a byte that is no UTF-8": lambda: "\udcff" + GOOD,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_token_is_refused(case: str) -> None:
    assert refusal(HOSTILE[case]()) is ErrorCode.TOKEN_INVALID


def test_the_token_that_the_hostile_ones_are_made_from_is_good() -> None:
    assert verify(GOOD) == CLAIMS


def test_the_other_form_of_a_signature_says_the_same_and_names_nobody_else() -> None:
    # (r, n - s) is valid by ECDSA: accepted, hence a signature may never serve as an identity.
    assert forge.malleated(GOOD) != GOOD
    assert verify(forge.malleated(GOOD)) == CLAIMS


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (NOW + 604.9, None),
        (NOW + 605, ErrorCode.TOKEN_EXPIRED),
        (NOW + 10**9, ErrorCode.TOKEN_EXPIRED),
        (NOW - 5, None),
        (NOW - 5.1, ErrorCode.TOKEN_INVALID),
    ],
)
def test_a_token_holds_from_its_issue_to_its_end_and_five_seconds_beyond(now: float, code: ErrorCode | None) -> None:
    if code is None:
        assert verify(GOOD, now) == CLAIMS
    else:
        assert refusal(GOOD, now) is code


identifiers = st.text("ABCXYZabcxyz0189_-", min_size=1, max_size=64)
claims = st.builds(
    TokenClaims,
    person_id=identifiers,
    session=identifiers,
    access_key=identifiers,
    token_id=identifiers,
    client_id=st.text(max_size=40),
    issued_at=st.integers(NOW - 300, NOW + 5),
    expires_at=st.integers(NOW, NOW + 3600),
)


@given(claims)
def test_what_is_minted_is_verified_and_a_second_implementation_agrees(minted: TokenClaims) -> None:
    token = tokens.mint(minted, issuer=ISSUER, audience=AUDIENCE, kid=KID, key=KEY)
    assert verify(token.reveal()) == minted
    theirs = joserfc_jwt.decode(token.reveal(), ECKey.import_key(KEY), algorithms=["ES256"])
    assert theirs.header == HEADER
    assert {name: theirs.claims[name] for name in ("iss", "aud", "sub", "sid", "jti", "client_id", "iat", "exp")} == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": minted.person_id,
        "sid": minted.session,
        "jti": minted.token_id,
        "client_id": minted.client_id,
        "iat": minted.issued_at,
        "exp": minted.expires_at,
    }


@given(st.integers(0, GOOD.rindex(".") - 1), st.sampled_from("ABYZabyz0189_-.=+ \n\0"))
def test_a_token_with_any_signed_character_changed_is_refused(position: int, character: str) -> None:
    changed = GOOD[:position] + character + GOOD[position + 1 :]
    if changed != GOOD:
        assert refusal(changed) is ErrorCode.TOKEN_INVALID


@given(st.binary(min_size=1, max_size=80))
def test_any_other_signature_is_refused(other: bytes) -> None:
    assert refusal(forge.resigned(GOOD, other)) is ErrorCode.TOKEN_INVALID


@given(st.text(st.characters(), max_size=100) | st.from_regex(r"[A-Za-z0-9_-]{1,30}(\.[A-Za-z0-9_-]{1,30}){2}"))
@example("e30.e30.AAAA")
@example("bnVsbA.bnVsbA.AAAA")
def test_a_text_of_any_kind_is_refused_and_nothing_worse(text: str) -> None:
    assert refusal(text) is ErrorCode.TOKEN_INVALID


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_signed_bytes_of_any_kind_are_refused_and_nothing_worse(head: bytes, body: bytes) -> None:
    assert refusal(forge.token(head, body, KEY)) is ErrorCode.TOKEN_INVALID


def test_the_gate_gives_the_header_of_a_well_formed_token_and_checks_no_signature() -> None:
    allowed = frozenset({"alg", "kid", "typ"})
    assert tokens.gate(forge.resigned(GOOD, b"x"), allowed=allowed) == HEADER
    assert tokens.gate(forge.token({}, {}, KEY), allowed=frozenset()) == {}


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "kid ", "KID", ""])
def test_the_gate_lets_in_only_the_header_members_it_was_given(name: str) -> None:
    with pytest.raises(GatewayError):
        tokens.gate(header(**{name: "x"}), allowed=frozenset({"alg", "kid", "typ"}))
    assert tokens.gate(header(**{name: "x"}), allowed=frozenset({"alg", "kid", "typ", name}))[name] == "x"


def test_the_gate_reads_up_to_the_limit_and_not_one_character_more() -> None:
    short = forge.resigned(forge.token({}, {}, KEY), b"x")
    longest = short + "A" * (MOST_CHARACTERS - len(short))
    assert tokens.gate(longest, allowed=frozenset()) == {}
    with pytest.raises(GatewayError):
        tokens.gate(longest + "A", allowed=frozenset())
