"""Service keys: credentials of CI jobs, scripts and tools that cannot sign in. Stored hashed, shown once.

A key is an identity of its own, with an owner, an end, and what it is for; it has one secret, or two while it is being
rotated. Only the SHA-256 of a secret is kept: with 256 random bits in it nothing can be guessed, so no slow hash is
needed, and looking a digest up tells nothing about the secret by its time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import secrets
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, update

from llmgw_gateway.call import Caller
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe.changes import Author, Change, is_recorded, record
from llmgw_gateway.store.polling import Poller
from llmgw_gateway.store.schema import persons, service_keys
from llmgw_gateway.store.upsert import insert_if_absent
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database

PREFIX: Final = "llmgw_sk_"
"""How every secret begins: scanners of repositories find them by it."""
RANDOM_BYTES: Final = 32
KIND: Final = "service_key"
"""What a key is called in the rows of changes."""
ISSUER: Final = "service-key"
"""In the place of an identity provider: no provider's address looks like this."""
REMEMBERED: Final = 30 * 86_400_000
"""Milliseconds for which a secret that has ended is refused in words of its own."""
log = logging.getLogger("llmgw.identity")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its first secret, or the next secret of one. Times in milliseconds since the epoch."""

    secret_id: str
    key_id: str
    digest: str
    name: str
    owner: str
    team: str
    models: tuple[str, ...] | None
    """None: whatever policies allow."""
    expires_at: int
    by: Author
    made_at: int
    home: str | None = None
    """The provider whose directory it may write by SCIM, and nothing else; None: it is for models."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """Another secret for a key; those it has end with the overlap."""

    key_id: str
    secret_id: str
    digest: str
    expires_at: int
    overlap: int
    """Milliseconds; 0: they end at once, and so does what runs with them."""
    by: Author
    now: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The end of a key with all its secrets, or of one secret."""

    key_or_secret: str
    by: Author
    now: int


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    name: str
    expires_at: int
    revoked: bool
    home: str | None


def fresh() -> tuple[Secret, str]:
    """A new secret, and the digest under which it is kept."""
    secret = Secret(PREFIX + secrets.token_urlsafe(RANDOM_BYTES))
    return secret, digest_of(secret)


def digest_of(secret: Secret) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.reveal().encode("utf-8", "surrogatepass")).hexdigest()


class ServiceKeys:
    """The keys as one replica knows them. `start` reads them once and keeps reading."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, _Known] = {}
        """By digest. Replaced whole, never changed in place."""
        self._revoked: frozenset[str] = frozenset()
        # While the store is away the last known ones stay, as with revoked sessions.
        self._poller = Poller("service keys", self.refresh)
        self.unready = self._poller.unready

    async def start(self) -> None:
        """Load the keys, and keep up with what other replicas and commands write."""
        await self.refresh()
        self._poller.start()

    def stop(self) -> None:
        """Stop following."""
        self._poller.stop()

    def caller(self, secret: Secret) -> Caller:
        """Whose secret it is; GatewayError (401) says what is wrong with it."""
        known = self._good(secret)
        if known.home is not None:
            raise GatewayError(
                ErrorCode.TOKEN_INVALID, f"The service key {known.name!r} is for SCIM, and good for nothing else."
            )
        return known.caller

    def directory_of(self, secret: Secret) -> tuple[str, str]:
        """The key that a provisioning client holds, and the provider whose directory it writes; GatewayError (401)."""
        known = self._good(secret)
        if known.home is None:
            raise GatewayError(
                ErrorCode.TOKEN_INVALID,
                f"The service key {known.name!r} is for models: one for SCIM is made with `keys create --scim`.",
            )
        return known.caller.person_id, known.home

    def _good(self, secret: Secret) -> _Known:
        known = self._known.get(digest_of(secret))
        if known is None:
            raise GatewayError(ErrorCode.TOKEN_INVALID, "This service key is not known here.")
        if known.revoked:
            raise GatewayError(ErrorCode.TOKEN_INVALID, f"The service key {known.name!r} was revoked.")
        if known.expires_at <= self._database.now() * 1000:
            raise GatewayError(
                ErrorCode.TOKEN_EXPIRED,
                f"This secret of the service key {known.name!r} has expired; its owner can have it rotated.",
            )
        return known

    def has_ended(self, session: str) -> bool:
        """Whether a secret was revoked: what runs with it has to stop. What was begun before its end may go on."""
        return session in self._revoked

    async def make(self, key: NewKey) -> None:
        """Write a new key. StoreAwayError tells whether it may have been written."""
        await self._database.submit(make, replace(key, made_at=self._now()))
        await self._refresh_soon()
        log.info("service key %s was made by %s", key.key_id, key.by.actor)

    async def rotate(self, rotation: Rotation) -> bool:
        """Give a key another secret; False when there is no such key, or it was revoked."""
        done = await self._database.submit(rotate, replace(rotation, now=self._now()))
        await self._refresh_soon()
        if done:
            log.info("service key %s was given another secret by %s", rotation.key_id, rotation.by.actor)
        return done

    async def revoke(self, withdrawn: Withdrawn) -> bool:
        """End a key or a secret; False when there is nothing left to end."""
        done = await self._database.submit(revoke, replace(withdrawn, now=self._now()))
        await self._refresh_soon()
        if done:
            log.info("service key %s was revoked by %s", withdrawn.key_or_secret, withdrawn.by.actor)
        return done

    async def refresh(self) -> None:
        """Read them now."""
        query = select(service_keys).where(service_keys.c.expires_at > self._now() - REMEMBERED)
        rows = await self._database.follow(lambda connection: connection.execute(query).all())
        self._known = {row.digest: _known(row) for row in rows}
        self._revoked = frozenset(row.secret_id for row in rows if row.revoked_at is not None)

    async def _refresh_soon(self) -> None:
        """What was written is written: when it cannot be read now, it counts with the next round."""
        with contextlib.suppress(GatewayError):
            await self.refresh()

    def _now(self) -> int:
        return int(self._database.now() * 1000)


def _known(row: Any) -> _Known:  # noqa: ANN401 -- a row
    models = json.loads(row.models)
    caller = Caller(
        row.key_id,
        row.secret_id,
        row.key_id,
        row.secret_id,
        row.expires_at // 1000,
        service=True,
        team=row.team,
        models=None if models is None else frozenset(models),
    )
    return _Known(caller, row.name, row.expires_at, row.revoked_at is not None, row.home)


def make(connection: Connection, batch: list[NewKey]) -> list[None]:
    """One that is there already stays as it is: the batch may be run again."""
    for key in batch:
        # Its row among the people: usage, budgets and `/v1/me` call it by its name.
        person = {"person_id": key.key_id, "issuer": ISSUER, "subject": key.key_id, "name": key.name}
        insert_if_absent(connection, persons, person | {"first_seen": key.made_at, "last_seen": key.made_at})
        insert_if_absent(connection, service_keys, _row(key))
        after = {"secret": key.secret_id, "expires_at": key.expires_at, "team": key.team, "models": key.models}
        record(connection, Change(key.by, key.made_at, "key.create", KIND, key.key_id, None, after))
    return [None] * len(batch)


def _row(key: NewKey) -> dict[str, Any]:
    row = {each.name: getattr(key, each.name) for each in fields(key) if each.name != "by"}
    return row | {"models": json.dumps(key.models), "made_by": key.by.actor}


def _ends(rows: Iterable[Any]) -> dict[str, Any]:
    """When the secrets end, as a change says it. Name and owner may be a person's, and stay with the key alone."""
    return {"secrets": {row.secret_id: row.expires_at for row in rows}}


def rotate(connection: Connection, batch: list[Rotation]) -> list[bool]:
    """False for a key that is not there or was revoked. Run again, it answers the same."""
    answers = []
    for each in sorted(batch, key=lambda rotation: rotation.key_id):
        mine = (service_keys.c.key_id == each.key_id) & service_keys.c.revoked_at.is_(None)
        found = connection.execute(select(service_keys).where(mine).with_for_update()).all()
        if is_recorded(connection, each.by):  # the batch is run again
            answers.append((each, True))
            continue
        if found:
            _end(connection, mine, each)
            kept = {name: getattr(found[-1], name) for name in ("key_id", "name", "owner", "team", "models", "home")}
            new = {"secret_id": each.secret_id, "digest": each.digest, "expires_at": each.expires_at}
            insert_if_absent(connection, service_keys, kept | new | {"made_by": each.by.actor, "made_at": each.now})
            after = {"secret": each.secret_id, "expires_at": each.expires_at, "overlap": each.overlap}
            record(connection, Change(each.by, each.now, "key.rotate", KIND, each.key_id, _ends(found), after))
        answers.append((each, bool(found)))
    return [next(done for asked, done in answers if asked is each) for each in batch]


def _end(connection: Connection, mine: Any, rotation: Rotation) -> None:  # noqa: ANN401 -- a condition
    """End the secrets that a key has: at once, or with the overlap, never later than they would have anyway."""
    if not rotation.overlap:
        ended = {"revoked_at": rotation.now, "revoked_by": rotation.by.actor}
        connection.execute(update(service_keys).where(mine).values(ended))
        return
    until = rotation.now + rotation.overlap
    connection.execute(update(service_keys).where(mine, service_keys.c.expires_at > until).values(expires_at=until))


def revoke(connection: Connection, batch: list[Withdrawn]) -> list[bool]:
    """Of a key or a secret whatever is not revoked yet. Run again, it answers the same."""
    return [is_recorded(connection, each.by) or _revoke_one(connection, each) for each in batch]


def _revoke_one(connection: Connection, each: Withdrawn) -> bool:
    named = (service_keys.c.key_id == each.key_or_secret) | (service_keys.c.secret_id == each.key_or_secret)
    mine = named & service_keys.c.revoked_at.is_(None)
    found = connection.execute(select(service_keys).where(mine).with_for_update()).all()
    if not found:
        return False
    connection.execute(update(service_keys).where(mine).values(revoked_at=each.now, revoked_by=each.by.actor))
    record(connection, Change(each.by, each.now, "key.revoke", KIND, found[0].key_id, _ends(found)))
    return True
