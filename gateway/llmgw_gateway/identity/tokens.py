"""Gateway tokens: minted and verified. Pure: keys and the time are arguments.

The form is RFC 9068 (`at+jwt`), ES256. Verification is a strict gate of our own in front of PyJWT, because the library
accepts what we must not: any `typ`, padded signatures, `exp` as a string, duplicate member names (last wins).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NewType

import jwt

from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode
from llmgw_wire.jwk import b64url_decode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from jwt.types import Options

ALGORITHM: Final = "ES256"
TYPE: Final = "at+jwt"
MOST_CHARACTERS: Final = 8_000
LEEWAY: Final = 5
"""Seconds between the clocks of two replicas."""
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

SIGNATURE_ONLY: Final[Options] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""The library checks the signature; every claim is checked by us, on types that we choose."""

UnverifiedHeader = NewType("UnverifiedHeader", dict[str, Any])


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a verified gateway token says. Policy is not in it: that is looked up, so that a change acts at once."""

    person_id: str
    session: str
    access_key: str
    """What budgets and limits of level `key` are counted under: it outlives the session."""
    token_id: str
    client_id: str
    issued_at: int
    expires_at: int
    device: str = ""
    """The thumbprint of the key that must prove each request; empty: whoever bears the token may use it."""
    kid: str = field(default="", compare=False)
    """The key that signed it; set by `verify`."""


def mint(claims: TokenClaims, *, issuer: str, audience: str, kid: str, key: EllipticCurvePrivateKey) -> Secret:
    """Sign a token for `claims`."""
    payload = {
        "iss": issuer,
        "aud": audience,
        "sub": claims.person_id,
        "client_id": claims.client_id,
        "jti": claims.token_id,
        "sid": claims.session,
        "access_key": claims.access_key,
        "iat": claims.issued_at,
        "nbf": claims.issued_at,
        "exp": claims.expires_at,
    } | ({"cnf": {"jkt": claims.device}} if claims.device else {})
    return Secret(jwt.encode(payload, key, algorithm=ALGORITHM, headers={"typ": TYPE, "kid": kid}))


def verify(
    unverified_token: Secret,
    ring: Mapping[str, EllipticCurvePublicKey],
    *,
    issuer: str,
    audience: str,
    now: float,
) -> TokenClaims:
    """Return the claims of a good token; GatewayError(TOKEN_INVALID or TOKEN_EXPIRED) otherwise.

    An unknown `kid` is refused without looking anywhere: the ring is polled, never fetched on demand.
    """
    token = unverified_token.reveal()
    unverified_header = gate(token, allowed=frozenset({"alg", "kid", "typ"}))
    if unverified_header.get("alg") != ALGORITHM or unverified_header.get("typ") != TYPE:
        raise _invalid()
    key = ring.get(str(unverified_header.get("kid")))
    if key is None:
        raise _invalid()
    try:
        payload = jwt.decode(token, key, algorithms=[ALGORITHM], options=SIGNATURE_ONLY)
    except jwt.PyJWTError:
        raise _invalid() from None
    claims = _claims(payload, issuer=issuer, audience=audience, now=now)
    return replace(claims, kid=str(unverified_header["kid"]))


def gate(token: str, *, allowed: frozenset[str], most: int = MOST_CHARACTERS) -> UnverifiedHeader:
    """Check the outer form of a compact JWS and return its header, still unverified.

    Refused: length, alphabet and padding, header members outside `allowed` (`jwk`, `jku`, `crit`, ...), and any JSON
    with duplicate names in header or payload. GatewayError(TOKEN_INVALID) tells nothing more.
    """
    if len(token) > most or not _SHAPE.fullmatch(token):
        raise _invalid()
    encoded_header, encoded_payload, _ = token.split(".")
    header = _object(encoded_header)
    _object(encoded_payload)
    if not allowed >= header.keys():
        raise _invalid()
    return UnverifiedHeader(header)


def _claims(payload: dict[str, Any], *, issuer: str, audience: str, now: float) -> TokenClaims:
    if payload.get("iss") != issuer or payload.get("aud") != audience:
        raise _invalid()
    times = [payload.get(name) for name in ("iat", "nbf", "exp")]
    if not all(type(value) is int for value in times):
        raise _invalid()
    issued_at, not_before, expires_at = (int(value) for value in times if value is not None)
    names = [payload.get(name) for name in ("sub", "sid", "access_key", "jti", "client_id")]
    if not all(isinstance(value, str) for value in names) or not all(
        _IDENTIFIER.fullmatch(str(value)) for value in names[:4]
    ):
        raise _invalid()
    if issued_at > now + LEEWAY or not_before > now + LEEWAY:
        raise _invalid()
    if expires_at + LEEWAY <= now:
        raise GatewayError(ErrorCode.TOKEN_EXPIRED, "The gateway token has expired; a fresh one is needed.")
    person_id, session, access_key, token_id, client_id = (str(value) for value in names)
    return TokenClaims(person_id, session, access_key, token_id, client_id, issued_at, expires_at, _device(payload))


def _device(payload: dict[str, Any]) -> str:
    """The key that the token is bound to (RFC 9449 section 6.1). A binding that is not understood is no token."""
    if "cnf" not in payload:
        return ""
    binding = payload["cnf"]
    if not isinstance(binding, dict) or binding.keys() != {"jkt"} or not isinstance(binding["jkt"], str):
        raise _invalid()
    if not _IDENTIFIER.fullmatch(binding["jkt"]):
        raise _invalid()
    return binding["jkt"]


def _object(encoded: str) -> dict[str, Any]:
    try:
        document = json.loads(b64url_decode(encoded), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _invalid() from None
    if not isinstance(document, dict):
        raise _invalid()
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("duplicate member name")
    return document


def _invalid() -> GatewayError:
    return GatewayError(ErrorCode.TOKEN_INVALID, "The gateway token is not valid here; a fresh one is needed.")
