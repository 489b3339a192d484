"""The device key and its proofs (DPoP, RFC 9449): a sign-in copied to another machine is worth nothing there."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from llmgw_wire.jwk import b64url, thumbprint

if TYPE_CHECKING:
    from llmgw_agent.vault import Vault
    from llmgw_wire.secret import Secret

ENTRY: Final = "device_key"
COORDINATE_BYTES: Final = 32


class DeviceKey:
    """A P-256 key of this machine and user. It lives in the vault and leaves it as signatures only."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        point = key.public_key().public_numbers()
        x, y = (b64url(number.to_bytes(COORDINATE_BYTES, "big")) for number in (point.x, point.y))
        self._jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y}

    @classmethod
    async def from_vault(cls, vault: Vault) -> DeviceKey:
        """The key in the vault; the first time, and after a sign-out, a new one."""
        pem = vault.get(ENTRY)
        if isinstance(pem, str):
            key = load_pem_private_key(pem.encode(), password=None)
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return cls(key)
        made = ec.generate_private_key(ec.SECP256R1())
        text = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        await vault.put(**{ENTRY: text})
        return cls(made)

    @property
    def thumbprint(self) -> str:
        """The RFC 7638 thumbprint, by which the gateway knows this device."""
        return thumbprint(self._jwk)

    def prove(self, method: str, url: str, now: float, token: Secret | None = None) -> str:
        """A proof for one request. `now` is the verifier's clock in seconds since the epoch, as far as known here.

        `token`: the one that goes with it, where it is bound to this key.
        """
        # A second back: the clock is measured to half of one, and strict verifiers refuse proofs from the future.
        claims: dict[str, str | int] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url,
            "iat": int(now) - 1,
        }
        if token is not None:
            claims["ath"] = b64url(hashlib.sha256(token.reveal().encode()).digest())
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": self._jwk})
