"""AWS Signature Version 4 for a POST with a body: one HMAC a request, and the signing key derived once a day. Pure.

Source: "Signature Version 4 for API requests" in AWS's IAM user guide. botocore's signer costs as much as half of a
small request, because it builds and parses a request object; here every part is known beforehand.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.credentials import ReadOnlyCredentials

_INNER: Final = bytes(each ^ 0x36 for each in range(256))
_OUTER: Final = bytes(each ^ 0x5C for each in range(256))
ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes, as it is signed."""

    host: str
    """What the `Host` header says: with the port, where it is not the scheme's own."""
    path: str
    """Quoted once more than it is sent: the rule for every service but S3."""
    further: tuple[tuple[str, str], ...] = ()
    """Headers that are sent and signed beside the usual ones, by name. All come after `x-amz-security-token`."""

    @classmethod
    def of(cls, host: str, sent_path: str, further: Mapping[str, str] | None = None) -> Place:
        """`sent_path` is the path as it stands in the request line: already quoted, and without dot segments."""
        return cls(host, quote(sent_path, safe="/~"), tuple(sorted((further or {}).items())))


class Signer:
    """Signs for one region and one service."""

    def __init__(self, region: str, service: str) -> None:
        self._scope = f"{region}/{service}/aws4_request"
        self._region = region
        self._service = service
        self._derived_from = ("", "")
        """The secret and the day of the key below."""
        self._inner, self._outer = _pads(b"")
        """The two hashes of an HMAC by that key, begun. One that is begun anew releases Python's lock each time."""

    def headers(self, credentials: ReadOnlyCredentials, place: Place, body_hash: str, now: float) -> dict[str, str]:
        """The headers of a JSON request, `Authorization` among them.

        `body_hash`: SHA-256 of the body in hexadecimal digits. `now`: seconds since the epoch; AWS allows five minutes.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        day = stamp[:8]
        token = credentials.token
        names = "content-type;host;x-amz-date;x-amz-security-token" if token else "content-type;host;x-amz-date"
        extra = f"x-amz-security-token:{token}\n" if token else ""
        for name, value in place.further:
            names += f";{name}"
            extra += f"{name}:{value}\n"
        canonical = (
            f"POST\n{place.path}\n\n"
            f"content-type:application/json\nhost:{place.host}\nx-amz-date:{stamp}\n{extra}\n"
            f"{names}\n{body_hash}"
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"{ALGORITHM}\n{stamp}\n{day}/{self._scope}\n{digest}"
        self._derive(credentials.secret_key, day)
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        headers = {
            "Content-Type": "application/json",
            "X-Amz-Date": stamp,
            "Authorization": (
                f"{ALGORITHM} Credential={credentials.access_key}/{day}/{self._scope}, "
                f"SignedHeaders={names}, Signature={outer.hexdigest()}"
            ),
        }
        if token:
            headers["X-Amz-Security-Token"] = token
        if place.further:
            headers.update(place.further)
        return headers

    def _derive(self, secret: str, day: str) -> None:
        if self._derived_from != (secret, day):
            key = _hmac(f"AWS4{secret}".encode(), day)
            for part in (self._region, self._service, "aws4_request"):
                key = _hmac(key, part)
            self._derived_from = (secret, day)
            self._inner, self._outer = _pads(key)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _pads(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """The beginnings of the inner and the outer hash of HMAC-SHA256 (RFC 2104), for a key no longer than a block."""
    block = key.ljust(64, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))
