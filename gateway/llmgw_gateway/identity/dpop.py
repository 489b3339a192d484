"""Verifies DPoP proofs (RFC 9449): the enrolled device makes the exchange, not whoever holds the sign-in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import ring, tokens
from llmgw_wire.errors import ErrorCode
from llmgw_wire.jwk import b64url, thumbprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_wire.secret import Secret

WINDOW_SECONDS = 120
"""How far the proof's clock may be off in either direction: laptops wake up with wrong clocks."""
_MOST_JTI = 128


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof whose signature, method, URL and time are good. That it is new is for the store to say."""

    device: str
    """The thumbprint (RFC 7638) of the device key."""
    digest: str
    """Names this proof in the replay table."""
    expires_at: int


def verify(proofs: Sequence[str], *, method: str, url: str, now: float, token: Secret | None = None) -> Proof:
    """Check the one proof of a request (RFC 9449 section 4.3); GatewayError(PROOF_INVALID) says what is wrong.

    `token`: what came with it, which it has to name.
    """
    if len(proofs) != 1:
        raise _refused("exactly one DPoP header is needed")
    proof = proofs[0]
    try:
        header = tokens.gate(proof, allowed=frozenset({"alg", "typ", "jwk"}))
        if header.get("typ") != "dpop+jwt" or header.get("alg") != "ES256" or not isinstance(header.get("jwk"), dict):
            raise _refused("its header is not that of an ES256 proof")
        jwk: dict[str, Any] = header["jwk"]
        if "d" in jwk:
            raise _refused("it carries a private key")
        payload = jwt.decode(proof, ring.public_key(jwk), algorithms=["ES256"], options=tokens.SIGNATURE_ONLY)
        device = thumbprint(jwk)
    except (jwt.PyJWTError, ValueError, KeyError, TypeError):
        raise _refused("its signature or key is wrong") from None
    except GatewayError as error:
        raise error if error.code is ErrorCode.PROOF_INVALID else _refused("it cannot be read") from None
    issued_at, jti = payload.get("iat"), payload.get("jti")
    if payload.get("htm") != method or payload.get("htu") != url:
        raise _refused(f"it is for another request than {method} {url}")
    # Compared, not subtracted: an integer of JSON may be larger than any float.
    if type(issued_at) is not int or not now - WINDOW_SECONDS <= issued_at <= now + WINDOW_SECONDS:
        raise _refused(f"its time is more than {WINDOW_SECONDS} s from the gateway's: set the laptop's clock")
    if not isinstance(jti, str) or not 0 < len(jti) <= _MOST_JTI or not jti.isascii():
        raise _refused("its 'jti' is missing or not usable")
    if token is not None and payload.get("ath") != hash_of(token):
        raise _refused("it is for another token")
    digest = hashlib.sha256(f"{device}\n{jti}".encode()).hexdigest()
    return Proof(device, digest, issued_at + WINDOW_SECONDS + 1)


def hash_of(token: Secret) -> str:
    """What a proof calls its token (RFC 9449 section 4.2, `ath`)."""
    return b64url(hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest())


def _refused(why: str) -> GatewayError:
    return GatewayError(ErrorCode.PROOF_INVALID, f"The proof of the device key was refused: {why}.")
