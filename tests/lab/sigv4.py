"""Oracle A: does the signature of a received request hold? Computed with botocore's own canonicaliser.

AWS double-encodes the path of every service but S3, so whoever re-quotes a path between signing and sending breaks the
signature. That is why the *raw* path is taken here, as it came over the wire.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.lab.ministack import AwsKey

MAX_SKEW = dt.timedelta(minutes=5)
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
MUST_SIGN = {"host", "x-amz-date"}


@dataclass(frozen=True)
class Received:
    """A request as it arrived: nothing decoded, nothing normalised."""

    method: str
    raw_path: str
    headers: Mapping[str, str]
    body: bytes


def fault(received: Received, key: AwsKey, *, region: str, service: str = "bedrock") -> str:
    """Why AWS would refuse this request; empty when it would not."""
    headers = {name.lower(): value.strip() for name, value in received.headers.items()}
    parsed = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if parsed is None:
        return "no SigV4 authorization header"
    signed = parsed["headers"].split(";")
    faults = [
        *_scope_faults(parsed, (key.access_key, headers.get("x-amz-date", "")[:8], region, service)),
        *_header_faults(headers, signed),
    ]
    if faults:
        return "; ".join(faults)
    if headers.get("x-amz-content-sha256", _sha256(received.body)) != _sha256(received.body):
        return "x-amz-content-sha256 is not the hash of the body"
    if abs(_now() - _timestamp(headers["x-amz-date"])) > MAX_SKEW:
        return f"signed at {headers['x-amz-date']}: too far from now"
    signature = _signature(received, {name: headers[name] for name in signed}, key, region, service)
    return "" if hmac.compare_digest(signature, parsed["signature"]) else "the signature does not match"


def _scope_faults(parsed: re.Match[str], expected: tuple[str, ...]) -> list[str]:
    scope = parsed.group("key", "date", "region", "service")
    return [] if scope == expected else [f"credential scope {scope}, expected {expected}"]


def _header_faults(headers: dict[str, str], signed: list[str]) -> list[str]:
    unsigned = (MUST_SIGN | {name for name in headers if name.startswith("x-amz-")}) - set(signed)
    missing = [name for name in signed if name not in headers]
    faults = [f"headers not signed: {sorted(unsigned)}"] if unsigned else []
    return faults + ([f"signed headers that did not arrive: {missing}"] if missing else [])


def _signature(received: Received, headers: dict[str, str], key: AwsKey, region: str, service: str) -> str:
    signer = SigV4Auth(Credentials(key.access_key, key.secret), service, region)
    url = f"http://{headers['host']}{received.raw_path}"
    request = AWSRequest(received.method, url, data=received.body, headers=headers)
    request.context["timestamp"] = headers["x-amz-date"]
    canonical = signer.canonical_request(request)
    return str(signer.signature(signer.string_to_sign(request, canonical), request))


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _timestamp(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
