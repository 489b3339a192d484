"""Public keys as JSON Web Keys: the few lines that both sides must agree on to the byte."""

from __future__ import annotations

import base64
import hashlib
import json
import re

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")


def b64url(data: bytes) -> str:
    """Base64 with the URL alphabet and no padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text: str) -> bytes:
    """The reverse of `b64url`; ValueError on padding or a character outside the alphabet."""
    if not _ALPHABET.fullmatch(text):
        raise ValueError("not base64url")
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def thumbprint(jwk: dict[str, str]) -> str:
    """The SHA-256 thumbprint of an EC public key (RFC 7638 section 3.2): required members, sorted, no white space."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return b64url(hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest())
