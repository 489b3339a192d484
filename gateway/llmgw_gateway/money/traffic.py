"""Rates and slots as the pipeline sees them: a call enters with what it takes, and leaves on every way out.

Not money: what is lost here is an empty window, never a cent. So a call never waits long for Valkey, and when that is
away each replica keeps its share of the limits by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn, Self

from llmgw_gateway.call import Usage
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money.limits import REQUEST, SLOT, LimitRef, Limits, amounts, counted
from llmgw_gateway.money.rates import AwayError, Full, Windows
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import LimitView

if TYPE_CHECKING:
    from types import TracebackType

    from llmgw_gateway.call import Account, Call, Grant, Outcome
    from llmgw_gateway.money.learning import Learned
    from llmgw_gateway.money.limits import Takes
    from llmgw_gateway.money.prices import Catalogue
    from llmgw_gateway.money.valkey import Valkey
    from llmgw_gateway.observe.metrics import Metrics
    from llmgw_gateway.settings import Settings

LEASE_SECONDS: Final = 30
log: Final = logging.getLogger("llmgw.limits")
RENEW_SECONDS: Final = 10
"""Three chances to renew a slot before it is somebody else's; the rhythm of the leases on money."""
SLOT_WAIT_SECONDS: Final = 5
"""When to come back for a slot: nobody knows when one is freed."""
MOST_WAIT_SECONDS: Final = 60
"""Clients give up at once when they are told to wait longer."""
NO_TOKENS: Takes = (1, 0, 0, 1)


class Place:
    """What one call takes of its limits: an async context manager, entered when it is admitted."""

    __slots__ = ("_rates", "amounts", "attempt", "burndown", "limits", "local", "outcome", "slots")

    def __init__(self, rates: Rates, attempt: str, limits: tuple[LimitRef, ...], taken: Takes, burndown: int) -> None:
        self._rates = rates
        self.attempt = attempt
        self.limits = limits
        self.amounts = taken
        self.burndown = burndown
        self.slots: tuple[str, ...] = ()
        """The keys of the slots that it occupies."""
        self.local: Windows | None = None
        """Where it was admitted; None: in Valkey."""
        self.outcome: Outcome | None = None

    def follow(self, outcome: Outcome) -> None:
        """Look at what becomes of the attempt: its slots are free as soon as its client is gone, drained or not."""
        self.outcome = outcome
        outcome.client_left = self.free

    def free(self) -> None:
        """Give the slots to others; again changes nothing."""
        if self.slots:
            self._rates.free(self)

    async def __aenter__(self) -> Self:
        if self.limits:
            await self._rates.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.limits:
            self.free()
            self._rates.correct(self, self.differences())
        if self.outcome is not None:
            self.outcome.client_left = None  # the two know each other: only a collector would part them

    def differences(self) -> list[tuple[str, int, int]]:
        """By how much each bucket is to be corrected: key, limit, units. What was used is never given back."""
        outcome = self.outcome
        if outcome is None or not outcome.dispatched:
            return [(ref.key, ref.limit, -self.amounts[ref.amount]) for ref in self.limits if not ref.is_slots]
        changes = []
        for ref in self.limits:
            if ref.kind == "tokens":
                difference = self._truth(outcome, self.amounts[ref.amount]) - self.amounts[ref.amount]
                if difference:
                    changes.append((ref.key, ref.limit, difference))
        return changes

    def _truth(self, outcome: Outcome, held: int) -> int:
        if outcome.refused_upstream:
            return 0
        if outcome.completeness == "complete":
            return counted(outcome.usage, self.burndown)
        usage = outcome.usage
        output = max(usage.output, outcome.pieces)
        seen = Usage(usage.input, output, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h)
        return max(held, counted(seen, self.burndown))


class Rates:
    """All limits of one replica. `start` and `close` frame its life."""

    def __init__(
        self, settings: Settings, catalogue: Catalogue, learned: Learned, metrics: Metrics, valkey: Valkey | None = None
    ) -> None:
        self._limits = Limits(settings.limits)
        self._catalogue = catalogue
        self._learned = learned
        self._metrics = metrics
        self._contact = settings.organisation.contact
        self._valkey = valkey
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._windows = Windows()
        self._shares: dict[str, LimitRef] = {}
        self._open: dict[str, Place] = {}
        """Who occupies slots."""
        self._per_minute = settings.server.questions_per_minute
        self._questions = Windows()
        self._heart: asyncio.Task[None] | None = None

    def follow(self, settings: Settings, catalogue: Catalogue) -> None:
        """Admit by other limits from now on; what is in use stays counted."""
        self._limits, self._shares = Limits(settings.limits), {}
        self._catalogue, self._contact = catalogue, settings.organisation.contact
        self._per_minute = settings.server.questions_per_minute

    async def start(self) -> None:
        """Reach Valkey if there is one, and begin to renew leases."""
        if self._valkey is not None:
            self._valkey.on_change = self._changed
            await self._valkey.start()
        self._heart = asyncio.create_task(self._beat(), name="slots")

    async def close(self) -> None:
        """Give back what is still to be given back."""
        if self._heart is not None:
            self._heart.cancel()
        if self._valkey is not None:
            await self._valkey.close()

    def unready(self) -> str:
        """Why this replica should get no requests; empty when there is no reason. A Valkey that is away is none."""
        # Others would take the slots of calls that run.
        return "slots are not renewed" if self._heart is not None and self._heart.done() else ""

    def admit(self, account: Account, grant: Grant, call: Call) -> Place:
        """What a call takes of its limits; entering it takes, leaving it frees and corrects.

        Entering raises GatewayError(RATE_EXCEEDED), which names the limit, what is in use, and when to come back.
        """
        limits = self._limits.concerning(account, grant.target.model)
        if not limits:
            return Place(self, "", limits, NO_TOKENS, 1)
        taken, burndown = NO_TOKENS, 1
        if any(ref.kind == "tokens" for ref in limits):
            burndown = self._catalogue.models[grant.target.model].output_burndown
            likely = self._learned.expect(
                model=grant.target.model,
                person=account.person_id,
                session=call.session,
                size=call.size,
                most_prompt=self._catalogue.models[grant.target.model].context_tokens * call.prompts,
                most_output=grant.max_tokens,
                now=time.time(),
            )
            taken = amounts(likely, grant.max_tokens, burndown)
        return Place(self, f"{self._prefix}/{next(self._numbers)}", limits, taken, burndown)

    def question(self, person_id: str) -> None:
        """Count a question that costs nothing, whatever it is about: each is work for the store or the provider.

        GatewayError(RATE_EXCEEDED) when the person asks too many of this replica.
        """
        ref = LimitRef(person_id, "limit on questions", "requests", self._per_minute, REQUEST, "user")
        now = _milliseconds()
        if refusal := self._questions.admit("", (ref,), NO_TOKENS, now, now):
            self._refuse(ref, refusal, NO_TOKENS)

    async def enter(self, place: Place) -> None:
        """Take from all limits at once, or refuse."""
        limits = place.limits
        try:
            valkey = self._valkey
            refusal = await self._shared(valkey, place) if valkey is not None else self._alone(place, limits)
        except AwayError:
            limits = tuple(self._share(ref) for ref in limits)
            refusal = self._alone(place, limits)
        if refusal is not None:
            self._refuse(limits[refusal.index], refusal, place.amounts)
        place.slots = tuple(ref.key for ref in limits if ref.is_slots)
        if place.slots:
            self._open[place.attempt] = place

    def free(self, place: Place) -> None:
        """Give a place's slots to others."""
        slots, place.slots = place.slots, ()
        self._open.pop(place.attempt, None)
        self._windows.release(place.attempt, slots)
        if self._valkey is not None:
            self._valkey.release(place.attempt, slots)

    def correct(self, place: Place, changes: list[tuple[str, int, int]]) -> None:
        """Correct buckets where they were taken from; what was taken in an outage is forgotten with it."""
        if not changes:
            return
        if place.local is None:
            if self._valkey is not None:
                self._valkey.correct(changes)
        elif place.local is self._windows:
            now = _milliseconds()
            for key, limit, difference in changes:
                self._windows.correct(key, limit, difference, now)

    async def views(self, account: Account) -> tuple[LimitView, ...]:
        """All limits of an account as they stand."""
        limits = self._limits.concerning(account)
        used = self._windows.used(limits, _milliseconds())
        if self._valkey is not None and limits:
            with contextlib.suppress(AwayError):
                used = await _waited(self._valkey.used(limits), self._valkey.seconds)
        return tuple(
            LimitView(ref.name, ref.level, ref.kind, ref.limit, number, ref.model or None)
            for ref, number in zip(limits, used, strict=True)
        )

    async def _shared(self, valkey: Valkey, place: Place) -> Full | None:
        answer = valkey.admit(place.attempt, place.limits, place.amounts)
        try:
            return Full.read(await _waited(answer, valkey.seconds))
        except (AwayError, asyncio.CancelledError):
            # It may have been admitted all the same: then nobody uses what it took.
            answer.add_done_callback(lambda late: _give_back(valkey, place, late))
            raise

    def _alone(self, place: Place, limits: tuple[LimitRef, ...]) -> Full | None:
        place.local = self._windows
        now = _milliseconds()
        return self._windows.admit(place.attempt, limits, place.amounts, now, now + LEASE_SECONDS * 1000)

    def _share(self, ref: LimitRef) -> LimitRef:
        """What this replica may let through by itself: an equal part of the limit, at least one."""
        if ref.refuses:
            raise GatewayError(
                ErrorCode.STORE_UNAVAILABLE,
                f"The {ref.name} cannot be checked right now, and it is not to be passed unchecked. Try again.",
                retry_after=2,
            )
        share = self._shares.get(ref.key)
        if share is None:
            replicas = self._valkey.replicas if self._valkey is not None else 1
            share = self._shares[ref.key] = replace(ref, limit=max(1, ref.limit // replicas))
        return share

    def _changed(self, available: bool) -> None:  # noqa: FBT001 -- a callback
        """Take what runs along: into a store of one's own when Valkey goes, to Valkey when it is back."""
        self._windows, self._shares = Windows(), {}
        self._renew(available=available)

    def _renew(self, *, available: bool) -> None:
        until = _milliseconds() + LEASE_SECONDS * 1000
        for place in self._open.values():
            if available and self._valkey is not None:
                self._valkey.renew(place.attempt, place.slots)
            else:
                self._windows.renew(place.attempt, place.slots, until)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                self._renew(available=self._valkey is not None and self._valkey.available)
                self._windows.forget(_milliseconds())
                self._questions.forget(_milliseconds())
                if self._valkey is not None:
                    await self._valkey.count_replicas()
            except Exception:
                log.exception("slots could not be renewed")  # and will be tried again: limits are not money

    def _refuse(self, ref: LimitRef, refusal: Full, taken: Takes) -> NoReturn:
        self._metrics.limited.labels(ref.level, ref.kind, ref.model).inc()
        wait = -(-refusal.wait // 1000) if refusal.wait else SLOT_WAIT_SECONDS
        wait = min(max(wait, 1), MOST_WAIT_SECONDS)
        which = f"{'Your' if ref.level == 'user' else 'The'} {ref.name}"
        if ref.amount == SLOT:
            state = f"{refusal.used:,} of {ref.limit:,} calls are running"
        else:
            state = f"{refusal.used:,} of {ref.limit:,} {ref.kind} a minute are in use"
            if ref.kind == "tokens":
                state += f", and this call needs about {taken[ref.amount]:,}"
        parts = [f"{which} is reached: {state}.", f"Try again in {wait} s."]
        if self._contact:
            parts.append(f"To raise it, ask {self._contact}.")
        raise GatewayError(ErrorCode.RATE_EXCEEDED, " ".join(parts), retry_after=wait)


def _milliseconds() -> int:
    return int(time.monotonic() * 1000)


async def _waited(answer: asyncio.Future[list[int]], seconds: float) -> list[int]:
    """An answer of Valkey, if it comes in time; AwayError. Whoever stops waiting leaves the question open."""
    if not answer.done():
        await asyncio.wait((answer,), timeout=seconds)
    if not answer.done():
        raise AwayError
    return answer.result()


def _give_back(valkey: Valkey, place: Place, late: asyncio.Future[list[int]]) -> None:
    """Undo an admission that nobody waited for."""
    if late.cancelled() or late.exception() is not None or Full.read(late.result()):
        return
    valkey.release(place.attempt, [ref.key for ref in place.limits if ref.is_slots])
    valkey.correct([(ref.key, ref.limit, -place.amounts[ref.amount]) for ref in place.limits if not ref.is_slots])
