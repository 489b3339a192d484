"""Removes what is older than the configuration wants it: a little at a time, so that nobody waits for it.

Each hour, in every gateway: its own files of the audit trail; and what is in the store, where one replica at a time is
at it. Every step is a transaction of its own, of milliseconds, and a pause follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar
from zoneinfo import ZoneInfo

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.erasing import Erasure, erase, unseen
from llmgw_gateway.money.rollup import MOST_ATTEMPTS, Slice, ours, remember, roll_up, waiting
from llmgw_gateway.observe import anchors, change_chain, trail
from llmgw_gateway.observe.changes import Author, Change, is_recorded, new_change_id, record

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from sqlalchemy import Connection

    from llmgw_gateway.observe.audit import Audit
    from llmgw_gateway.observe.chain import Key
    from llmgw_gateway.settings import Settings
    from llmgw_gateway.store.database import Database

Result = TypeVar("Result")

HOUR: Final = 3600.0
SHARE: Final = 4
"""Of the time of the store's writer, retention takes at most one part of so many: the store is for calls."""
LEAST_SECONDS: Final = 0.02
SLICE_SECONDS: Final = 0.003
"""How long one transaction may keep the writer: whoever wants to be admitted meanwhile waits for its end."""
DAY: Final = 86_400_000
AUTHOR: Final = "retention"
MOST_CHANGES: Final = 1_000
MOST_PEOPLE: Final = 20
"""Of one round: for each, all free texts of the store are looked through."""
log = logging.getLogger("llmgw.retention")


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be."""

    ledger: int = 0
    """Attempts; of what waits, entries."""
    changes: int = 0
    people: int = 0
    audit: int = 0
    """Files."""


@dataclass(frozen=True, slots=True)
class Round:
    """The order to begin a round."""


class Pace:
    """How much one transaction takes on: what this store, as busy as it is, does in SLICE_SECONDS. At first little.

    Never less than a tenth of the most: below that a transaction costs the same, and there would only be more of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._least = self.size = max(1, most // 10)

    def took(self, seconds: float) -> None:
        """Learn from the last one: less at once, more by and by."""
        fits = int(self.size * SLICE_SECONDS / max(seconds, 1e-6))
        self.size = max(self._least, min(self._most, fits, 2 * self.size))


class Retention:
    """The job of one gateway. Without an audit trail (a command) files are left to the gateways that write them."""

    def __init__(self, database: Database, settings: Settings, audit: Audit | None = None) -> None:
        self._database = database
        self._settings = settings
        self._audit = audit
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._one = asyncio.Lock()
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(self, settings: Settings) -> None:
        """Take another configuration into use: from the next round on, which begins now when times have changed."""
        changed = settings.retention != self._settings.retention
        self._settings = settings
        if changed:
            self._asked.set()

    def start(self) -> None:
        """Begin a round now, and another each hour."""
        self._task = asyncio.create_task(self._run(), name="retention")

    def stop(self) -> None:
        """End after the transaction that is under way."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(GatewayError):  # the store is away: in an hour, then
                await self.round()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOUR):
                    await self._asked.wait()
            self._asked.clear()

    async def begin(self, _order: Round) -> None:
        """Have a round begin now, and do not wait for it."""
        self._asked.set()

    async def round(self) -> Removed:
        """Remove all that is too old by now."""
        async with self._one:
            wanted = self._settings.retention
            now = int(self._database.now() * 1000)
            done = Removed(
                ledger=await self._ledger(now - wanted.ledger_days * DAY) if wanted.ledger_days else 0,
                changes=await self._changes(now - wanted.changes_days * DAY) if wanted.changes_days else 0,
                people=await self._people(now, now - wanted.people_days * DAY) if wanted.people_days else 0,
                audit=await self._files(now - wanted.audit_days * DAY) if wanted.audit_days else 0,
            )
        if any(asdict(done).values()):
            log.info("removed: %s", ", ".join(f"{count} of {name}" for name, count in asdict(done).items()))
        return done

    async def _ledger(self, before: int) -> int:
        zone, pace, whole = ZoneInfo(self._settings.organisation.time_zone), Pace(MOST_ATTEMPTS), 0
        while True:
            asked = Slice(before, zone, self._seen, pace.size)
            done = await self._step(self._database.submit(roll_up, asked))
            if done is None or not done.attempts:
                return whole
            remember(self._seen, done.operations)
            pace.took(done.seconds)
            whole += done.attempts

    async def _step(self, work: Awaitable[Result]) -> Result:
        """One transaction, and a pause that is as long as it takes to keep to the share."""
        began = time.monotonic()
        done = await work
        await asyncio.sleep(max(LEAST_SECONDS, (SHARE - 1) * (time.monotonic() - began)))
        return done

    async def _changes(self, before: int) -> int:
        pace, whole = Pace(MOST_CHANGES), 0
        while True:
            key = anchors.key_in_force(self._settings)
            asked = _Oldest(before, int(self._database.now() * 1000), new_change_id(), key, pace.size)
            count, seconds = await self._step(self._database.submit(_remove_changes, asked))
            if not count:
                return whole
            pace.took(seconds)
            whole += count

    async def _people(self, now: int, before: int) -> int:
        names = await self._database.read(lambda connection: unseen(connection, before, MOST_PEOPLE))
        for name in names:
            by = Author(AUTHOR, AUTHOR, new_change_id())
            order = Erasure(name, (), by, now)
            await self._step(self._database.submit(erase, (order, anchors.key_in_force(self._settings))))
        if names:
            await self._database.purge()
        return len(names)

    async def _files(self, before: int) -> int:
        """The trail says first what goes; then it may."""
        if self._audit is None:
            return 0
        path = self._settings.path(self._settings.audit.path)
        found = await asyncio.to_thread(trail.older, path, _day(before))
        for each in found:
            if each.opening is not None:
                self._audit.note({"kind": anchors.REMOVED, "chain": each.opening.chain, "day": each.opening.day})
                await self._audit.on_disk()
                await self._database.submit(anchors.forget, each.opening.chain)
                await asyncio.to_thread(each.path.unlink, missing_ok=True)
        return len(found)


def waits(connection: Connection, settings: Settings, now: int) -> Removed:
    """What the next round would find. It only reads."""
    wanted = settings.retention
    newest = change_chain.oldest(connection, now - wanted.changes_days * DAY, 1 << 62) if wanted.changes_days else None
    path = settings.path(settings.audit.path)
    return Removed(
        ledger=waiting(connection, now - wanted.ledger_days * DAY) if wanted.ledger_days else 0,
        changes=change_chain.up_to(connection, newest[0]) if newest is not None else 0,
        people=len(unseen(connection, now - wanted.people_days * DAY)) if wanted.people_days else 0,
        audit=len(trail.older(path, _day(now - wanted.audit_days * DAY))) if wanted.audit_days else 0,
    )


@dataclass(frozen=True, slots=True)
class _Oldest:
    before: int
    now: int
    change_id: str
    key: Key
    most: int


def _remove_changes(connection: Connection, batch: list[_Oldest]) -> list[tuple[int, float]]:
    """How many rows went, for each, and how many seconds that took; the row that says so comes first."""
    answers = []
    for each in batch:
        began = time.perf_counter()
        answers.append((_remove(connection, each), time.perf_counter() - began))
    return answers


def _remove(connection: Connection, asked: _Oldest) -> int:
    by = Author(AUTHOR, AUTHOR, asked.change_id)
    if not ours(connection):
        return 0
    if is_recorded(connection, by):  # the transaction is run again: what it removed is gone
        return 1
    found = change_chain.oldest(connection, asked.before, asked.most)
    if found is None:
        return 0
    number, last = found
    count = change_chain.up_to(connection, number)
    after = change_chain.told(asked.key, asked.change_id, change_chain.REMOVED, {"number": number, "hash": last})
    record(connection, Change(by, asked.now, "retention.changes", "changes", "", None, after))
    change_chain.remove(connection, number)
    return count


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
