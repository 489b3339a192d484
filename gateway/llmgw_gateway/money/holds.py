"""Money as the pipeline sees it: `admit` is entered before an attempt is dispatched and settles on every way out."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sqlalchemy import select

from llmgw_gateway.call import MICRO, Outcome
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money import admission, ledger, periods
from llmgw_gateway.money.decide import BudgetRef, Denial
from llmgw_gateway.money.estimate import estimate
from llmgw_gateway.store.schema import counters
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import BudgetView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from llmgw_gateway.call import Call, Caller, Grant, Usage
    from llmgw_gateway.money.estimate import Estimate
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.settings import Settings
    from llmgw_gateway.store.database import Database

LEASE_SECONDS = 30
HEARTBEAT_SECONDS = 10
"""Three chances to renew a lease before it ends."""
log = logging.getLogger("llmgw.money")


@dataclass(slots=True)
class Hold:
    """Money kept for one attempt, and what became of it."""

    attempt_id: str
    remaining: int | None
    """Micro-USD left in the tightest budget after this hold; None without a budget."""
    catalogue: Catalogue
    grant: Grant
    day: datetime
    outcome: Outcome = field(default_factory=Outcome)

    def cost(self, usage: Usage) -> int:
        """What `usage` costs in micro-USD, by the price of the day the attempt was admitted."""
        target = self.grant.target
        price = self.catalogue.price(
            target.model, geography=target.geography, day=self.day.date(), prompt_tokens=usage.prompt
        )
        return price.cost(usage)

    def close(self) -> ledger.Settlement:
        """Decide what the attempt is charged. Unknown usage is never zero; what was never sent costs nothing."""
        outcome, now = self.outcome, _milliseconds()
        if not outcome.dispatched:
            return ledger.Settlement(self.attempt_id, "released", now, cost=0)
        if outcome.refused_upstream:
            return ledger.Settlement(self.attempt_id, outcome.note, now, cost=0)
        seen = self.cost(outcome.usage)
        if outcome.completeness == "complete":
            outcome.cost = seen
            return ledger.Settlement(self.attempt_id, outcome.note, now, cost=seen, usage=outcome.usage)
        outcome.estimated = True
        outcome.cost = seen
        return ledger.Settlement(self.attempt_id, outcome.note, now, cost=None, usage=outcome.usage, observed=seen)


class Money:
    """Holds and settles. One for each process; `start` and `drain` frame its life."""

    def __init__(self, database: Database, catalogue: Catalogue, settings: Settings) -> None:
        self._database = database
        self._catalogue = catalogue
        self._organisation = settings.organisation
        self._budgets = settings.budgets
        self._zone = ZoneInfo(settings.organisation.time_zone)
        self._open: dict[str, Hold] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._heart: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to renew leases and to sweep up what other lives of this process left behind."""
        self._heart = asyncio.create_task(self._beat(), name="leases")

    async def drain(self) -> None:
        """Wait until everything that was admitted is settled."""
        while self._settling:
            await asyncio.wait(set(self._settling))
        if self._heart is not None:
            self._heart.cancel()

    @asynccontextmanager
    async def admit(self, caller: Caller, grant: Grant, call: Call, operation_id: str) -> AsyncIterator[Hold]:
        """Hold the expected cost of one attempt; settle or release it on leaving, off the response path.

        GatewayError(BUDGET_EXCEEDED) names the budget, what is spent and held of it, and when it resets.
        """
        now = time.time()
        day = datetime.fromtimestamp(now, UTC)
        keep = self._estimate(grant, call, day)
        asked = admission.Admission(
            attempt_id=f"att_{secrets.token_hex(12)}",
            operation_id=operation_id,
            person_id=caller.person_id,
            model=grant.target.model,
            target=grant.target.invoke_id,
            price_version=self._catalogue.version,
            hold=keep.hold,
            ceiling=keep.ceiling,
            budgets=self._concerned(caller, now),
            now=int(now * 1000),
            lease_until=int((now + LEASE_SECONDS) * 1000),
        )
        answer: admission.Admitted | Denial = await self._database.submit(admission.admit, asked)
        if isinstance(answer, Denial):
            raise GatewayError(ErrorCode.BUDGET_EXCEEDED, self._explain(answer, keep.hold))
        hold = Hold(asked.attempt_id, answer.remaining, self._catalogue, grant, day)
        self._open[hold.attempt_id] = hold
        try:
            yield hold
        finally:
            task = asyncio.create_task(self._settle(hold.close()), name="settle")
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def budgets_of(self, caller: Caller) -> tuple[BudgetView, ...]:
        """The caller's budgets as they stand."""
        concerned = self._concerned(caller, time.time())

        def query(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
            rows = connection.execute(
                select(counters).where(counters.c.budget.in_([budget.budget for budget in concerned]))
            )
            return {(row.budget, row.period_key): (row.spent, row.held) for row in rows}

        sums = await self._database.read(query)
        return tuple(
            BudgetView(
                name=budget.name,
                level="user",
                period="month",
                period_key=budget.period_key,
                limit=budget.limit,
                spent=sums.get((budget.budget, budget.period_key), (0, 0))[0],
                held=sums.get((budget.budget, budget.period_key), (0, 0))[1],
                overshoot_limit=budget.overshoot,
                resets_at=budget.resets_at,
            )
            for budget in concerned
        )

    def _estimate(self, grant: Grant, call: Call, day: datetime) -> Estimate:
        model = self._catalogue.models[grant.target.model]
        geography = grant.target.geography
        expected = self._catalogue.price(model.name, geography=geography, day=day.date(), prompt_tokens=call.size // 4)
        dearest = self._catalogue.price(
            model.name, geography=geography, day=day.date(), prompt_tokens=model.context_tokens
        )
        return estimate(call.size, grant.max_tokens, model.context_tokens, expected, dearest)

    def _concerned(self, caller: Caller, now: float) -> tuple[BudgetRef, ...]:
        return tuple(
            BudgetRef(
                budget=f"{budget.level}/{caller.person_id}//{budget.period}",
                name="monthly budget",
                period_key=periods.key(now, budget.period, self._zone),
                limit=budget.limit,
                overshoot=budget.overshoot,
                resets_at=periods.end(now, budget.period, self._zone).strftime("%Y-%m-%dT%H:%M:%SZ"),
            )
            for budget in self._budgets
        )

    def _explain(self, denial: Denial, hold: int) -> str:
        budget = denial.budget
        state = f"{usd(denial.spent)} spent and {usd(denial.held)} held of {usd(budget.limit)}"
        if denial.exposed:
            what = f"Your {budget.name} for {budget.period_key} cannot cover the worst case of what is running: {state}"
            advice = "Wait until some of them have ended, or ask for a smaller max_tokens."
        elif denial.spent >= budget.limit:
            what = f"Your {budget.name} for {budget.period_key} is used up: {state}"
            advice = ""
        else:
            what = (
                f"Your {budget.name} for {budget.period_key} does not cover this request (about {usd(hold)}): {state}"
            )
            advice = ""
        where = f"To raise it, ask {self._organisation.contact}." if self._organisation.contact else ""
        resets = f"It resets at {budget.resets_at}."
        return " ".join(part for part in (f"{what}.", resets, advice, where) if part)

    async def _settle(self, settlement: ledger.Settlement) -> None:
        """Write the settlement; while the store is away, keep trying: the hold stays until the row commits."""
        pause = 0.1
        while True:
            try:
                await self._database.submit(ledger.settle, settlement)
            except GatewayError:
                log.warning("settlement of %s is waiting for the store", settlement.attempt_id)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5)
            else:
                self._open.pop(settlement.attempt_id, None)
                return

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            now = _milliseconds()
            until = now + LEASE_SECONDS * 1000
            try:
                renewals = [
                    self._database.submit(
                        admission.renew,
                        admission.Renewal(hold.attempt_id, hold.cost(hold.outcome.usage), until),
                    )
                    for hold in self._open.values()
                ]
                await asyncio.gather(*renewals)
                if swept := await self._database.submit(ledger.sweep, now):
                    log.warning("settled %d attempt(s) whose outcome is unknown at what was held for them", swept)
            except GatewayError:
                log.warning("leases could not be renewed: the store is not available")


def usd(amount: int) -> str:
    """Micro-USD as a person reads it: cents, and more digits where cents would show nothing."""
    value = amount / MICRO
    return f"USD {value:,.2f}" if amount % 10_000 == 0 or value >= 1 else f"USD {value:,.4f}"


def _milliseconds() -> int:
    return int(time.time() * 1000)
