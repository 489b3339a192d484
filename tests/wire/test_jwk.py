"""Base64url and thumbprints: what both sides must agree on to the byte."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from llmgw_wire.jwk import b64url, b64url_decode, thumbprint

# RFC 9449, sections 4.2 and 6.1: RFC 7638 has a vector for RSA only.
RFC_KEY = {
    "kty": "EC",
    "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
    "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
    "crv": "P-256",
}
RFC_THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_the_thumbprint_is_that_of_the_rfc() -> None:
    assert thumbprint(RFC_KEY) == RFC_THUMBPRINT


def test_members_that_are_not_required_do_not_change_the_thumbprint() -> None:
    assert thumbprint(RFC_KEY | {"kid": "a", "use": "sig", "alg": "ES256"}) == RFC_THUMBPRINT


def test_a_second_implementation_gives_the_same_thumbprint() -> None:
    for _ in range(20):
        key = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))
        public = {name: str(value) for name, value in key.as_dict(private=False).items()}
        assert thumbprint(public) == key.thumbprint()


def test_a_key_without_a_required_member_has_no_thumbprint() -> None:
    with pytest.raises(KeyError):
        thumbprint({name: value for name, value in RFC_KEY.items() if name != "y"})


@given(st.binary())
@example(b"")
@example(b"\xfb\xef\xbe")
@example(b"\xff\xff\xff")
def test_decoding_reverses_encoding(data: bytes) -> None:
    encoded = b64url(data)
    assert encoded == base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert b64url_decode(encoded) == data


@pytest.mark.parametrize("text", ["AA==", "A", "AAAA=", "+/8", "AA AA", "AAAA\n", "ÀAAA", "\uff21AAA", "A.A", "\x00"])
def test_anything_but_unpadded_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        b64url_decode(text)
