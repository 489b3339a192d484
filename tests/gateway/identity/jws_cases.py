"""Signatures that must be refused, in the manner of project Wycheproof: made from one good token and its key.

Wycheproof's own vectors have keys of their own and fixed claims, which a verifier that judges `iss` and `aud` never
lets come as far as the signature. So the same edges are built here for each algorithm: numbers at the ends of their
ranges, encodings that are longer or shorter than they may be, paddings that say another digest, and signatures of one
algorithm under the name of another.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from tests.gateway.identity import forge

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDERS: Final = {
    "secp256r1": forge.P256_ORDER,
    "secp384r1": int(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
    ),
}
ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
DIGEST_INFO: Final = {
    "SHA-1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "SHA-256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "SHA-256 without NULL": bytes.fromhex("302f300b0609608648016503040201" + "0420"),
    "SHA-256 with a long length": bytes.fromhex("308131300d060960864801650304020105000420"),
}
"""RFC 8017 section 9.2, note 1; and two encodings that DER does not allow."""


def signatures(key: forge.PrivateKey, signed: bytes, good: bytes, algorithm: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of wrong signatures of `signed`; `good` is the right one."""
    yield "empty", b""
    yield "one zero byte", b"\0"
    yield "all zero", bytes(len(good))
    yield "all ones", b"\xff" * len(good)
    yield "a byte short at the end", good[:-1]
    yield "a byte short in front", good[1:]
    yield "a zero byte behind", good + b"\0"
    yield "a zero byte in front", b"\0" + good
    yield "twice", good * 2
    for place in (0, len(good) // 2, len(good) - 1):
        yield f"a bit of byte {place} changed", good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    mac = hashlib.sha256
    yield "HMAC with an empty key", hmac.new(b"", signed, mac).digest()
    yield "HMAC with the public PEM", hmac.new(forge.pem(key), signed, mac).digest()
    yield "the digest alone", mac(signed).digest()
    if isinstance(key, ec.EllipticCurvePrivateKey):
        yield from _ecdsa(key, signed, good)
    elif isinstance(key, rsa.RSAPrivateKey):
        yield from _rsa(key, signed, good, algorithm)
    else:
        yield from _eddsa(good)


def _ecdsa(key: ec.EllipticCurvePrivateKey, signed: bytes, good: bytes) -> Iterator[tuple[str, bytes]]:
    order = ORDERS[key.curve.name]
    size = len(good) // 2
    edges = {"0": 0, "1": 1, "n-1": order - 1, "n": order, "n+1": order + 1, "the most": 2 ** (8 * size) - 1}
    for name, first in edges.items():
        for other, second in edges.items():
            yield f"r = {name}, s = {other}", first.to_bytes(size, "big") + second.to_bytes(size, "big")
        yield f"r = {name}", first.to_bytes(size, "big") + good[size:]
        yield f"s = {name}", good[:size] + first.to_bytes(size, "big")
    yield "r and s exchanged", good[size:] + good[:size]
    yield "in DER", key.sign(signed, ec.ECDSA(hashes.SHA256() if size == 32 else hashes.SHA384()))
    for digest in (hashes.SHA1(), hashes.SHA224(), hashes.SHA512()):  # noqa: S303 -- it has to be refused
        yield f"of {digest.name}", forge.ecdsa(key, signed, digest)
    yield "of a stranger", forge.ecdsa(ec.generate_private_key(key.curve), signed, hashes.SHA256())


def _rsa(key: rsa.RSAPrivateKey, signed: bytes, good: bytes, algorithm: str) -> Iterator[tuple[str, bytes]]:
    private = key.private_numbers()
    modulus, size = private.public_numbers.n, len(good)
    for name, value in {"1": 1, "n-1": modulus - 1, "n": modulus}.items():
        yield f"s = {name}", value.to_bytes(size, "big")
    if (more := int.from_bytes(good, "big") + modulus) < 2 ** (8 * size):
        yield "s + n", more.to_bytes(size, "big")

    def encoded(block: bytes) -> bytes:
        return pow(int.from_bytes(block, "big"), private.d, modulus).to_bytes(size, "big")

    digest = hashlib.sha256(signed).digest()
    tail = DIGEST_INFO["SHA-256"] + digest
    filling = b"\xff" * (size - 3 - len(tail))
    wrong = {
        "SHA-1": DIGEST_INFO["SHA-1"] + hashlib.sha1(signed).digest(),  # noqa: S324 -- it has to be refused
        "SHA-256 without NULL": DIGEST_INFO["SHA-256 without NULL"] + digest,
        "SHA-256 with a long length": DIGEST_INFO["SHA-256 with a long length"] + digest,
        "no DigestInfo": digest,
    }
    for name, text in wrong.items():
        yield f"PKCS #1 v1.5, {name}", encoded(b"\0\1" + b"\xff" * (size - 3 - len(text)) + b"\0" + text)
    # Bleichenbacher's forgery of 2006: who does not look at the block's end believes what follows it.
    yield "PKCS #1 v1.5, eight bytes of padding", encoded(b"\0\1" + b"\xff" * 8 + b"\0" + tail + filling[8:])
    yield "PKCS #1 v1.5, block type 0", encoded(b"\0\0" + bytes(len(filling)) + b"\0" + tail)
    yield "PKCS #1 v1.5, block type 2", encoded(b"\0\2" + filling + b"\0" + tail)
    yield "PKCS #1 v1.5, one zero in the padding", encoded(b"\0\1" + filling[:-1] + b"\0\0" + tail)
    sha = hashes.SHA256()
    yield "PSS, MGF1 with SHA-1", key.sign(signed, padding.PSS(padding.MGF1(hashes.SHA1()), 32), sha)  # noqa: S303 -- the same
    for salt in (0, 20, 31, 33):
        yield f"PSS, {salt} bytes of salt", key.sign(signed, padding.PSS(padding.MGF1(sha), salt), sha)
    for other in {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} - {algorithm}:
        yield f"as {other}", forge.signature(signed, key, other)


def _eddsa(good: bytes) -> Iterator[tuple[str, bytes]]:
    point, scalar = good[:32], int.from_bytes(good[32:], "little")
    # RFC 8032 section 5.1.7: S is below the order, or one signature has several spellings.
    yield "S + order", point + (scalar + ED25519_ORDER).to_bytes(32, "little")
    for name, value in {"0": 0, "the order": ED25519_ORDER, "the most": 2**256 - 1}.items():
        yield f"S = {name}", point + value.to_bytes(32, "little")
    identity = (1).to_bytes(32, "little")
    yield "R the identity", identity + good[32:]
    yield "R the identity, S = 0", identity + bytes(32)
    yield "R a y beyond the field", (2**255 - 1).to_bytes(32, "little") + good[32:]


KEYS: Final[dict[str, forge.PrivateKey]] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
    "PS256": rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
