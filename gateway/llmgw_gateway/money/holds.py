"""Money as the pipeline sees it: `admit` is entered before an attempt is dispatched and settles on every way out."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from zoneinfo import ZoneInfo

from msgspec.structs import replace
from sqlalchemy import select

from llmgw_gateway.call import LONG_CONTEXT
from llmgw_gateway.errors import GatewayError, StoreAwayError
from llmgw_gateway.money import items, own_usage
from llmgw_gateway.money.amounts import NOTHING, UNITS, larger, smaller
from llmgw_gateway.money.budgets import Budgets, view
from llmgw_gateway.money.estimate import estimate
from llmgw_gateway.money.hold import Hold, Running
from llmgw_gateway.money.journal import Journal
from llmgw_gateway.money.learning import Learned
from llmgw_gateway.money.levels import Denial
from llmgw_gateway.money.posting import Books
from llmgw_gateway.money.refusals import explain
from llmgw_gateway.money.standby import Standby
from llmgw_gateway.money.tariffs import Tariffs
from llmgw_gateway.store.polling import until_next
from llmgw_gateway.store.schema import counters
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection

    from llmgw_gateway.call import Account, Call, Grant
    from llmgw_gateway.money.estimate import Terms
    from llmgw_gateway.money.overrides import Overrides
    from llmgw_gateway.money.prices import Catalogue, Tariff
    from llmgw_gateway.settings import Settings
    from llmgw_gateway.store.database import Database
    from llmgw_wire.messages import BudgetView, UsageReport


LEASE_SECONDS: Final = 30
RENEW_SECONDS: Final = 10
"""The age of a lease at which it is renewed: three chances before it ends."""
BEAT_SECONDS: Final = 2
"""How often running attempts are looked at: a hold that has grown too small is topped up within this."""
LINGER_SECONDS: Final = 0.2
"""How long a settlement may wait for something to share a commit with: nobody waits for it."""
CROWD: Final = 64
"""From so many running attempts on something to share a commit with comes soon, unless all of them are slow."""
CROWDED_SECONDS: Final = 0.05
"""How long a settlement waits then: not so long that the writer is left idle."""
GATHERED_SECONDS: Final = 0.01
"""How long an admission waits then: a hundredth of what a model takes to begin, and a quarter of the commits."""
TIGHT: Final = 0.9
"""The share of a hold from which on it is topped up."""
GROWTH: Final = 1.5
"""A topped-up hold, as a multiple of what was seen."""
log: Final = logging.getLogger("llmgw.money")


class _HandIn(Protocol):
    """`Database.hand_in` with the books' own function."""

    def __call__(self, item: items.Item, *, linger: float = 0.0) -> asyncio.Future[items.Answer]: ...


class Money:
    """Holds and settles. One for each process; `start` and `drain` frame its life."""

    def __init__(
        self, database: Database, catalogue: Catalogue, settings: Settings, overrides: Overrides | None = None
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._contact = settings.organisation.contact
        self._zone = ZoneInfo(settings.organisation.time_zone)
        self._reports = own_usage.Reports()
        self._overrides = overrides
        self._budgets = Budgets(settings.budgets, self._zone, overrides, catalogue.version)
        self.learned = Learned()
        self._post = Books().post
        self._hand_in = cast("_HandIn", partial(database.hand_in, self._post))
        journal = Journal(settings.path(settings.store.journal)) if settings.store.journal else None
        self.standby = Standby(database, self._post, journal)
        """What goes on while the store is away."""
        self._name = f"att_{secrets.token_hex(10)}_"
        self._numbers = itertools.count(1)
        """Attempts are numbered within the life of a process, whose name is random: side by side in what is ordered."""
        self._open: dict[str, Hold] = {}
        self._settling: dict[asyncio.Future[Any], items.Settlement | items.Undo | None] = {}
        """What `drain` waits for, and what was handed in to be settled."""
        self._heart: asyncio.Task[None] | None = None
        # On a shared store the others may be about to renew what an outage has kept from them.
        self._sweep_at = time.monotonic() + LEASE_SECONDS if database.shared else 0.0
        self._tariffs = Tariffs(catalogue)

    def follow(self, settings: Settings, catalogue: Catalogue) -> None:
        """Admit by other budgets and prices from now on; what runs is settled by those of its admission."""
        self._catalogue, self._tariffs = catalogue, Tariffs(catalogue)
        self._contact = settings.organisation.contact
        self._budgets = Budgets(settings.budgets, self._zone, self._overrides, catalogue.version)

    async def start(self) -> None:
        """Begin to renew leases and to sweep up what other lives of this process left behind.

        StoreError when the journal cannot be used or replayed.
        """
        await self.standby.start()
        self._heart = asyncio.create_task(self._beat(), name="leases")

    async def drain(self, seconds: float | None = None) -> int:
        """Wait until everything that was admitted is settled; returns how much is not after so many seconds.

        What is left is settled by the next process on this store, as soon as its lease has ended.
        """
        ends = None if seconds is None else time.monotonic() + seconds
        while self._settling and (ends is None or time.monotonic() < ends):
            left = None if ends is None else ends - time.monotonic()
            await asyncio.wait(set(self._settling), timeout=left)
        if self._heart is not None:
            self._heart.cancel()
        await self.standby.close()
        return len(self._settling)

    def unready(self) -> str:
        """Why this replica must not admit calls; empty when there is no reason."""
        if self._heart is not None and self._heart.done():
            return "leases are not renewed"  # attempts that run would be settled as lost
        return self._database.unready()

    def admit(self, account: Account, grant: Grant, call: Call, operation_id: str) -> AbstractAsyncContextManager[Hold]:
        """Hold the expected cost of one attempt; settle or release it on leaving, off the response path.

        Near a limit the call may be admitted with a smaller `max_tokens`: the call is changed accordingly.
        GatewayError(BUDGET_EXCEEDED) names the budget, what is spent and held of it, and when it resets;
        BUDGET_PACED says when the next call is admitted.
        """
        return Running(self._hold(account, grant, call, operation_id), self._finish)

    async def _hold(self, account: Account, grant: Grant, call: Call, operation_id: str) -> Hold:
        asked_at = time.monotonic()
        now = self._database.now()
        target = grant.target
        tariff = self._tariffs.of(target, now)
        charged = self._budgets.charged(account, now, target)
        asked = items.Admission(
            attempt_id=self._attempt_id(),
            paying=items.Paying(operation_id, charged.payer, int(now * 1000)),
            terms=self._terms(account, grant, call, tariff, now),
            budgets=charged.budgets,
            lease_until=int((now + LEASE_SECONDS) * 1000),
        )
        asked, answer = await self._admitted(asked)
        if isinstance(answer, Denial):
            raise self._refusal(answer, asked.terms)
        self.standby.used(asked.budgets)
        hold = Hold(
            asked.attempt_id,
            answer,
            tariff,
            model=target.model,
            person=account.person_id,
            session=call.session,
            size=call.size,
            renewed=asked_at,
        )
        if hold.max_tokens < grant.max_tokens:
            call.clamp(hold.max_tokens)
        if hold.attempt_id not in self.standby:
            # A process that slept past its lease was swept meanwhile: it must not dispatch on a hold that is gone.
            hold.outcome.dispatch_by = asked_at + LEASE_SECONDS
            self._open[hold.attempt_id] = hold
        return hold

    async def _admitted(self, asked: items.Admission) -> tuple[items.Admission, items.Admitted | Denial]:
        """What the store decides, or where it is away the allowances; under which admission."""
        try:
            return asked, cast("items.Admitted | Denial", await self._hand_in(asked, linger=self._gather()))
        except asyncio.CancelledError as error:
            self._give_back(asked, error)
            raise
        except StoreAwayError as error:
            self._give_back(asked, error)
            away = error
        # After the handler: a compiled coroutine forgets what it handles while it waits (decision 0018).
        # Under an id of its own: the one that was asked for may have been admitted, and is given back then.
        asked = replace(asked, attempt_id=self._attempt_id())
        drawn = await self.standby.draw(asked)
        if drawn is None:
            raise away
        return asked, drawn

    def _attempt_id(self) -> str:
        return f"{self._name}{next(self._numbers):06x}"

    def _finish(self, hold: Hold) -> None:
        """Hand the settlement in, off the response path: a finished attempt stays held until its row commits."""
        try:
            now = self._database.now()
            settlement = hold.close(int(now * 1000))
            self._learn(hold, now)
        except Exception:
            # Whatever is odd about the usage, the attempt must not stay open: it is charged as unknown.
            log.exception("the outcome of %s could not be priced", hold.attempt_id)
            settlement = items.unknown(hold.attempt_id, self._now())
        if hold.attempt_id in self.standby:
            self.standby.end(settlement)
        else:
            self._settle_later(settlement)

    def _settle_later(self, settlement: items.Settlement | items.Undo) -> None:
        """Hand a settlement in and wait for nothing; `drain` does."""
        try:
            answer = self._hand_in(settlement, linger=self._linger())
        except StoreAwayError:
            return  # closed: the next process settles it when its lease has ended
        self._settling[answer] = settlement
        answer.add_done_callback(self._settled)

    def _gather(self) -> float:
        """Seconds for which an admission waits for others to share its commit with."""
        return GATHERED_SECONDS if len(self._open) >= CROWD else 0.0

    def _linger(self) -> float:
        """Seconds for a settlement. Where others are on their way, one of them will soon need a commit."""
        others = len(self._open) - 1
        return 0.0 if others < 1 else LINGER_SECONDS if others < CROWD else CROWDED_SECONDS

    def _settled(self, answer: asyncio.Future[Any]) -> None:
        settlement = self._settling.pop(answer)
        if settlement is None:
            return  # a task that has seen to it
        error = None if answer.cancelled() else answer.exception()
        if error is None:
            self._open.pop(settlement.attempt_id, None)
        elif isinstance(error, GatewayError) and error.code is ErrorCode.STORE_UNAVAILABLE:
            self._track(self._settle(settlement))
        else:
            log.error("settlement of %s failed: %r", settlement.attempt_id, error)
            self._track(self._settle(items.instead(settlement)))

    def _learn(self, hold: Hold, now: float) -> None:
        if hold.outcome.completeness == "complete":
            self.learned.observe(
                model=hold.model,
                person=hold.person,
                session=hold.session,
                size=hold.size,
                usage=hold.outcome.usage,
                now=now,
            )

    def _give_back(self, asked: items.Admission, error: StoreAwayError | asyncio.CancelledError) -> None:
        """What its caller no longer waits for, or what may have been admitted."""
        if not isinstance(error, StoreAwayError) or error.uncertain:
            self._settle_later(items.Undo(asked.attempt_id, asked.paying, self._now()))

    def _refusal(self, denial: Denial, terms: Terms) -> GatewayError:
        asked = terms.hold(UNITS.index(denial.budget.unit), terms.max_tokens)
        text = explain(denial, asked, self._contact)
        if denial.reason == "pace":
            return GatewayError(ErrorCode.BUDGET_PACED, text, retry_after=denial.retry_after)
        return GatewayError(ErrorCode.BUDGET_EXCEEDED, text)

    def _track(self, work: Coroutine[None, None, None]) -> None:
        """Run to its end what must not be lost when a request is; `drain` waits for it."""
        task = asyncio.create_task(work)
        self._settling[task] = None
        task.add_done_callback(self._settled)

    async def budgets_of(self, account: Account) -> tuple[BudgetView, ...]:
        """All budgets of an account as they stand."""
        concerned = self._budgets.concerning(account, self._database.now())

        def query(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
            rows = connection.execute(
                select(counters).where(counters.c.budget.in_([budget.budget for budget in concerned]))
            )
            return {(row.budget, row.period_key): (row.spent, row.held) for row in rows}

        sums = await self._database.read(query)
        return tuple(view(each, *sums.get((each.budget, each.period_key), (0, 0))) for each in concerned)

    async def usage_of(self, person_id: str) -> UsageReport:
        """What a person used today, this week and this month."""
        now, zone = self._database.now(), self._zone
        known = self._reports.get(person_id, now)
        if known is None:
            known = await self._database.read(lambda connection: own_usage.report(connection, person_id, zone, now))
            self._reports.put(person_id, now, known)
        return known

    def _terms(self, account: Account, grant: Grant, call: Call, tariff: Tariff, now: float) -> Terms:
        model = self._catalogue.models[grant.target.model]
        context = max(model.context_tokens, LONG_CONTEXT) if call.long_context else model.context_tokens
        context *= call.prompts
        likely = self.learned.expect(
            model=model.name,
            person=account.person_id,
            session=call.session,
            size=call.size,
            most_output=grant.max_tokens,
            most_prompt=context,
            now=now,
        )
        return estimate(
            size=context if call.media else call.size,
            max_tokens=grant.max_tokens,
            least_tokens=min(call.least_tokens, grant.max_tokens),
            context_tokens=context,
            likely=likely,
            tariff=tariff,
        )

    async def _settle(self, settlement: items.Settlement | items.Undo) -> None:
        """Write the settlement; while the store is away, keep trying: the hold stays until the row commits."""
        pause = 0.1
        while True:
            try:
                await self._hand_in(settlement)
                break
            except Exception as error:
                if not isinstance(error, GatewayError) or error.code is not ErrorCode.STORE_UNAVAILABLE:
                    if isinstance(settlement, items.Undo):
                        settlement = items.instead(settlement)
                        continue
                    log.exception("settlement of %s failed: it is swept without its lease", settlement.attempt_id)
                    break
            log.warning("settlement of %s is waiting for the store", settlement.attempt_id)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5)
        self._open.pop(settlement.attempt_id, None)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(until_next(BEAT_SECONDS))
            try:
                await self._renew(time.monotonic())
                await self._sweep(time.monotonic())
                await self.standby.tend()
            except Exception as error:  # noqa: BLE001 -- one bad row must not end the renewals of all others
                log.warning("leases could not be renewed: %s", type(error).__name__)
                # After an outage everybody's leases are old: their owners get the time to renew them first.
                self._sweep_at = time.monotonic() + LEASE_SECONDS

    async def _renew(self, at: float) -> None:
        until = self._now() + LEASE_SECONDS * 1000
        due: list[tuple[Hold, items.Renewal]] = []
        for hold in self._open.values():
            try:
                seen = hold.seen()
            except Exception:
                # Unpriceable usage of one attempt must not end the leases of all others; its own is kept, too.
                log.exception("what %s has cost so far could not be priced", hold.attempt_id)
                seen = NOTHING
            tight = any(amount > TIGHT * held for amount, held in zip(seen, hold.amounts, strict=True))
            if tight or at - hold.renewed >= RENEW_SECONDS:
                wanted = (int(seen[0] * GROWTH), int(seen[1] * GROWTH), int(seen[2] * GROWTH)) if tight else NOTHING
                due.append((hold, items.Renewal(hold.attempt_id, seen, until, wanted)))
        answers = await asyncio.gather(*(self._hand_in(renewal) for _, renewal in due), return_exceptions=True)
        away: GatewayError | None = None
        for (hold, renewal), kept in zip(due, answers, strict=True):
            if isinstance(kept, GatewayError) and kept.code is ErrorCode.STORE_UNAVAILABLE:
                away = kept
                continue
            hold.renewed = at
            if isinstance(kept, BaseException):
                # Its lease ends; those of the others, and the sweeps, go on.
                log.error("the lease of %s could not be renewed: %r", hold.attempt_id, kept)
            elif kept:
                hold.amounts = larger(hold.amounts, smaller(renewal.hold, hold.ceiling))
        if away is not None:
            raise away

    async def _sweep(self, at: float) -> None:
        if at < self._sweep_at:
            return
        self._sweep_at = at + RENEW_SECONDS
        if swept := await self._hand_in(items.Sweep(self._now())):
            log.warning("settled %d attempt(s) whose outcome is unknown at what was held for them", swept)

    def _now(self) -> int:
        """Milliseconds since the epoch, by the store's clock."""
        return int(self._database.now() * 1000)
