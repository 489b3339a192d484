"""Money as the pipeline sees it: `admit` is entered before an attempt is dispatched and settles on every way out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sqlalchemy import select

from llmgw_gateway.call import MICRO, Outcome
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money import admission, ledger
from llmgw_gateway.money.budgets import Budgets
from llmgw_gateway.money.decide import Denial
from llmgw_gateway.money.estimate import estimate
from llmgw_gateway.money.learning import Learned
from llmgw_gateway.store.schema import counters
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import BudgetView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from sqlalchemy import Connection

    from llmgw_gateway.call import Account, Call, Grant, Usage
    from llmgw_gateway.money.estimate import Estimate
    from llmgw_gateway.money.prices import Catalogue, Price
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
    amount: int
    """Micro-USD held."""
    catalogue: Catalogue
    grant: Grant
    day: datetime
    person: str
    session: str
    size: int
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
        outcome.cost = max(self.amount, seen)  # what the ledger charges for the unknown
        return ledger.Settlement(self.attempt_id, outcome.note, now, cost=None, usage=outcome.usage, observed=seen)


class Money:
    """Holds and settles. One for each process; `start` and `drain` frame its life."""

    def __init__(self, database: Database, catalogue: Catalogue, settings: Settings) -> None:
        self._database = database
        self._catalogue = catalogue
        self._organisation = settings.organisation
        self._budgets = Budgets(settings.budgets, ZoneInfo(settings.organisation.time_zone))
        self._learned = Learned()
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

    @contextlib.asynccontextmanager
    async def admit(self, account: Account, grant: Grant, call: Call, operation_id: str) -> AsyncIterator[Hold]:
        """Hold the expected cost of one attempt; settle or release it on leaving, off the response path.

        GatewayError(BUDGET_EXCEEDED) names the budget, what is spent and held of it, and when it resets.
        """
        now = time.time()
        day = datetime.fromtimestamp(now, UTC)
        keep = self._estimate(account, grant, call, day)
        asked = admission.Admission(
            attempt_id=f"att_{secrets.token_hex(12)}",
            operation_id=operation_id,
            person_id=account.person_id,
            model=grant.target.model,
            target=grant.target.invoke_id,
            price_version=self._catalogue.version,
            hold=keep.hold,
            ceiling=keep.ceiling,
            budgets=self._budgets.concerning(account, now, grant.target.model),
            now=int(now * 1000),
            lease_until=int((now + LEASE_SECONDS) * 1000),
        )
        answer = await self._admit(asked)
        if isinstance(answer, Denial):
            raise GatewayError(ErrorCode.BUDGET_EXCEEDED, self._explain(answer, keep.hold))
        hold = Hold(
            asked.attempt_id,
            answer.remaining,
            keep.hold,
            self._catalogue,
            grant,
            day,
            account.person_id,
            call.session,
            call.size,
        )
        self._open[hold.attempt_id] = hold
        try:
            yield hold
        finally:
            self._track(self._settle(hold.close()))
            self._learn(hold)

    def _learn(self, hold: Hold) -> None:
        if hold.outcome.completeness == "complete":
            self._learned.observe(
                model=hold.grant.target.model,
                person=hold.person,
                session=hold.session,
                size=hold.size,
                usage=hold.outcome.usage,
                now=time.time(),
            )

    async def _admit(self, asked: admission.Admission) -> admission.Admitted | Denial:
        """Ask the store. A caller that is cancelled meanwhile leaves no hold: it is given back once it is known."""
        submission: asyncio.Future[admission.Admitted | Denial]
        submission = asyncio.ensure_future(self._database.submit(admission.admit, asked))
        try:
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            self._track(self._give_back(submission, asked.attempt_id))
            raise

    async def _give_back(self, submission: asyncio.Future[admission.Admitted | Denial], attempt_id: str) -> None:
        with contextlib.suppress(GatewayError):  # the store refused: nothing was held
            if isinstance(await submission, admission.Admitted):
                await self._settle(ledger.Settlement(attempt_id, "released", _milliseconds(), cost=0))

    def _track(self, work: Coroutine[None, None, None]) -> None:
        """Run to its end what must not be lost when a request is; `drain` waits for it."""
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def budgets_of(self, account: Account) -> tuple[BudgetView, ...]:
        """All budgets of an account as they stand."""
        concerned = self._budgets.concerning(account, time.time())

        def query(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
            rows = connection.execute(
                select(counters).where(counters.c.budget.in_([budget.budget for budget in concerned]))
            )
            return {(row.budget, row.period_key): (row.spent, row.held) for row in rows}

        sums = await self._database.read(query)
        return tuple(
            BudgetView(
                name=budget.name,
                level=budget.level,
                period=budget.period,
                model=budget.model or None,
                period_key=budget.period_key,
                limit=budget.limit,
                spent=sums.get((budget.budget, budget.period_key), (0, 0))[0],
                held=sums.get((budget.budget, budget.period_key), (0, 0))[1],
                overshoot_limit=budget.overshoot,
                resets_at=budget.resets_at,
            )
            for budget in concerned
        )

    def _estimate(self, account: Account, grant: Grant, call: Call, day: datetime) -> Estimate:
        model = self._catalogue.models[grant.target.model]
        likely = self._learned.expect(
            model=model.name,
            person=account.person_id,
            session=call.session,
            size=call.size,
            most_output=grant.max_tokens,
            now=day.timestamp(),
        )

        def price(prompt_tokens: int) -> Price:
            place = grant.target.geography
            return self._catalogue.price(model.name, geography=place, day=day.date(), prompt_tokens=prompt_tokens)

        return estimate(
            model.context_tokens if call.media else call.size,
            grant.max_tokens,
            model.context_tokens,
            likely,
            price(likely.prompt),
            price(model.context_tokens),
        )

    def _explain(self, denial: Denial, hold: int) -> str:
        budget = denial.budget
        which = f"{'Your' if budget.level == 'user' else 'The'} {budget.name} for {budget.period_key}"
        state = f"{usd(denial.spent)} spent and {usd(denial.held)} held of {usd(budget.limit)}"
        if denial.exposed:
            what = f"{which} cannot cover the worst case of what is running: {state}"
            advice = "Wait until some of them have ended, or ask for a smaller max_tokens."
        elif denial.spent >= budget.limit:
            what = f"{which} is used up: {state}"
            advice = ""
        else:
            what = f"{which} does not cover this request (about {usd(hold)}): {state}"
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
            except GatewayError as error:
                if error.code is not ErrorCode.STORE_UNAVAILABLE:
                    raise
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
            except Exception as error:  # noqa: BLE001 -- one bad row must not end the renewals of all others
                log.warning("leases could not be renewed: %s", type(error).__name__)


def usd(amount: int) -> str:
    """Micro-USD as a person reads it: cents, and more digits where cents would show nothing."""
    value = amount / MICRO
    return f"USD {value:,.2f}" if amount % 10_000 == 0 or value >= 1 else f"USD {value:,.4f}"


def _milliseconds() -> int:
    return int(time.time() * 1000)
