"""Ended sessions: a token of one is refused although its signature is good (RFC 7009).

Keyed by the session, never by the token's bytes: ES256 signatures are malleable, so one token has many spellings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, select, update

from llmgw_gateway.store.polling import Poller
from llmgw_gateway.store.schema import revocations, sessions
from llmgw_gateway.store.upsert import insert_if_absent

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database


class _Ended(NamedTuple):
    """A session that ends; times in milliseconds since the epoch."""

    session: str
    now: int
    expires_at: int


def end_session(connection: Connection, session: str, now: int, expires_at: int) -> None:
    """End one session; its tokens are refused until `expires_at`, when all have ended by themselves.

    Times in milliseconds since the epoch.
    """
    insert_if_absent(connection, revocations, {"session": session, "expires_at": expires_at})
    # The row stays: the place among the person's devices is taken again by who signs in next.
    ended = update(sessions).where(sessions.c.sid == session, sessions.c.ended_at.is_(None))
    connection.execute(ended.values(ended_at=now))


class Revocations:
    """The sessions that have ended and whose tokens still live."""

    def __init__(self, database: Database, token_seconds: int) -> None:
        self._database = database
        self._token_seconds = token_seconds
        self._sessions: frozenset[str] = frozenset()
        self._poller = Poller("revocations", self.refresh)
        self.unready = self._poller.unready

    async def start(self) -> None:
        """Load what is revoked, and keep up with other replicas."""
        await self.refresh()
        self._poller.start()

    def stop(self) -> None:
        """Stop following."""
        self._poller.stop()

    def __contains__(self, session: str) -> bool:
        return session in self._sessions

    async def end(self, session: str) -> None:
        """End a session: the device has to sign in again, and its tokens are refused at once."""
        now = self._database.now()
        ended = _Ended(session, int(now * 1000), int((now + 2 * self._token_seconds) * 1000))
        await self._database.submit(_end, ended)
        await self.refresh()

    async def refresh(self) -> None:
        """Read them now."""
        now = int(self._database.now() * 1000)
        query = select(revocations.c.session).where(revocations.c.expires_at > now)
        self._sessions = frozenset(await self._database.read(lambda connection: connection.scalars(query).all()))


def _end(connection: Connection, batch: list[_Ended]) -> list[None]:
    # In one order at all replicas: two that end the same sessions would otherwise wait for each other.
    for each in sorted(batch):
        end_session(connection, each.session, each.now, each.expires_at)
    over = select(revocations.c.session).where(revocations.c.expires_at < min(each.now for each in batch))
    connection.execute(delete(revocations).where(revocations.c.session.in_(over.with_for_update(skip_locked=True))))
    return [None] * len(batch)
