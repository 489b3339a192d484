"""The keys that sign gateway tokens: one for each replica, in memory only, its public half published in the store.

No private key lies at rest. A restart makes a new key and invalidates nothing: the old public half stays in the
ring until every token it signed has ended. Each row carries a MAC under the cluster secret, so that whoever can write
to the database still cannot add a key.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import delete, select

from llmgw_gateway.store.polling import POLL_SECONDS, Poller, until_next
from llmgw_gateway.store.schema import replica_keys
from llmgw_gateway.store.upsert import insert_if_absent
from llmgw_wire.jwk import b64url, b64url_decode, thumbprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Row

    from llmgw_gateway.store.database import Database

KEY_SECONDS = 25 * 3600
"""Published validity: a day of signing and an hour for the last tokens to end."""
ROTATE_SECONDS = 24 * 3600
SETTLE_SECONDS = 3
"""Where replicas share a store, a key signs so long after its publication: each of them has polled the ring by then."""
_P256_BYTES = 32
log = logging.getLogger("llmgw.identity")


class _Published(NamedTuple):
    """A key of ours that the other replicas may not know yet."""

    kid: str
    key: ec.EllipticCurvePrivateKey
    signs_at: float
    """Seconds of time.monotonic()."""


class Ring:
    """Signs with this replica's key and knows the public keys of all live replicas."""

    def __init__(
        self,
        database: Database,
        issuer: str,
        *cluster_secrets: bytes,
        reread: Callable[[], tuple[bytes, ...]] | None = None,
    ) -> None:
        """The first secret is used, each is good. `reread` gives them anew: they are followed while the ring runs."""
        self._database = database
        self._issuer = issuer
        self._secrets = cluster_secrets
        self._reread = reread
        self._said = ""
        self._replica = f"rep_{secrets.token_hex(8)}"
        self._poller = Poller("signing keys", self._refresh, self._pause)
        self.public: dict[str, ec.EllipticCurvePublicKey] = {}
        """kid to key, for verification. Replaced whole, never changed in place."""
        self.jwks: dict[str, Any] = {"keys": []}
        self.kid = ""
        self.key: ec.EllipticCurvePrivateKey | None = None
        """What signs; None until the first key may: this replica is not ready then."""
        self._next: _Published | None = None
        self._rotate_at = 0.0
        self._distrusted: set[str] = set()

    async def start(self) -> None:
        """Publish a fresh key, load the ring, and keep both up to date, also when the store is away at first."""
        await self._poller.round()
        self._poller.start()

    def stop(self) -> None:
        """Stop following the ring."""
        self._poller.stop()

    def unready(self) -> str:
        """Why this replica should get no requests on account of its keys; empty when there is no reason."""
        return self._poller.unready() if self.key is not None else "its signing key is not known to all replicas yet"

    async def _refresh(self) -> None:
        """One round: a key of our own where it is time for one, then everybody's."""
        await self._follow_secrets()
        try:
            if time.monotonic() >= self._rotate_at:
                await self._publish()
            await self._load()
        finally:
            ours = self._next
            if ours is not None and ours.kid in self.public and time.monotonic() >= ours.signs_at:
                self.kid, self.key, self._next = ours.kid, ours.key, None

    async def _follow_secrets(self) -> None:
        """Take other secrets into use. What was published under a former one is good as long as that is."""
        if self._reread is None:
            return
        try:
            found = await asyncio.to_thread(self._reread)
        except (OSError, ValueError) as error:
            if str(error) != self._said:
                log.error("the cluster secret cannot be read, the last one stays in use: %s", error)  # noqa: TRY400
            self._said = str(error)
            return
        self._said = ""
        if found[0] != self._secrets[0]:
            log.info("the cluster secret was replaced: this replica publishes a signing key under the new one")
            self._rotate_at = 0.0
        if found != self._secrets:
            self._secrets = found
            self._distrusted.clear()

    async def _publish(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        jwk = public_jwk(key.public_key())
        kid = thumbprint(jwk)
        now = int(self._database.now())
        row: dict[str, Any] = {
            "kid": kid,
            "issuer": self._issuer,
            "replica": self._replica,
            "public_jwk": json.dumps(jwk, sort_keys=True),
            "not_before": now * 1000,
            "not_after": (now + KEY_SECONDS) * 1000,
            "removed": False,
        }
        row["mac"] = mac_of(self._secrets[0], row)
        await self._database.submit(_publish, row)
        published = time.monotonic()
        self._next = _Published(kid, key, published + (SETTLE_SECONDS if self._database.shared else 0))
        self._rotate_at = published + ROTATE_SECONDS

    async def _load(self) -> None:
        now = int(self._database.now() * 1000)
        rows = await self._database.follow(lambda connection: connection.execute(select(replica_keys)).all())
        good = [row for row in rows if self._acceptable(row, now)]
        jwks = [json.loads(row.public_jwk) for row in good]
        self.public = {row.kid: public_key(jwk) for row, jwk in zip(good, jwks, strict=True)}
        self.jwks = {
            "keys": [jwk | {"kid": row.kid, "alg": "ES256", "use": "sig"} for row, jwk in zip(good, jwks, strict=True)]
        }

    def _acceptable(self, row: Row[Any], now: int) -> bool:
        # The MAC comes first: only what we wrote has the types that the rest relies on.
        if not self._authentic(row):
            if row.kid not in self._distrusted:  # said once, not with every poll
                self._distrusted.add(row.kid)
                log.error(
                    "key %s is ignored, its MAC is wrong: someone wrote to the store, or the cluster secret changed",
                    row.kid,
                )
            return False
        return not row.removed and row.issuer == self._issuer and row.not_before <= now < row.not_after

    def _authentic(self, row: Row[Any]) -> bool:
        try:
            known = row._mapping  # noqa: SLF001 -- SQLAlchemy's public name for it
            expected = [mac_of(secret, known) for secret in self._secrets]
        except (TypeError, ValueError):
            return False
        return any(hmac.compare_digest(str(row.mac).encode(), each.encode()) for each in expected)

    def _pause(self) -> float:
        """Seconds until something is to be looked at: a key that may sign by then, or what others have published."""
        due = self._next.signs_at - time.monotonic() if self._next is not None else 0
        return min(due, POLL_SECONDS) if due > 0 else until_next(POLL_SECONDS)


def mac_of(secret: bytes, row: Any) -> str:  # noqa: ANN401 -- a mapping of columns
    """What authenticates a row of the ring."""
    fields = [row[name] for name in ("kid", "issuer", "replica", "public_jwk", "not_before", "not_after")]
    message = json.dumps([*fields, bool(row["removed"])]).encode()
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _publish(connection: Connection, batch: list[dict[str, Any]]) -> list[None]:
    """Add keys; drop those whose last tokens have ended, so that the ring does not grow with every restart."""
    for row in batch:
        insert_if_absent(connection, replica_keys, row)
    now = min(row["not_before"] for row in batch)
    over = select(replica_keys.c.kid).where(replica_keys.c.not_after < now).with_for_update(skip_locked=True)
    connection.execute(delete(replica_keys).where(replica_keys.c.kid.in_(over)))
    return [None] * len(batch)


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """The required members of a P-256 key (RFC 7518 section 6.2.1)."""
    numbers = key.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": b64url(numbers.x.to_bytes(_P256_BYTES, "big")),
        "y": b64url(numbers.y.to_bytes(_P256_BYTES, "big")),
    }


def public_key(jwk: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    """The reverse; ValueError when it is no P-256 key or the point is not on the curve."""
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise ValueError("not a P-256 key")
    coordinates = [b64url_decode(str(jwk.get(name, ""))) for name in ("x", "y")]
    # Exactly 32 bytes (RFC 7518 section 6.2.1.2): with a leading zero more, one key would have two thumbprints.
    if any(len(coordinate) != _P256_BYTES for coordinate in coordinates):
        raise ValueError("a coordinate has not 32 bytes")
    x, y = (int.from_bytes(coordinate, "big") for coordinate in coordinates)
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
