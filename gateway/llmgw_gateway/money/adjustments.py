"""Changes of limits beside the configuration: a new limit, or an increase with an end. Each is a row, and stays one.

Every replica reads them every two seconds, as it does revocations; whether one is in force is asked of its times at
each admission, so that an increase ends on the moment, whatever the polling does.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.store.schema import adjustments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database

POLL_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One change of one limit. Times in milliseconds since the epoch, the amount in the budget's unit."""

    adjustment_id: str
    kind: Literal["limit", "grant"]
    """limit replaces the configured one, a grant adds to it."""
    budget: str
    """The budget's key."""
    amount: int
    starts_at: int
    ends_at: int | None
    reason: str
    made_by: str
    made_at: int
    withdrawn_by: str | None = None
    withdrawn_at: int | None = None

    def in_force(self, now: int) -> bool:
        """Whether it counts at a moment."""
        if self.withdrawn_at is not None and self.withdrawn_at <= now:
            return False
        return self.starts_at <= now and (self.ends_at is None or now < self.ends_at)


def limit_of(configured: int, mine: Iterable[Adjustment], now: int) -> int:
    """The limit at a moment: the newest replacement, or else the configured one, and all grants on top. Pure."""
    current = [each for each in mine if each.in_force(now)]
    replaced = [each for each in current if each.kind == "limit"]
    base = max(replaced, key=lambda each: (each.made_at, each.adjustment_id)).amount if replaced else configured
    return base + sum(each.amount for each in current if each.kind == "grant")


def present(connection: Connection, now: int) -> list[Adjustment]:
    """All that are in force or will be."""
    query = select(adjustments).where(
        adjustments.c.withdrawn_at.is_(None), adjustments.c.ends_at.is_(None) | (adjustments.c.ends_at > now)
    )
    return [Adjustment(**row) for row in connection.execute(query.order_by(adjustments.c.made_at)).mappings()]


def make(connection: Connection, batch: list[Adjustment]) -> list[None]:
    """Write new ones."""
    fields = adjustments.c.keys()
    connection.execute(adjustments.insert(), [{name: getattr(each, name) for name in fields} for each in batch])
    return [None] * len(batch)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """End an adjustment early."""

    adjustment_id: str
    by: str
    now: int


def withdraw(connection: Connection, batch: list[Withdrawal]) -> list[bool]:
    """False for one that is not there or was withdrawn before."""
    return [
        connection.execute(
            adjustments.update()
            .where(adjustments.c.adjustment_id == each.adjustment_id, adjustments.c.withdrawn_at.is_(None))
            .values(withdrawn_at=each.now, withdrawn_by=each.by)
        ).rowcount
        == 1
        for each in batch
    ]


class Adjustments:
    """Those that are in force, as this replica knows them. `start` reads them once and keeps reading."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mine: dict[str, list[Adjustment]] = {}
        self._poller: asyncio.Task[None] | None = None
        self.version = 0
        """Another number whenever something was made or withdrawn."""

    async def start(self) -> None:
        """GatewayError(STORE_UNAVAILABLE) when they cannot be read: unknown limits are not enforced by guessing."""
        await self.refresh()
        self._poller = asyncio.create_task(self._poll(), name="adjustments")

    def stop(self) -> None:
        """Stop reading."""
        if self._poller is not None:
            self._poller.cancel()

    def limit(self, budget: str, configured: int, now: int) -> int:
        """The limit of a budget at a moment (milliseconds since the epoch)."""
        mine = self._mine.get(budget)
        return limit_of(configured, mine, now) if mine else configured

    def changes_at(self, now: float) -> float:
        """When the next one begins or ends, in seconds since the epoch; infinite when none does."""
        moments = (moment for mine in self._mine.values() for each in mine for moment in (each.starts_at, each.ends_at))
        return min(
            (moment / 1000 for moment in moments if moment is not None and moment > now * 1000), default=math.inf
        )

    async def refresh(self) -> None:
        """Read them now."""
        now = int(self._database.now() * 1000)
        found: defaultdict[str, list[Adjustment]] = defaultdict(list)
        for each in await self._database.read(lambda connection: present(connection, now)):
            found[each.budget].append(each)
        if found != self._mine:
            self._mine = dict(found)
            self.version += 1

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            # While the store is away the last known ones stay: their times are theirs.
            with contextlib.suppress(GatewayError):
                await self.refresh()
