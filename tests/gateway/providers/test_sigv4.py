"""Our signer beside botocore's: the same signature for whatever is sent, and a key that follows secret and day."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.providers.sigv4 import Place, Signer

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC).timestamp()
DAY = 86_400
BODY = b'{"a":1}'
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=40).filter(
    lambda name: name.strip(".")
)
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)


def by_botocore(credentials: ReadOnlyCredentials, url: str, body: bytes, at: float) -> str:
    """What botocore says for the same request, at the same second."""
    signer = SigV4Auth(credentials, "bedrock", "eu-west-1")
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": "application/json"})
    request.headers["X-Amz-Date"] = stamp = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
    if credentials.token:
        request.headers["X-Amz-Security-Token"] = credentials.token
    request.context["timestamp"] = stamp
    return str(signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request))


def by_us(signer: Signer, credentials: ReadOnlyCredentials, host: str, path: str, body: bytes, at: float) -> str:
    headers = signer.headers(credentials, Place.of(host, path), hashlib.sha256(body).hexdigest(), at)
    return headers["Authorization"].rpartition("Signature=")[2]


@given(model=NAMES, secret=SECRETS, token=st.none() | SECRETS, body=st.binary(max_size=100), port=st.integers(1, 65535))
def test_any_request_is_signed_as_botocore_signs_it(
    model: str, secret: str, token: str | None, body: bytes, port: int
) -> None:
    credentials = ReadOnlyCredentials("AKIAEXAMPLE", secret, token)
    host = "example.com" if port == 443 else f"example.com:{port}"
    path = f"/model/{quote(model, safe='')}/invoke"
    ours = by_us(Signer("eu-west-1", "bedrock"), credentials, host, path, body, NOW)
    assert ours == by_botocore(credentials, f"https://{host}{path}", body, NOW)


def test_the_derived_key_follows_the_secret_and_the_day() -> None:
    signer = Signer("eu-west-1", "bedrock")
    path = "/model/m/invoke"
    for secret in ("one", "two", "one"):
        for at in (NOW, NOW + DAY, NOW):
            credentials = ReadOnlyCredentials("AKIAEXAMPLE", secret, None)
            expected = by_botocore(credentials, f"https://example.com{path}", BODY, at)
            assert by_us(signer, credentials, "example.com", path, BODY, at) == expected
