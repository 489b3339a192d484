"""The store as the rest of the gateway sees it: work goes in, one thread commits it in groups, answers come out.

The same loop for every store: what differs (a file, a server that may go away) is a `Backend`. Why one writer: a commit
each costs an fsync each, and a batch costs one; work that arrives while a commit is under way goes into the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, SQLAlchemyError

from llmgw_gateway.errors import GatewayError, StoreAwayError
from llmgw_gateway.store.polling import until_next
from llmgw_gateway.store.reader import Reader, settle
from llmgw_gateway.store.work import Work
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    Batch = Callable[[Connection, list[Any]], Sequence[Any]]

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_PER_COMMIT: Final = 512
PATIENCE_SECONDS: Final = 5.0
"""How long a caller waits for the store before being told that it is away."""
TICK_SECONDS: Final = 0.5
SKEW_SECONDS: Final = 2.0
"""How far this machine's clock may be off the store's: tokens and leases are judged by both."""
log: Final = logging.getLogger("llmgw.store")


class Backend(Protocol):
    """What is particular to a database. `transact` is called by the writer thread only, `read` by the reader's."""

    shared: bool
    """Whether other gateway processes may work on the same store at the same time."""

    def outdated(self) -> bool:
        """Whether `open` has to change the schema. Leaves no connection behind."""

    def open(self) -> None:
        """Bring the schema up to date; StoreError names the store when it cannot be used."""

    def transact(self, run: Callable[[Connection], Result], deadline: float) -> Result:
        """Run a function in a transaction and commit it; run it again where that is safe and helps.

        `deadline` is in seconds of time.monotonic(). StoreAwayError when the store could not be reached until then.
        """

    def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query that cannot write and that sees one moment."""

    def purge(self) -> bool:
        """Leave nothing behind of what was deleted or overwritten; False when somebody is in the way. By the writer."""

    def now(self) -> float:
        """Seconds since the epoch by the store's clock."""

    def follow_clock(self) -> None:
        """Compare the clocks again. Called by the reader's thread every few seconds where the store is shared."""

    def stop(self) -> None:
        """Wait for nothing any more: the gateway is closing. Callable from any thread."""

    def close(self) -> None:
        """Let go of everything, after the threads have ended."""


class Database:
    """Runs batches of work in transactions on the writer thread, and reads on another.

    A batch function takes a connection and a list of items and returns one result for each. It must not care whether
    it is run again: a batch whose outcome is unknown is (an item that was done already answers as if it were new).
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._queue: queue.SimpleQueue[list[Work | None]] = queue.SimpleQueue()
        self._handed_in: list[Work | None] = []
        """What this turn of the loop has brought, and what may wait a little."""
        self._hurrying = False
        """Whether it is handed over after this turn."""
        self._handing: asyncio.TimerHandle | None = None
        """Else when."""
        self._writer = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._reader = Reader(backend.read)
        self._waiting: dict[Work, None] = {}
        """Handed in and not answered, oldest first. Touched by the loop's thread only."""
        self._taking = threading.Lock()
        """Between the writer, who takes work, and the loop, who withdraws what was not taken in time."""
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self._clock: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    @property
    def shared(self) -> bool:
        """Whether other gateway processes may work on the same store at the same time."""
        return self._backend.shared

    def now(self) -> float:
        """Seconds since the epoch by the store's clock: the same for every replica, whatever this machine's clock."""
        return self._backend.now()

    def unready(self) -> str:
        """Why this replica should get no requests on account of its store; empty when there is no reason.

        A store that is away is none: it would take out all replicas at once, and they say 503 by themselves.
        """
        if self._loop is not None and not self._writer.is_alive():
            return "the store's writer has ended"
        if self._clock is not None and self._clock.done():
            return "the store's clock is not followed any more"
        skew = time.time() - self._backend.now()
        return f"this machine's clock is {skew:+.1f} s off the store's" if abs(skew) > SKEW_SECONDS else ""

    def start(self) -> None:
        """Bring the schema up to date and start the writer. StoreError names the store when it cannot be used."""
        self._backend.open()
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        self._timer = self._loop.call_later(TICK_SECONDS, self._give_up)
        if self._backend.shared:
            self._clock = self._loop.create_task(self._follow_clock(), name="store-clock")

    async def submit(
        self, work: Callable[[Connection, list[Item]], Sequence[Result | GatewayError]], item: Item
    ) -> Result:
        """Run `work` for `item` in a transaction of the writer and return its result once that is durable.

        GatewayError(STORE_UNAVAILABLE) when the database could not, INTERNAL when the item does not fit into it,
        StoreAwayError when it did not answer in time; an error that `work` returns for the item is raised.
        """
        return await self.hand_in(work, item)

    def hand_in(
        self,
        work: Callable[[Connection, list[Item]], Sequence[Result | GatewayError]],
        item: Item,
        *,
        linger: float = 0.0,
    ) -> asyncio.Future[Result]:
        """The same for a caller that does not wait: the future has the result, or the error.

        The work is done whatever becomes of the future, and with `linger` after so many seconds at the latest: it goes
        along with what somebody waits for, and costs no commit of its own. StoreAwayError when the store is closed.
        """
        if self._loop is None or self._closing:
            raise StoreAwayError(uncertain=False)
        future: asyncio.Future[Result] = self._loop.create_future()
        handed_in = Work(work, item, future, self._tick)
        self._waiting[handed_in] = None
        self._handed_in.append(handed_in)
        if linger:
            self._hand_over_within(linger)
        elif not self._hurrying:
            self._hurrying = True
            self._loop.call_soon(self._hand_over)
        return future

    def _hand_over_within(self, seconds: float) -> None:
        """Hand over then, or before, where something waits that lingers less."""
        if self._hurrying or self._loop is None:
            return
        due = self._loop.time() + seconds
        if self._handing is not None:
            if self._handing.when() <= due:
                return
            self._handing.cancel()
        self._handing = self._loop.call_at(due, self._hand_over)

    def _hand_over(self) -> None:
        """Give the writer what one turn of the loop has brought: to wake it for each item costs more than the item."""
        self._hurrying = False
        if self._handing is not None:
            self._handing.cancel()
            self._handing = None
        if self._handed_in:
            self._queue.put(self._handed_in)
            self._handed_in = []

    async def purge(self) -> bool:
        """Leave nothing in the store's files of what was deleted or overwritten, as far as that is the gateway's to do.

        False when a reader is in the way. Errors as for `submit`.
        """
        return await self.hand_in(_PURGE, None)

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query on a connection that cannot write. Errors as for `submit`."""
        return await self._answered(self._reader.read, query)

    async def follow(self, query: Callable[[Connection], Result]) -> Result:
        """The same for a short query that is asked again and again: it shares a transaction with others of its kind."""
        return await self._answered(self._reader.follow, query)

    async def _answered(
        self,
        ask: Callable[[Callable[[Connection], Result]], asyncio.Future[Result]],
        query: Callable[[Connection], Result],
    ) -> Result:
        if self._closing:
            raise StoreAwayError(uncertain=False)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await ask(query)
        except TimeoutError:
            raise StoreAwayError(uncertain=False) from None
        except SQLAlchemyError as error:
            raise _refused(error) from error

    def close(self) -> None:
        """Commit what is queued, then stop. Call once, when no request is left. Waits for a store only so long."""
        self._closing = True
        for later in (self._timer, self._clock):
            if later is not None:
                later.cancel()
        self._hand_over()
        self._queue.put([None])
        if self._writer.is_alive():
            self._writer.join(PATIENCE_SECONDS)
            self._backend.stop()
            self._writer.join(PATIENCE_SECONDS)
        self._backend.stop()
        self._reader.close()
        if self._writer.is_alive():
            log.error("the store did not answer: what was handed in last may be lost")
            return
        self._backend.close()

    def _write(self) -> None:
        last = False
        queued: deque[Work | None] = deque()
        while not last:
            if not queued:
                queued.extend(self._queue.get())
            while len(queued) < MOST_PER_COMMIT and not self._queue.empty():
                queued.extend(self._queue.get())
            batch = [queued.popleft() for _ in range(min(len(queued), MOST_PER_COMMIT))]
            last = batch[-1] is None
            with self._taking:
                taken = [work for work in batch if work is not None and work.state == "queued"]
                for work in taken:
                    work.state = "taken"
            if taken:
                answers = self._commit(taken)
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the answers
                    self._loop.call_soon_threadsafe(self._answer, taken, answers)  # type: ignore[union-attr] # started

    def _commit(self, batch: list[Work]) -> Sequence[Any]:
        """One transaction for the whole batch; when it fails, one for each item, so that only the guilty one fails."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            if any(work.run is _PURGE for work in batch):  # seldom, and between transactions
                return [self._backend.purge() if work.run is _PURGE else self._commit([work])[0] for work in batch]
            return self._backend.transact(partial(_run, batch), deadline)
        except StoreAwayError as error:  # it would be no better with each item alone
            return [StoreAwayError(uncertain=error.uncertain) for _ in batch]
        except Exception:  # noqa: BLE001 -- whatever a batch function raises is told to its caller, below
            return [self._commit_alone(work, deadline) for work in batch]

    def _commit_alone(self, work: Work, deadline: float) -> Any:  # noqa: ANN401 -- a result, or what was raised
        if time.monotonic() > deadline:
            # The batch may have been committed before a second run found it at fault: never promise that it was not.
            return StoreAwayError(uncertain=True)
        try:
            return self._backend.transact(partial(_run, [work]), deadline)[0]
        except Exception as error:  # noqa: BLE001 -- told to the caller
            return error

    def _answer(self, batch: list[Work], answers: Sequence[Any]) -> None:
        for work, answer in zip(batch, answers, strict=True):
            self._waiting.pop(work, None)
            # The work is done whether somebody waits for it or not.
            settle(work.future, _refused(answer) if isinstance(answer, SQLAlchemyError) else answer)

    def _give_up(self) -> None:
        """Tell those who have waited long enough; what the writer has not taken yet will not be done.

        Counted in ticks, not seconds: when this process itself was stopped for a while, that is not the store's fault.
        """
        self._tick += 1
        if self._loop is not None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._give_up)
        overdue = self._tick - PATIENCE_SECONDS / TICK_SECONDS
        for work in list(self._waiting):
            if work.since >= overdue:
                break
            with self._taking:
                taken = work.state == "taken"
                work.state = "taken" if taken else "withdrawn"
            del self._waiting[work]
            if not work.future.done():
                work.future.set_exception(StoreAwayError(uncertain=taken))

    async def _follow_clock(self) -> None:
        while True:
            await asyncio.sleep(until_next(SKEW_SECONDS))
            with contextlib.suppress(GatewayError, SQLAlchemyError):  # told once by the backend
                await self._reader.run(self._backend.follow_clock)


def _PURGE(_connection: Connection, _batch: list[Any]) -> Sequence[Any]:  # noqa: N802 -- a mark
    """Stands among the work for what is done between two transactions."""
    raise AssertionError


def _run(batch: list[Work], connection: Connection) -> list[Any]:
    """Each batch function once for all of its items; the answers stand in the order of the batch."""
    first = batch[0].run
    if all([work.run is first for work in batch]):  # noqa: C419 -- nearly always: a list is faster than a generator
        results = first(connection, [work.item for work in batch])
        return [answer for _, answer in zip(batch, results, strict=True)]
    groups: dict[Batch, list[Work]] = {}
    for work in batch:
        groups.setdefault(work.run, []).append(work)
    answers: dict[Work, Any] = {}
    # In one order everywhere: two replicas that lock the same rows in opposite orders wait for each other.
    for function, works in sorted(groups.items(), key=lambda group: group[0].__qualname__):
        answers.update(zip(works, function(connection, [work.item for work in works]), strict=True))
    return [answers[work] for work in batch]


def _refused(error: SQLAlchemyError) -> GatewayError:
    """A row that does not fit is the gateway's own fault, and would be again; all else may pass."""
    log.error("the store refused: %s", reason(error))
    if isinstance(error, DataError | IntegrityError | ProgrammingError):
        return GatewayError(ErrorCode.INTERNAL, "The gateway could not write down this request; nothing was charged.")
    return GatewayError(
        ErrorCode.STORE_UNAVAILABLE,
        "The gateway's store is not available; nothing was charged. Try again.",
        retry_after=2,
    )


def reason(error: BaseException) -> str:
    """The database's own words in one line, without the statement and its parameters."""
    said = str(getattr(error, "orig", None) or (type(error).__name__ if isinstance(error, SQLAlchemyError) else error))
    return " ".join(said.split("DETAIL:", maxsplit=1)[0].split())
