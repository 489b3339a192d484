"""Compact JWS made byte by byte, so that a test can say what no library would sign."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

if TYPE_CHECKING:
    from collections.abc import Mapping

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def raw(document: Mapping[str, Any] | bytes) -> bytes:
    """A document as given, or as compact JSON (NaN and Infinity in Python's own form)."""
    return document if isinstance(document, bytes) else json.dumps(document, separators=(",", ":")).encode()


def signature(signed: bytes, key: PrivateKey, algorithm: str) -> bytes:
    """The signature by JWA (RFC 7518 section 3)."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    sha = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[-3:]]
    if isinstance(key, rsa.RSAPrivateKey):
        if algorithm.startswith("PS"):
            return key.sign(signed, padding.PSS(padding.MGF1(sha), sha.digest_size), sha)
        return key.sign(signed, padding.PKCS1v15(), sha)
    return ecdsa(key, signed, sha)


def ecdsa(key: ec.EllipticCurvePrivateKey, signed: bytes, digest: hashes.HashAlgorithm) -> bytes:
    """r and s beside each other, by any digest."""
    r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(digest)))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def token(
    header: Mapping[str, Any] | bytes,
    payload: Mapping[str, Any] | bytes,
    key: PrivateKey,
    algorithm: str = "ES256",
) -> str:
    """Header and payload, truly signed."""
    signed = f"{b64(raw(header))}.{b64(raw(payload))}"
    return f"{signed}.{b64(signature(signed.encode(), key, algorithm))}"


def resigned(good: str, new_signature: bytes) -> str:
    """The same token with another signature."""
    return good.rpartition(".")[0] + "." + b64(new_signature)


def unverifiable(good: str, **header: Any) -> str:
    """The same token with another header over the old signature: whoever gets as far as that refuses it."""
    head, rest = good.split(".", 1)
    return f"{b64(raw(json.loads(unb64(head)) | header))}.{rest}"


def malleated(good: str) -> str:
    """The other valid signature of the same token: (r, n - s)."""
    both = unb64(good.rpartition(".")[2])
    s = int.from_bytes(both[32:], "big")
    return resigned(good, both[:32] + (P256_ORDER - s).to_bytes(32, "big"))


def public_jwk(key: PrivateKey, **more: str) -> dict[str, Any]:
    """The public half as a JWK, written here and not by the code under test."""

    def number(value: int, size: int = 0) -> str:
        return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))

    if isinstance(key, rsa.RSAPrivateKey):
        public = key.public_key().public_numbers()
        return {"kty": "RSA", "n": number(public.n), "e": number(public.e)} | more
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())} | more
    point = key.public_key().public_numbers()
    curve = {"secp256r1": "P-256", "secp384r1": "P-384"}[key.curve.name]
    size = (key.curve.key_size + 7) // 8
    return {"kty": "EC", "crv": curve, "x": number(point.x, size), "y": number(point.y, size)} | more


def pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def proof(device: ec.EllipticCurvePrivateKey, *, url: str, **changed: Any) -> str:
    """A DPoP proof of now; a member in `changed` with the value None is left out."""
    payload = {"htm": "POST", "htu": url, "iat": int(time.time()), "jti": secrets.token_hex(8)} | changed
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": public_jwk(device)}
    return token(header, {name: value for name, value in payload.items() if value is not None}, device)


def thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638, written again."""
    text = '{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}'.format(**jwk)
    return b64(hashlib.sha256(text.encode()).digest())
