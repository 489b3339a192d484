"""Changes of limits beside the configuration: a new limit, or an increase with an end. Each is a row, and stays one.

Every replica reads them every two seconds, as it does revocations; whether one is in force is asked of its times at
each admission, so that an increase ends on the moment, whatever the polling does.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money.overrides import Adjustment, Overrides
from llmgw_gateway.store.polling import Poller
from llmgw_gateway.store.schema import adjustments
from llmgw_gateway.store.upsert import insert_if_absent

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database

log = logging.getLogger("llmgw.money")


def present(connection: Connection, now: int) -> list[Adjustment]:
    """All that are in force or will be."""
    query = select(adjustments).where(
        adjustments.c.withdrawn_at.is_(None), adjustments.c.ends_at.is_(None) | (adjustments.c.ends_at > now)
    )
    return [Adjustment(**row) for row in connection.execute(query.order_by(adjustments.c.made_at)).mappings()]


def make(connection: Connection, batch: list[Adjustment]) -> list[None]:
    """Write new ones; one that is there already stays as it is."""
    for each in batch:
        insert_if_absent(connection, adjustments, asdict(each))
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
    """Keeps the limits of one replica as the store has them. `start` reads them once and keeps reading."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.overrides = Overrides()
        # While the store is away the last known ones stay: their times are theirs.
        self._poller = Poller("adjustments of limits", self.refresh)
        self.unready = self._poller.unready

    async def start(self) -> None:
        """GatewayError(STORE_UNAVAILABLE) when they cannot be read: a limit is never guessed."""
        await self.refresh()
        self._poller.start()

    def stop(self) -> None:
        """Stop reading."""
        self._poller.stop()

    async def make(self, adjustment: Adjustment) -> None:
        """Write one, from now on by the store's clock: it counts here at once, on other replicas within two seconds.

        StoreAwayError tells whether it may have been written; every other error means that it was not.
        """
        now = int(self._database.now() * 1000)
        adjustment = replace(adjustment, made_at=now, starts_at=now)
        await self._database.submit(make, adjustment)
        await self._refresh_soon()
        log.info("%s: %s of %d by %s", adjustment.budget, adjustment.kind, adjustment.amount, adjustment.made_by)

    async def withdraw(self, withdrawal: Withdrawal) -> bool:
        """End one early; False when there is none to end."""
        ended = await self._database.submit(withdraw, withdrawal)
        await self._refresh_soon()
        if ended:
            log.info("adjustment %s was withdrawn by %s", withdrawal.adjustment_id, withdrawal.by)
        return ended

    async def _refresh_soon(self) -> None:
        """What was written is written: when it cannot be read now, it counts with the next round."""
        with contextlib.suppress(GatewayError):
            await self.refresh()

    async def refresh(self) -> None:
        """Read them now."""
        now = int(self._database.now() * 1000)
        self.overrides.replace(await self._database.read(lambda connection: present(connection, now)))
