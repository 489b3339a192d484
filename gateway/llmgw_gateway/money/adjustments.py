"""Changes of limits beside the configuration: a new limit, or an increase with an end. Each is a row, and stays one.

Every replica reads them every two seconds, as it does revocations; whether one is in force is asked of its times at
each admission, so that an increase ends on the moment, whatever the polling does.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money.overrides import Adjustment, Overrides
from llmgw_gateway.observe.changes import Author, Change, is_recorded, record
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


@dataclass(frozen=True, slots=True)
class NewAdjustment:
    """Begin an adjustment."""

    adjustment: Adjustment
    by: Author


def make(connection: Connection, batch: list[NewAdjustment]) -> list[None]:
    """Write new ones; one that is there already stays as it is."""
    for each in batch:
        new = each.adjustment
        before = _replaced(connection, new) if new.kind == "limit" else None
        insert_if_absent(connection, adjustments, asdict(new))
        after = _part(new)
        record(
            connection,
            Change(each.by, new.made_at, f"budget.{new.kind}", "adjustment", new.adjustment_id, before, after),
        )
    return [None] * len(batch)


def _replaced(connection: Connection, new: Adjustment) -> dict[str, Any] | None:
    """The limit that was in the place of the configured one, if there was one."""
    former = [each for each in present(connection, new.made_at) if (each.budget, each.kind) == (new.budget, "limit")]
    newest = max(former, key=lambda each: (each.made_at, each.adjustment_id), default=None)
    return None if newest is None else _part(newest) | {"adjustment": newest.adjustment_id}


def _part(each: Adjustment) -> dict[str, Any]:
    """What stands in the row of a change: the reason may name people, and stays with the adjustment alone."""
    return {"budget": each.budget, "kind": each.kind, "amount": each.amount, "ends_at": each.ends_at}


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """End an adjustment early."""

    adjustment_id: str
    by: Author
    now: int


def withdraw(connection: Connection, batch: list[Withdrawal]) -> list[bool]:
    """False for one that is not there or was withdrawn before. Run again, it answers the same."""
    return [is_recorded(connection, each.by) or _withdraw(connection, each) for each in batch]


def _withdraw(connection: Connection, each: Withdrawal) -> bool:
    mine = (adjustments.c.adjustment_id == each.adjustment_id) & adjustments.c.withdrawn_at.is_(None)
    row = connection.execute(select(adjustments).where(mine).with_for_update()).mappings().one_or_none()
    if row is None:
        return False
    connection.execute(update(adjustments).where(mine).values(withdrawn_at=each.now, withdrawn_by=each.by.actor))
    before = _part(Adjustment(**row))
    record(connection, Change(each.by, each.now, "budget.withdraw", "adjustment", each.adjustment_id, before))
    return True


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

    async def make(self, new: NewAdjustment) -> None:
        """Write one, from now on by the store's clock: it counts here at once, on other replicas within two seconds.

        StoreAwayError tells whether it may have been written; every other error means that it was not.
        """
        now = int(self._database.now() * 1000)
        adjustment = replace(new.adjustment, made_at=now, starts_at=now, made_by=new.by.actor)
        await self._database.submit(make, replace(new, adjustment=adjustment))
        await self._refresh_soon()
        log.info("%s: %s of %d by %s", adjustment.budget, adjustment.kind, adjustment.amount, adjustment.made_by)

    async def withdraw(self, withdrawal: Withdrawal) -> bool:
        """End one early; False when there is none to end."""
        ended = await self._database.submit(withdraw, replace(withdrawal, now=int(self._database.now() * 1000)))
        await self._refresh_soon()
        if ended:
            log.info("adjustment %s was withdrawn by %s", withdrawal.adjustment_id, withdrawal.by.actor)
        return ended

    async def _refresh_soon(self) -> None:
        """What was written is written: when it cannot be read now, it counts with the next round."""
        with contextlib.suppress(GatewayError):
            await self.refresh()

    async def refresh(self) -> None:
        """Read them now."""
        now = int(self._database.now() * 1000)
        self.overrides.replace(await self._database.follow(lambda connection: present(connection, now)))
