"""Calls go on while the store is away, on what was set aside beforehand: takes, draws on and returns allowances.

What must hold, whatever crashes: nothing is dispatched before its draw is synced in the journal; a draw is entered into
the ledger exactly once (by its id); an allowance is given back only after everything drawn on it was entered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from llmgw_gateway.call import MICRO
from llmgw_gateway.errors import GatewayError, StoreError
from llmgw_gateway.money.allowance import FAR, PREFIX, Allowance, Allowances
from llmgw_gateway.money.amounts import NOTHING, larger, only
from llmgw_gateway.money.estimate import Terms
from llmgw_gateway.money.items import (
    Admission,
    Admitted,
    Draw,
    Payer,
    Paying,
    Replay,
    Settlement,
    Undo,
    released,
    unknown,
)
from llmgw_gateway.money.levels import Denial
from llmgw_gateway.store.database import MOST_PER_COMMIT
from llmgw_gateway.store.schema import attempts
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from sqlalchemy import Connection

    from llmgw_gateway.money.items import Answer, Item
    from llmgw_gateway.money.journal import Contents, Journal
    from llmgw_gateway.money.levels import BudgetRef
    from llmgw_gateway.store.database import Database

PROCESS_LOST = "process_lost"
"""The outcome of a draw whose process ended before the call did."""
MOST_DRAWN: Final = 50_000
"""Draws that wait for the store. Calls that cost nothing, such as those that the provider refuses, use nothing up."""
MOST_AT_ONCE: Final = 2 * MOST_PER_COMMIT
"""Items handed in together. More would wait longer than the store's patience, in front of the calls of today."""
log = logging.getLogger("llmgw.money")


class Standby:
    """The allowances of one replica. Without a journal it sets nothing aside and admits nothing."""

    def __init__(
        self, database: Database, post: Callable[[Connection, list[Item]], list[Answer]], journal: Journal | None
    ) -> None:
        self._database = database
        self._post = post
        self._journal = journal
        self._allowances = Allowances()
        self._draws: dict[str, Draw] = {}
        """Not in the ledger yet."""
        self._ended: dict[str, Settlement] = {}
        """Those of them that are over."""
        self._leaving: dict[str, Paying | None] = {}
        """Allowances to be given back, and for whom those were asked of which nobody knows whether they are there."""
        self._writing: set[asyncio.Task[None]] = set()

    def __contains__(self, attempt_id: str) -> bool:
        """Whether an attempt was drawn here, and is settled here."""
        return attempt_id in self._draws

    async def start(self) -> None:
        """Enter what the former life has left into the ledger, then give its allowances back.

        StoreError when the journal cannot be used, or the store is not there to take it.
        """
        if self._journal is None:
            return
        found = await asyncio.to_thread(self._journal.open)
        try:
            await self._recover(found)
            if found.damaged:
                log.error(
                    "the journal was damaged: what replica %s had set aside stays held until it is written off "
                    "(llmgw-gateway budget allowances)", found.replica or "(unknown)",
                )  # fmt: skip
                self._journal.forget_replica()
            await asyncio.to_thread(self._journal.begin)
        except GatewayError as error:
            raise StoreError(f"the journal could not be replayed: {error.message}") from None
        except OSError as error:
            raise StoreError(f"the journal cannot be written: {error.strerror}") from None

    async def _recover(self, found: Contents) -> None:
        now = self._now()
        replays = [
            # Unknown is never nothing: charged as any other attempt whose process was killed.
            Replay(draw, found.ends.get(name) or unknown(name, now, PROCESS_LOST))
            for name, draw in found.draws.items()
        ]
        entered = await self._submit_all(replays)
        _raise_if_away(entered)
        for number, (replay, answer) in enumerate(zip(replays, entered, strict=True)):
            if isinstance(answer, BaseException):
                log.error("%s could not be entered: %r; it is charged as unknown", replay.attempt_id, answer)
                entered[number] = await self._submit(Replay(replay.draw, unknown(replay.attempt_id, now)))
        if replays:
            log.warning("the journal had %d call(s) of an outage, %d of them new to the ledger",
                        len(replays), entered.count(True))  # fmt: skip
        if found.replica and not found.damaged:
            left = await self._database.read(lambda connection: _of_replica(connection, found.replica))
            for answer in await self._submit_all(released(each, now) for each in left):
                if isinstance(answer, BaseException):
                    raise answer

    def used(self, budgets: Iterable[BudgetRef]) -> None:
        """A call was admitted by these budgets."""
        if self._journal is not None:
            self._allowances.used(budgets, time.monotonic())

    async def draw(self, asked: Admission) -> Admitted | None:
        """Admit a call on allowances. None: they do not cover it, or it could not be made durable."""
        if self._journal is None or not self._journal.usable or len(self._draws) >= MOST_DRAWN:
            return None
        terms, name = asked.terms, asked.attempt_id
        hold, ceiling = terms.amounts(terms.max_tokens)
        taken = self._allowances.draw(name, asked.budgets, ceiling[0])
        if not taken:
            return None
        places = tuple((each.budget, each.period_key) for each in taken)
        draw = Draw(name, asked.paying, places, tuple(each.attempt_id for each in taken), hold, ceiling)
        self._draws[name] = draw
        try:
            await self._journal.draw(draw)
        except asyncio.CancelledError:
            # It may be durable all the same: ended like a call that was never sent.
            self.end(released(name, self._now()))
            raise
        except OSError:
            self._allowances.end(name, ceiling[0])
            self._entered(name)
            return None
        return Admitted(hold, ceiling, terms.max_tokens, min(each.left for each in taken))

    def end(self, settlement: Settlement) -> None:
        """A draw is over. It is made durable off the response path, and entered when the store is there."""
        draw = self._draws[settlement.attempt_id]
        charge = settlement.charge
        if charge is None:
            charge = larger(draw.hold, settlement.observed)
        self._ended[draw.attempt_id] = settlement
        self._allowances.end(draw.attempt_id, draw.ceiling[0] - charge[0])
        if self._journal is not None:
            self._write(self._journal.end(settlement))

    def _write(self, work: Coroutine[Any, Any, None]) -> None:
        async def write() -> None:
            with contextlib.suppress(OSError):  # the journal has said so; a crash would charge it as unknown
                await work

        task = asyncio.create_task(write())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def tend(self) -> None:
        """Enter what has ended, and see to the allowances. Call every few seconds; a store that is away is no error."""
        if self._journal is None:
            return
        with contextlib.suppress(GatewayError):
            await self._enter()
            if not self._journal.usable:  # nothing can be drawn on them any more
                await self._give_back(self._idle())
                return
            await self._give_back(self._allowances.surplus(time.monotonic()))
            if missing := self._allowances.missing(time.monotonic()):
                taken = await asyncio.gather(*map(self._take, missing), return_exceptions=True)
                for ref, answer in zip(missing, taken, strict=True):
                    if isinstance(answer, BaseException) and not _away(answer):
                        log.error("no allowance of %s could be taken: %r", ref.budget, answer)
                _raise_if_away(taken)

    async def close(self) -> None:
        """Enter and give back what can be; the rest is the next life's, by the journal."""
        if self._journal is None:
            return
        with contextlib.suppress(GatewayError):
            await self._enter()
            await self._give_back(self._idle())
        while self._writing:
            await asyncio.wait(set(self._writing))
        await self._journal.close()

    async def _enter(self) -> None:
        names = list(self._ended)
        answers = await self._submit_all(Replay(self._draws[name], self._ended[name]) for name in names)
        for name, answer in zip(names, answers, strict=True):
            if not isinstance(answer, BaseException):
                self._entered(name)
            elif not _away(answer):
                log.error("%s could not be entered: %r; it is charged as unknown", name, answer)
                self._ended[name] = unknown(name, self._now())
        _raise_if_away(answers)
        if names and not self._draws:
            log.warning("the calls of the outage are in the ledger")
        if not self._draws and not self._writing and self._journal is not None:
            with contextlib.suppress(OSError):
                await self._journal.truncate()

    def _entered(self, name: str) -> None:
        del self._draws[name]
        self._ended.pop(name, None)
        self._allowances.replayed(name)

    def _idle(self) -> list[Allowance]:
        return [each for each in self._allowances.kept() if not each.running]

    async def _give_back(self, surplus: list[Allowance]) -> None:
        for each in surplus:
            self._allowances.give_back(each)
            self._leaving[each.attempt_id] = None
        names, now = list(self._leaving), self._now()
        # Together: one after another, those of a thousand people would keep the leases from being renewed meanwhile.
        answers = await self._submit_all(
            released(name, now) if paying is None else Undo(name, paying, now) for name, paying in self._leaving.items()
        )
        for name, answer in zip(names, answers, strict=True):
            if not isinstance(answer, BaseException):
                del self._leaving[name]
            elif not _away(answer):
                log.error("allowance %s could not be given back: %r", name, answer)
        _raise_if_away(answers)

    async def _take(self, ref: BudgetRef) -> None:
        """Hold an allowance in the store like a call that costs exactly that. All of it, or nothing."""
        journal, now = self._journal, self._now()
        if journal is None:
            return
        name = f"{PREFIX}{secrets.token_hex(12)}"
        whole = Terms(1, 1, 0, only(0, ref.allowance * MICRO), NOTHING, only(0, ref.allowance * MICRO), NOTHING)
        paying = Paying(journal.replica, Payer("", "", "", "", "", "", ""), now)
        budget = replace(ref, clamp=False, throttle=None)
        try:
            answer = await self._submit(Admission(name, paying, whole, (budget,), FAR))
        except BaseException:
            self._leaving[name] = paying  # it may be there, or come to be
            raise
        if isinstance(answer, Denial):
            self._allowances.refused(ref, time.monotonic())
        else:
            self._allowances.take(Allowance(name, ref.budget, ref.period_key, ref.allowance))

    async def _submit(self, item: Item) -> Answer:
        return await self._database.submit(self._post, item)

    async def _submit_all(self, given: Iterable[Item]) -> list[Answer | BaseException]:
        """The answer to each, in order. So many at a time that none of them waits for longer than the store's patience.

        Once the store is away, the rest is not tried.
        """
        items = list(given)
        answers: list[Answer | BaseException] = []
        while len(answers) < len(items):
            some = items[len(answers) : len(answers) + MOST_AT_ONCE]
            answers += await asyncio.gather(*map(self._submit, some), return_exceptions=True)
            away = next((each for each in answers if isinstance(each, BaseException) and _away(each)), None)
            if away is not None:
                answers += [away] * (len(items) - len(answers))
        return answers

    def _now(self) -> int:
        return int(self._database.now() * 1000)


def _away(error: BaseException) -> bool:
    return isinstance(error, GatewayError) and error.code is ErrorCode.STORE_UNAVAILABLE


def _raise_if_away(answers: Iterable[object]) -> None:
    for answer in answers:
        if isinstance(answer, BaseException) and _away(answer):
            raise answer


def _of_replica(connection: Connection, replica: str) -> list[str]:
    query = select(attempts.c.attempt_id).where(
        attempts.c.operation_id == replica, attempts.c.attempt_id.startswith(PREFIX, autoescape=True)
    )
    return list(connection.scalars(query))
