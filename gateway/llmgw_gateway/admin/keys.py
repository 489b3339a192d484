"""Service keys: listed, made, rotated and revoked; a secret is in the answer to who made it, once."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta
from sqlalchemy import select, true

from llmgw_gateway.admin.asking import (
    LEADS,
    READERS,
    Document,
    Line,
    Name,
    Nothing,
    Page,
    Route,
    Title,
    missing,
    time_text,
)
from llmgw_gateway.admin.roles import Revoked
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.directory import all_teams
from llmgw_gateway.identity.roles import holds_role
from llmgw_gateway.identity.service_keys import KIND, NewKey, Rotation, Withdrawn, make, revoke, rotate
from llmgw_gateway.observe.changes import is_recorded
from llmgw_gateway.store.schema import service_keys
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from llmgw_gateway.admin.asking import Asking

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
Days = Annotated[int, Meta(ge=1, le=3650)]


class KeySecret(Document, frozen=True):
    """One secret of a key, never the secret itself."""

    id: str
    made_at: str
    made_by: str
    expires_at: str
    revoked_at: str | None
    revoked_by: str | None


class Key(Document, frozen=True):
    """One service key."""

    key: str
    name: str
    owner: str
    team: str
    models: tuple[str, ...] | None
    """null: whatever policies allow."""
    good: bool
    """Whether one of its secrets is."""
    directory: str
    """The provider whose directory it writes by SCIM, and can do nothing else; empty: it is for calls."""
    secrets: tuple[KeySecret, ...]


class Keys(Document, frozen=True):
    """A page of keys."""

    keys: tuple[Key, ...]
    next: str | None


class KeyWithSecret(Document, frozen=True):
    """A key whose secret is shown this once."""

    key: Key
    secret: str | None
    """null: the request was repeated, and the secret was in the first answer."""


class CreateKey(Document, frozen=True):
    """A key to be made."""

    name: Title
    owner: Title
    team: Line = ""
    """Which team pays for its calls; a team lead has to name one of theirs."""
    models: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=100)] | None = None
    days: Days = 90


class RotateKey(Document, frozen=True):
    """How a key gets another secret."""

    days: Days = 90
    overlap_hours: Annotated[int, Meta(ge=0, le=720)] = 24
    """How long those it has stay good; 0 ends them at once, and what runs with them."""


def list_keys(asking: Asking, connection: Connection, query: Page) -> Keys:
    """Answer with a page."""
    mine = _visible(asking) & (service_keys.c.key_id > query.cursor)
    ids = select(service_keys.c.key_id).where(mine).distinct().order_by(service_keys.c.key_id)
    page = connection.scalars(ids.limit(query.limit + 1)).all()
    shown = _keys(asking, connection, service_keys.c.key_id.in_(page[: query.limit]))
    return Keys(keys=tuple(shown), next=shown[-1].key if page[query.limit :] else None)


def show_key(asking: Asking, connection: Connection, _query: Nothing) -> Key:
    """Answer with one."""
    return _one(asking, connection, asking.places["key"])


def create_key(asking: Asking, connection: Connection, body: CreateKey) -> KeyWithSecret:
    """Make one."""
    if asking.teams is not None and body.team not in asking.teams:
        raise GatewayError(ErrorCode.ROLE_REQUIRED, "A team lead makes keys for the teams that they lead: name one.")
    known = {team.name for team in asking.settings.teams} | all_teams(connection).known_teams
    if body.team and body.team not in known:
        raise missing("team")
    served = [model.name for model in asking.settings.models]
    if unknown := [model for model in body.models or () if model not in served]:
        text = f"{unknown[0]!r} is not served here. Served: {', '.join(served)}."
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, text)
    repeated = is_recorded(connection, asking.by)
    secret, digest = asking.fresh
    key = NewKey(
        secret_id=asking.new_id("sec"),
        key_id=asking.new_id("key"),
        digest=digest,
        name=body.name,
        owner=body.owner,
        team=body.team,
        models=body.models,
        expires_at=asking.now + body.days * DAY,
        by=asking.by,
        made_at=asking.now,
    )
    make(connection, [key])
    return KeyWithSecret(
        key=_one(asking, connection, key.key_id), secret=_shown(connection, secret.reveal(), digest, repeated=repeated)
    )


def rotate_key(asking: Asking, connection: Connection, body: RotateKey) -> KeyWithSecret:
    """Give one another secret."""
    key = asking.places["key"]
    _one(asking, connection, key)
    # Whoever has the secret has the role, or the directory: a lead, or a key itself, must not come to one in this way.
    has_more = holds_role(connection, key, asking.now) or _is_for_directory(connection, key)
    if has_more and ("admin" not in asking.standing.roles or asking.standing.service):
        raise GatewayError(
            ErrorCode.ROLE_REQUIRED,
            "This key has a role, or writes a directory: only an administrator in person rotates it.",
        )
    repeated = is_recorded(connection, asking.by)
    secret, digest = asking.fresh
    overlap = body.overlap_hours * HOUR
    ends = asking.now + body.days * DAY
    rotation = Rotation(key, asking.new_id("sec"), digest, ends, overlap, asking.by, asking.now)
    if not rotate(connection, [rotation])[0]:
        raise missing("service key that is not revoked")
    return KeyWithSecret(
        key=_one(asking, connection, key), secret=_shown(connection, secret.reveal(), digest, repeated=repeated)
    )


def revoke_key(asking: Asking, connection: Connection, _query: Nothing) -> Revoked:
    """End one, and what runs with it."""
    key = asking.places["key"]
    _one(asking, connection, key)
    if not revoke(connection, [Withdrawn(key, asking.by, asking.now)])[0]:
        raise missing("service key that is not revoked")
    return Revoked(id=key)


def _shown(connection: Connection, secret: str, digest: str, *, repeated: bool) -> str | None:
    """The secret, if it is the one that was kept: another transaction of the same request may have made its own."""
    kept = select(service_keys.c.secret_id).where(service_keys.c.digest == digest)
    return None if repeated and connection.execute(kept).first() is None else secret


def _is_for_directory(connection: Connection, key: str) -> bool:
    for_scim = select(service_keys.c.key_id).where(service_keys.c.key_id == key, service_keys.c.home.is_not(None))
    return connection.execute(for_scim).first() is not None


def _visible(asking: Asking) -> ColumnElement[bool]:
    """The owner's check: a lead sees the keys of their teams."""
    return true() if asking.teams is None else service_keys.c.team.in_(asking.teams) & (service_keys.c.team != "")


def _one(asking: Asking, connection: Connection, key: str) -> Key:
    found = _keys(asking, connection, _visible(asking) & (service_keys.c.key_id == key))
    if not found:
        raise missing("service key")
    return found[0]


def _keys(asking: Asking, connection: Connection, where: ColumnElement[bool]) -> list[Key]:
    query = select(service_keys).where(where).order_by(service_keys.c.key_id, service_keys.c.made_at)
    rows = connection.execute(query).all()
    return [_key(list(mine), asking.now) for _, mine in groupby(rows, key=lambda row: row.key_id)]


def _key(rows: Sequence[Any], now: int) -> Key:
    newest = rows[-1]
    models = json.loads(newest.models)
    return Key(
        key=newest.key_id,
        name=newest.name,
        owner=newest.owner,
        team=newest.team,
        models=None if models is None else tuple(models),
        good=any(row.revoked_at is None and row.expires_at > now for row in rows),
        directory=newest.home or "",
        secrets=tuple(
            KeySecret(
                id=row.secret_id,
                made_at=time_text(row.made_at),
                made_by=row.made_by,
                expires_at=time_text(row.expires_at),
                revoked_at=None if row.revoked_at is None else time_text(row.revoked_at),
                revoked_by=row.revoked_by,
            )
            for row in rows
        ),
    )


_ONE: Final = "/admin/v1/keys/{key}"
ROUTES: Final = (
    Route("GET", "/admin/v1/keys", "keys.list", "The service keys.", READERS, list_keys, Keys, Page, KIND),
    Route(
        "POST", "/admin/v1/keys", "key.create", "Make a service key; its secret is in the answer, once.",
        LEADS, create_key, KeyWithSecret, CreateKey, KIND,
    ),
    Route("GET", _ONE, "key.show", "One service key.", READERS, show_key, Key, kind=KIND),
    Route(
        "POST", f"{_ONE}/rotate", "key.rotate", "Give a service key another secret.",
        LEADS, rotate_key, KeyWithSecret, RotateKey, KIND,
    ),
    Route("DELETE", _ONE, "key.revoke", "End a service key.", LEADS, revoke_key, Revoked, kind=KIND),
)  # fmt: skip
