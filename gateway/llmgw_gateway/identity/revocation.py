"""Ended sessions: a token of one is refused although its signature is good (RFC 7009).

Keyed by the session, never by the token's bytes: ES256 signatures are malleable, so one token has many spellings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, select, update

from llmgw_gateway.sections.exchanging import MOST_LIFE_SECONDS
from llmgw_gateway.store.polling import Poller
from llmgw_gateway.store.schema import revocations, sessions
from llmgw_gateway.store.upsert import insert_if_absent

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database


KEPT_SECONDS: Final = 2 * MOST_LIFE_SECONDS
"""What is revoked stays so until every token has ended, of whatever life: the configuration may change meanwhile."""


class _Ended(NamedTuple):
    """A session that ends; time in milliseconds since the epoch."""

    session: str
    now: int


def end_session(connection: Connection, session: str, now: int) -> None:
    """End one session; its tokens are refused until all of them have ended by themselves.

    `now` in milliseconds since the epoch.
    """
    insert_if_absent(connection, revocations, {"session": session, "expires_at": now + KEPT_SECONDS * 1000})
    # The row stays: the place among the person's devices is taken again by who signs in next.
    ended = update(sessions).where(sessions.c.sid == session, sessions.c.ended_at.is_(None))
    connection.execute(ended.values(ended_at=now))


class Revocations:
    """The sessions that have ended and whose tokens still live."""

    def __init__(self, database: Database) -> None:
        self._database = database
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
        await self._database.submit(_end, _Ended(session, int(self._database.now() * 1000)))
        await self.refresh()

    async def refresh(self) -> None:
        """Read them now."""
        now = int(self._database.now() * 1000)
        query = select(revocations.c.session).where(revocations.c.expires_at > now)
        self._sessions = frozenset(await self._database.follow(lambda connection: connection.scalars(query).all()))


def _end(connection: Connection, batch: list[_Ended]) -> list[None]:
    # In one order at all replicas: two that end the same sessions would otherwise wait for each other.
    for each in sorted(batch):
        end_session(connection, each.session, each.now)
    over = select(revocations.c.session).where(revocations.c.expires_at < min(each.now for each in batch))
    connection.execute(delete(revocations).where(revocations.c.session.in_(over.with_for_update(skip_locked=True))))
    return [None] * len(batch)
