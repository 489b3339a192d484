"""Queries on a thread of their own; what a replica follows is read in one transaction."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from llmgw_gateway.errors import StoreAwayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    Query = Callable[[Connection], Any]

Result = TypeVar("Result")

GATHER_SECONDS: Final = 0.002
"""So long a query waits for others: timers that are due at the same moment are up within two milliseconds."""
log: Final = logging.getLogger("llmgw.store")


class Reader:
    """Asks a backend, whose `read` runs one query in a transaction that cannot write."""

    def __init__(self, read: Callable[[Query], Any]) -> None:
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._asked: list[tuple[Query, asyncio.Future[Any]]] = []
        """What waits for the transaction that comes next."""
        self._closed = False

    def read(self, query: Callable[[Connection], Result]) -> asyncio.Future[Result]:
        """The answer of a query, or what it raised. One that nobody waits for any more is not begun."""
        return self.run(partial(self._read, query))

    def follow(self, query: Callable[[Connection], Result]) -> asyncio.Future[Result]:
        """The same for a short query that is asked again and again.

        What a replica follows it reads all at the same time (`polling.until_next`), and a transaction costs more than
        these: so they share one, and its time. Others keep theirs, and make nobody wait.
        """
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_later(GATHER_SECONDS, self._ask, loop)
        answer: asyncio.Future[Result] = loop.create_future()
        self._asked.append((query, answer))
        return answer

    def run(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Do something else on the same thread."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End after the query that runs; those that wait are cancelled."""
        self._closed = True
        self._thread.shutdown(cancel_futures=True)

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the thread what has come together."""
        asked, self._asked = self._asked, []
        waiting = [answer for _, answer in asked]
        if self._closed:
            _cancel(waiting)
            return
        answers = loop.run_in_executor(self._thread, self._answers, [query for query, _ in asked])
        answers.add_done_callback(partial(_tell, waiting))

    def _answers(self, queries: list[Query]) -> list[Any]:
        """Of each what it answered or raised. One that fails takes the transaction with it: then each has its own."""
        if len(queries) > 1:
            try:
                return self._read(lambda connection: [query(connection) for query in queries])  # type: ignore[no-any-return] # theirs
            except StoreAwayError as error:  # short as they are, it would be no better with each alone
                return [StoreAwayError(uncertain=error.uncertain) for _ in queries]
            except Exception:  # noqa: BLE001 -- found anew below, and told to whom it concerns
                log.debug("one of %d queries has failed", len(queries))
        return [self._alone(query) for query in queries]

    def _alone(self, query: Query) -> Any:  # noqa: ANN401 -- a result, or what was raised
        try:
            return self._read(query)
        except Exception as error:  # noqa: BLE001 -- told to the caller
            return error


def _tell(waiting: list[asyncio.Future[Any]], answers: asyncio.Future[list[Any]]) -> None:
    """Tell each what was found for it."""
    if answers.cancelled():
        _cancel(waiting)
        return
    failure = answers.exception()
    for future, answer in zip(waiting, [failure] * len(waiting) if failure else answers.result(), strict=True):
        settle(future, answer)


def _cancel(waiting: list[asyncio.Future[Any]]) -> None:
    for future in waiting:
        future.cancel()


def settle(future: asyncio.Future[Any], answer: Any) -> None:  # noqa: ANN401 -- a result, or what was raised
    """Tell a caller what became of its work: the result, or the error."""
    if future.done():  # the caller was cancelled or has given up
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
