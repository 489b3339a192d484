"""The company's store: a PostgreSQL server that several replicas share and that may go away.

What may happen to a transaction, and what is done (docs/decisions/0006-two-stores-one-loop.md):

* the connection is lost before COMMIT was sent: nothing happened; the batch is run again on a new connection;
* it is lost while COMMIT is under way: unknown; the batch is run again, and its functions find what they did before.
  A server process that still works on the lost transaction holds its locks, so the second run waits for its end. Where
  a later run fails, callers are told that it is uncertain, whatever the failure was;
* a deadlock, a serialization failure, a lock that was not given in time: nothing happened; the batch is run again;
* all of it only until a deadline: then callers are told that the store is away, and whether their work is uncertain.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from llmgw_gateway.errors import StoreAwayError, StoreError
from llmgw_gateway.store import migrating
from llmgw_gateway.store.clock import ServerClock
from llmgw_gateway.store.database import reason
from llmgw_gateway.store.outage import Outage
from llmgw_gateway.store.session import (
    READING,
    TRANSACTION_SECONDS,
    WRITING,
    Session,
    login,
    parameters,
    place,
    sqlstate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from llmgw_wire.secret import Secret

Result = TypeVar("Result")

MIGRATION_SECONDS = 600.0
MIGRATION_LOCK = 0x6C6C6D6777
"""The advisory lock under which one replica migrates while the others wait: "llmgw" in ASCII."""
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5
MOST_ATTEMPTS = 20
CONFLICTS = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: said by the server, which has undone the transaction."""
KEY_TAKEN = "23505"
DATABASE_ERRORS = (SQLAlchemyError, psycopg.Error)
log = logging.getLogger("llmgw.store")


class _UncertainError(Exception):
    """The connection was lost while COMMIT was under way."""


class Postgres:
    """A `Backend` on a server. Two connections: one that writes, one that reads."""

    shared = True

    def __init__(self, url: Secret, *, prepared: bool = True, reread: Callable[[], Secret] | None = None) -> None:
        """`reread` gives the URL anew before each connection, so that its password can be replaced."""
        known = parameters(url)
        again = dict if reread is None else partial(login, reread)
        self.name = place(known)
        self._writing = Session({"target_session_attrs": "read-write"} | known, WRITING, prepared=prepared, login=again)
        self._reading = Session(known, READING, prepared=prepared, login=again)
        self._outage = Outage(self.name)
        self._clock = ServerClock()
        self._stopping = threading.Event()

    def outdated(self) -> bool:
        """Whether the schema is missing, or of an older gateway."""
        try:
            with self._reading.transaction(TRANSACTION_SECONDS) as (connection, _):
                return not migrating.up_to_date(connection, self.name)
        finally:
            self._reading.drop()

    def open(self) -> None:
        """Bring the schema up to date, one replica at a time, and read the server's clock."""
        try:
            with self._writing.transaction(MIGRATION_SECONDS) as (connection, transaction):
                self._migrate(connection)
                transaction.commit()
            self.follow_clock()
        except DATABASE_ERRORS as error:
            raise StoreError(f"{self.name} cannot be used as a gateway store: {reason(error)}") from error

    def transact(self, run: Callable[[Connection], Result], deadline: float) -> Result:
        """Run a function in a transaction until it is committed, at most until the deadline."""
        if self._outage.hopeless:
            raise StoreAwayError(uncertain=False)
        if self._outage.lasts:
            deadline = 0
        uncertain, pause, attempts = False, FIRST_PAUSE_SECONDS, 0
        while True:
            attempts += 1
            try:
                answer = self._once(run)
            except _UncertainError as error:
                uncertain, why = True, reason(error.__cause__ or error)
            except Exception as error:  # noqa: BLE001 -- raised again where it is final
                self._raise_if_final(error, uncertain=uncertain)
                why = reason(error)
            else:
                self._outage.over()
                return answer
            if attempts == MOST_ATTEMPTS or time.monotonic() + pause > deadline or self._stopping.is_set():
                break
            # Replicas that were in each other's way come back at different times.
            self._stopping.wait(random.uniform(pause / 2, pause))  # noqa: S311 -- no secret
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        if self._writing.lost:
            self._outage.failed(why)
        else:
            log.warning("the store at %s refused %d times, the last time: %s", self.name, attempts, why)
        raise StoreAwayError(uncertain=uncertain)

    def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query at one moment; a connection that was lost since the last one is made again, once."""
        if self._outage.hopeless:
            raise StoreAwayError(uncertain=False)
        for last in (False, True):
            try:
                with self._reading.transaction(TRANSACTION_SECONDS / 2) as (connection, _):
                    answer = query(connection)
            except DATABASE_ERRORS as error:
                if not self._reading.lost:
                    raise
                # A query that takes too long says nothing about the connection that writes.
                if last:
                    log.info("the store at %s did not answer a query: %s", self.name, reason(error))
                    raise StoreAwayError(uncertain=False) from None
            else:
                return answer
        raise AssertionError("unreachable")

    def purge(self) -> bool:
        """Nothing: the server overwrites old rows when it vacuums, and its log and backups have lives of their own."""
        return True

    def now(self) -> float:
        """The server's time."""
        return self._clock.now()

    def follow_clock(self) -> None:
        """Measure again."""
        self.read(lambda connection: self._clock.measure(lambda: _server_time(connection)))

    def stop(self) -> None:
        """Try nothing again from now on."""
        self._stopping.set()

    def close(self) -> None:
        """Close both connections."""
        self._writing.drop()
        self._reading.drop()

    def _raise_if_final(self, error: Exception, *, uncertain: bool) -> None:
        """Raise what would be no better in another run, because one of the items is at fault."""
        # A key that is taken all of a sudden: the COMMIT that was thought lost has landed between two statements.
        passing = CONFLICTS | {KEY_TAKEN} if uncertain else CONFLICTS
        if isinstance(error, DATABASE_ERRORS) and (self._writing.lost or sqlstate(error) in passing):
            return
        if not uncertain:
            raise error
        # Whatever is at fault now, the first run may have been committed.
        log.error("the store at %s was lost while committing, and then failed: %s", self.name, reason(error))
        raise StoreAwayError(uncertain=True) from error

    def _once(self, run: Callable[[Connection], Result]) -> Result:
        with self._writing.transaction(TRANSACTION_SECONDS) as (connection, transaction):
            answer = run(connection)
            if self._writing.aborted():  # COMMIT would succeed, and undo everything
                transaction.rollback()
                raise RuntimeError("a batch function went on after the database had refused a statement")
            try:
                transaction.commit()
            except DATABASE_ERRORS as error:
                if self._writing.lost:
                    raise _UncertainError from error
                raise
            return answer

    def _migrate(self, connection: Connection) -> None:
        if migrating.up_to_date(connection, self.name):
            return
        milliseconds = int(MIGRATION_SECONDS * 1000)
        for limit in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = {milliseconds}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        if not migrating.up_to_date(connection, self.name):  # another replica may have done it meanwhile
            migrating.upgrade(connection, self.name)


def _server_time(connection: Connection) -> float:
    return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
