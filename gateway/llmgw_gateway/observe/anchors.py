"""Tells the store how far the audit trail goes, and the audit trail how far the changes by administrators go.

Each vouches for the other: who can write only one of them cannot cut its end off unseen.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, select, update

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe import change_chain
from llmgw_gateway.observe.chain import anchor_seal, key_of
from llmgw_gateway.store.polling import Poller, until_next
from llmgw_gateway.store.schema import audit_heads
from llmgw_gateway.store.upsert import insert_if_absent
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from llmgw_gateway.observe.audit import Audit
    from llmgw_gateway.observe.chain import Head, Key
    from llmgw_gateway.observe.metrics import Metrics
    from llmgw_gateway.settings import Settings
    from llmgw_gateway.store.database import Database

PAUSE_SECONDS: Final = 1.0
"""Records of the last second may be lost unseen, together with the file's end: a crash could have taken them, too."""
LATE_SECONDS: Final = 15
CHANGES: Final = "changes"
REMOVED: Final = "removed"
STORE: Final = "store"
"""A record that the store cannot be told of heads from here on, or can again."""
UNKNOWN: Final = "unknown_to_store"
"""A record that a start has found a file, up to here, of which the store knows nothing."""
log = logging.getLogger("llmgw.audit")


class Anchors:
    """Follows one gateway's trail."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        keys: Callable[[], Key],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`keys` reads the key of the trail; GatewayError when it cannot be read, and the last one stays."""
        self._database = database
        self._audit = audit
        self._keys = keys
        self._key = keys()
        self._anchored: Head | None = None
        self._changes = 0
        self._away = False
        self._monotonic = monotonic
        self._told_at = monotonic()
        self._poller = Poller("heads of the audit trail", self._round, lambda: until_next(PAUSE_SECONDS))

    @property
    def untold_seconds(self) -> float:
        """For how long the store has not been told of records that are on disk; 0 when it knows of all."""
        return 0.0 if self._audit.head == self._anchored else self._monotonic() - self._told_at

    def standing(self) -> list[str]:
        """What an operator should know of the trail before it makes anybody wait; empty when there is nothing."""
        told, waiting = [], self._audit.unwritten
        if (late := self.untold_seconds) > LATE_SECONDS:
            told.append(f"audit: the store has not been told of the audit trail for {late:.0f} s")
        if waiting * 2 >= self._audit.most_waiting:
            told.append(
                f"audit: {waiting:,} lines wait for the disk; at {self._audit.most_waiting:,} calls are refused"
            )
        return told

    def show(self, metrics: Metrics) -> None:
        """Let metrics say the same in numbers."""
        audit, shown = self._audit, metrics.audit
        shown.waiting.set_function(lambda: audit.unwritten)
        shown.most_waiting.set_function(lambda: audit.most_waiting)
        shown.records.set_function(lambda: audit.head.count if audit.head is not None else 0)
        shown.untold_seconds.set_function(lambda: self.untold_seconds)

    async def start(self) -> None:
        """Compare what is on disk with what the store was told, and go on telling it."""
        head = self._audit.head
        if head is not None:
            await self._compare(head)
        self._poller.start()

    async def _compare(self, head: Head) -> None:
        known = await self._database.read(lambda connection: _known(connection, head.chain))
        if known is None:
            # By a crash in the file's first seconds, or because somebody has cut it and deleted the row: what is
            # written from here on may not make it look whole.
            log.warning("the store knows nothing of %s, which has %d records", head.chain, head.count)
            self._audit.note({"kind": UNKNOWN, "records": head.count})
        elif known.records > head.count or (known.records == head.count and known.seal != head.seal):
            log.error(
                "the audit trail has %d records of %s, and the store was told of %d: it goes on in a new file. "
                "Run: llmgw-gateway audit verify",
                head.count,
                head.chain,
                known.records,
            )
            self._audit.begin_anew()
            self._anchored = head

    async def stop(self) -> None:
        """Tell the store of the last records; they are on disk whether it hears of them or not."""
        self._poller.stop()
        with contextlib.suppress(GatewayError):
            await self._anchor()

    async def _round(self) -> None:
        try:
            await self._tell()
        except GatewayError:
            if not self._away:
                self._away = True
                self._audit.note({"kind": STORE, "away": True})
            raise
        if self._away:
            self._away = False
            self._audit.note({"kind": STORE, "away": False})

    async def _tell(self) -> None:
        self._follow_key()
        newest = await self._database.follow(change_chain.last)
        if newest is not None and newest[0] != self._changes:
            self._changes = newest[0]
            self._audit.note({"kind": CHANGES, "number": newest[0], "hash": newest[1]})
        await self._anchor()

    def _follow_key(self) -> None:
        """A secret that was replaced counts at once: two small files are read, off no request's path."""
        with contextlib.suppress(GatewayError):
            key = self._keys()
            if key != self._key:
                self._key = key
                self._audit.rekey(key)
                log.info("the audit trail is sealed with another key from now on (%s)", key.key_id)

    async def _anchor(self) -> None:
        head = self._audit.head
        if head is not None and head != self._anchored:
            row = anchor(self._key, head, self._audit.writer, int(time.time() * 1000))
            await self._database.submit(write, row)
            self._anchored = head
        self._told_at = self._monotonic()


def key_in_force(settings: Settings) -> Key:
    """What the audit trail is sealed with now: its file is read again. GatewayError(INTERNAL) when it cannot be."""
    try:
        return key_of(settings.audit_secrets()[0])
    except (OSError, ValueError) as error:
        raise GatewayError(ErrorCode.INTERNAL, f"The key of the audit trail cannot be read: {error}.") from error


def anchor(key: Key, head: Head, writer: str, now: int) -> dict[str, object]:
    """A head as the store has it."""
    return {
        "chain": head.chain,
        "writer": writer,
        "day": head.day,
        "records": head.count,
        "seal": head.seal,
        "key_id": key.key_id,
        "anchored_at": now,
        "mac": anchor_seal(key, head, writer),
    }


def write(connection: Connection, batch: list[dict[str, object]]) -> list[None]:
    """Put heads forward, never back: the batch may be run again."""
    for row in batch:
        if not insert_if_absent(connection, audit_heads, row):
            mine = (audit_heads.c.chain == row["chain"]) & (audit_heads.c.records < row["records"])
            connection.execute(update(audit_heads).where(mine).values(row))
    return [None] * len(batch)


def forget(connection: Connection, batch: list[str]) -> list[None]:
    """The files of these chains were removed on purpose; the trail says so itself."""
    connection.execute(delete(audit_heads).where(audit_heads.c.chain.in_(batch)))
    return [None] * len(batch)


def writer_of(path: Path) -> str:
    """What this gateway's trail is called among those of other replicas."""
    return f"{socket.gethostname()}:{path}"


def _known(connection: Connection, chain: str) -> Any:  # noqa: ANN401 -- a row
    return connection.execute(select(audit_heads).where(audit_heads.c.chain == chain)).one_or_none()
