"""DPoP proofs: whose device asks, for this request, now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import dpop
from llmgw_wire.errors import ErrorCode
from tests.gateway.identity import forge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmgw_gateway.identity.dpop import Proof

NOW = 1_790_000_000
URL = "https://gateway.example/oauth/token"
DEVICE = forge.ec_key()
JWK = forge.public_jwk(DEVICE)
HEADER = {"typ": "dpop+jwt", "alg": "ES256", "jwk": JWK}
PAYLOAD = {"htm": "POST", "htu": URL, "iat": NOW, "jti": "proof-1"}
GOOD = forge.token(HEADER, PAYLOAD, DEVICE)

# RFC 9449, section 4.1, to the byte.
RFC_PROOF = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rsc"
    "EJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In"
    "19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiw"
    "iaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)


def verify(*proofs: str, now: float = NOW) -> Proof:
    return dpop.verify(proofs, method="POST", url=URL, now=now)


def refusal(proofs: Sequence[str], now: float = NOW) -> str:
    with pytest.raises(GatewayError) as caught:
        verify(*proofs, now=now)
    assert caught.value.code is ErrorCode.PROOF_INVALID
    return caught.value.message


def header(**changed: Any) -> str:
    return forge.token({k: v for k, v in (HEADER | changed).items() if v is not None}, PAYLOAD, DEVICE)


def payload(**changed: Any) -> str:
    return forge.token(HEADER, {k: v for k, v in (PAYLOAD | changed).items() if v is not None}, DEVICE)


def own_key(key: forge.PrivateKey, algorithm: str) -> str:
    """A proof by a key of another kind, consistent in itself."""
    return forge.token(HEADER | {"alg": algorithm, "jwk": forge.public_jwk(key)}, PAYLOAD, key, algorithm)


def test_the_proof_of_the_rfc_is_good() -> None:
    proof = dpop.verify([RFC_PROOF], method="POST", url="https://server.example.com/token", now=1_562_262_616)
    assert proof.device == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_a_good_proof_names_the_device_by_its_thumbprint() -> None:
    assert verify(GOOD).device == forge.thumbprint(JWK)


HOSTILE: dict[str, Callable[[], str]] = {
    "another method": lambda: payload(htm="GET"),
    "the method in lower case": lambda: payload(htm="post"),
    "no method": lambda: payload(htm=None),
    "another URL": lambda: payload(htu="https://evil.example/oauth/token"),
    "another path": lambda: payload(htu=URL + "/"),
    "another scheme": lambda: payload(htu=URL.replace("https", "http")),
    "no URL": lambda: payload(htu=None),
    "a URL in a list": lambda: payload(htu=[URL]),
    "too old": lambda: payload(iat=NOW - 121),
    "from the future": lambda: payload(iat=NOW + 121),
    "its time a string": lambda: payload(iat=str(NOW)),
    "its time true": lambda: payload(iat=True),
    "its time a fraction": lambda: payload(iat=NOW + 0.5),
    "its time larger than any float": lambda: payload(iat=10**400),
    "its time infinite": lambda: payload(iat=float("inf")),
    "no time": lambda: payload(iat=None),
    "no jti": lambda: payload(jti=None),
    "jti empty": lambda: payload(jti=""),
    "jti a number": lambda: payload(jti=7),
    "jti too long": lambda: payload(jti="j" * 129),
    "jti a lone surrogate": lambda: payload(jti="\ud800"),
    "alg none": lambda: header(alg="none"),
    "alg HS256": lambda: header(alg="HS256"),
    "alg missing": lambda: header(alg=None),
    "typ JWT": lambda: header(typ="JWT"),
    "typ at+jwt": lambda: header(typ="at+jwt"),
    "typ missing": lambda: header(typ=None),
    "no key": lambda: header(jwk=None),
    "the key a text": lambda: header(jwk="key"),
    "the key empty": lambda: header(jwk={}),
    "the key with its private half": lambda: header(jwk=JWK | {"d": "AAAA"}),
    "the key another's": lambda: header(jwk=forge.public_jwk(forge.ec_key())),
    "the key not on the curve": lambda: header(jwk=JWK | {"y": JWK["x"]}),
    "the key zero": lambda: header(jwk=JWK | {"x": forge.b64(bytes(32)), "y": forge.b64(bytes(32))}),
    "a coordinate a number": lambda: header(jwk=JWK | {"x": 5}),
    "a coordinate missing": lambda: header(jwk={name: JWK[name] for name in ("kty", "crv", "x")}),
    "a symmetric key": lambda: header(jwk={"kty": "oct", "k": "AAAA"}),
    "an RSA key": lambda: own_key(rsa.generate_private_key(65537, 2048), "RS256"),
    "a P-384 key": lambda: own_key(ec.generate_private_key(ec.SECP384R1()), "ES384"),
    "a P-384 key under ES256": lambda: own_key(ec.generate_private_key(ec.SECP384R1()), "ES256"),
    "a kid": lambda: header(kid="x"),
    "a jku": lambda: header(jku="https://evil.example"),
    "crit": lambda: header(crit=["exp"]),
    "padded": lambda: GOOD + "==",
    "jti twice": lambda: forge.token(HEADER, forge.raw(PAYLOAD).replace(b'"jti"', b'"jti":"a","jti"'), DEVICE),
    "signature zero": lambda: forge.resigned(GOOD, bytes(64)),
    "empty": lambda: "",
    "no token": lambda: "Bearer",
    "not ASCII": lambda: "\udcff",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_proof_is_refused(case: str) -> None:
    refusal([HOSTILE[case]()])


@pytest.mark.parametrize("proofs", [[], [GOOD, GOOD], [GOOD, ""]])
def test_exactly_one_proof_is_needed(proofs: list[str]) -> None:
    assert "exactly one" in refusal(proofs)


def test_a_coordinate_has_32_bytes_so_that_a_key_has_one_thumbprint() -> None:
    # RFC 7518 section 6.2.1.2: the same point with a zero in front would be enrolled as another device.
    refusal([header(jwk=JWK | {"x": forge.b64(b"\0" + forge.unb64(JWK["x"]))})])


@pytest.mark.parametrize("late", [-120, 0, 120])
def test_a_laptop_with_a_wrong_clock_is_let_in_within_two_minutes(late: int) -> None:
    proof = verify(payload(iat=NOW + late))
    # It is remembered for as long as it would be accepted.
    assert proof.expires_at > NOW + late + dpop.WINDOW_SECONDS


@pytest.mark.parametrize("changed", [{"exp": NOW + 60}, {"nbf": NOW}, {"exp": NOW - 10**9}, {"nbf": NOW + 10**9}])
def test_the_time_is_an_argument_and_no_clock_is_asked(changed: dict[str, int]) -> None:
    # Members that RFC 9449 does not define for a proof are judged by `now` or not at all, the same at every time.
    def outcome(shift: int) -> bool:
        moved = {name: value + shift for name, value in (changed | {"iat": NOW}).items()}
        try:
            verify(payload(**moved), now=NOW + shift)
        except GatewayError:
            return False
        return True

    assert outcome(0) == outcome(-1_000_000_000) == outcome(1_000_000_000)


def test_the_same_proof_has_the_same_name_and_another_has_another() -> None:
    assert verify(GOOD).digest == verify(payload()).digest == verify(forge.malleated(GOOD)).digest
    other = forge.ec_key()
    theirs = forge.token(HEADER | {"jwk": forge.public_jwk(other)}, PAYLOAD, other)
    assert len({verify(each).digest for each in (GOOD, payload(jti="proof-2"), theirs)}) == 3


@given(st.text(st.characters(), max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{1,30}(\.[A-Za-z0-9_-]{1,30}){2}"))
def test_a_text_of_any_kind_is_refused_and_nothing_worse(text: str) -> None:
    refusal([text])


values = st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=10) | st.lists(st.integers())


@given(
    st.dictionaries(st.sampled_from(["htm", "htu", "iat", "jti", "exp", "nbf", "sub", "aud", "iss"]), values),
    st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "use"]), values),
)
def test_members_of_any_type_are_refused_and_nothing_worse(claims: dict[str, Any], key: dict[str, Any]) -> None:
    for token in (payload(**claims), header(jwk=JWK | key)):
        code = ErrorCode.PROOF_INVALID
        try:
            verify(token)
        except GatewayError as error:
            code = error.code
        assert code is ErrorCode.PROOF_INVALID
