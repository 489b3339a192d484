"""One connection to PostgreSQL that is made again when it was lost, and that never waits without a limit.

Everything that a transaction needs is said in its BEGIN, in the same message: nothing of a session is relied on, so a
proxy that gives each transaction another server connection (PgBouncer) changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, NullPool, Transaction, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from llmgw_wire.secret import Secret

CONNECT_SECONDS = 2
"""For each address of the server."""
TRANSACTION_SECONDS = 4.0
"""After so long without an answer the connection is given up."""
# Without answers a dead peer is noticed within seconds, also where nothing waits for one.
SOCKET = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 3000,
}
READ_ONLY = "25006"
log = logging.getLogger("llmgw.store")
_LIMITS = "SET LOCAL statement_timeout = 3000; SET LOCAL idle_in_transaction_session_timeout = 5000"
WRITING = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    # A role or a database may be set to less; an answer means that the row is on disk.
    "SET LOCAL synchronous_commit = on; "
    # Below the statement's limit: who waits for another replica is told apart from who is slow.
    "SET LOCAL lock_timeout = 2000; "
    # A server notices within a second that nobody waits for the statement any more, and lets its locks go.
    f"SET LOCAL client_connection_check_interval = 1000; {_LIMITS}"
)
READING = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_LIMITS}"


class Patient(psycopg.Connection[Any]):
    """A connection whose every wait ends at `deadline` (seconds of time.monotonic()), with the connection closed.

    The server's own time limits do not help where the server, or the network, has stopped answering.
    """

    deadline = math.inf

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- as inherited
        """Drive the generator, as inherited, until the deadline."""
        return super().wait(self._until_deadline(gen), *args, **kwargs)

    def _until_deadline(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        try:
            awaited = next(gen)
            while True:
                ready = yield awaited
                # The driver comes by several times a second with nothing ready.
                if not ready and time.monotonic() > self.deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server did not answer in time")
                awaited = gen.send(ready)
        except StopIteration as ended:
            return ended.value


class Session:
    """Makes the connection when it is needed. Used by one thread."""

    def __init__(
        self,
        parameters: dict[str, Any],
        begin: str,
        *,
        prepared: bool,
        login: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """`login` is asked for user and password before each connection: they may have been replaced."""
        self._login = login
        self._writes = begin is WRITING
        self._parameters = SOCKET | parameters | {"connect_timeout": CONNECT_SECONDS}
        self._prepare_threshold = 5 if prepared else None
        self._driver: Patient | None = None
        self._connection: Connection | None = None
        self._engine = create_engine(
            "postgresql+psycopg://", creator=self._connect, poolclass=NullPool, use_native_hstore=False
        )

        @event.listens_for(self._engine, "begin")
        def start(_connection: Connection) -> None:
            # Several commands in one message: possible only without parameters, and never prepared.
            if self._driver is not None:
                self._driver.execute(begin, prepare=False)

    @contextlib.contextmanager
    def transaction(self, seconds: float) -> Iterator[tuple[Connection, Transaction]]:
        """A transaction that is rolled back unless it was committed within.

        The connection is made where there is none; after `seconds` it is closed under whoever waits on it.
        """
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            if self._driver is not None:
                self._driver.deadline = time.monotonic() + seconds
            transaction = self._connection.begin()
        except BaseException:
            self.drop()
            raise
        try:
            yield self._connection, transaction
        except BaseException as error:
            # What became a standby cannot be written to: the next connection looks for the primary.
            self._end(transaction, keep=not (self._writes and sqlstate(error) == READ_ONLY))
            raise
        self._end(transaction, keep=True)

    def _end(self, transaction: Transaction, *, keep: bool) -> None:
        try:
            if transaction.is_active and not self.lost:
                transaction.rollback()
        except (SQLAlchemyError, psycopg.Error):
            keep = False  # the error that led here says more
        if self.lost or not keep:
            self.drop()

    @property
    def lost(self) -> bool:
        """Whether there is no connection on which anything could be said."""
        return self._driver is None or self._driver.closed or self._driver.broken

    def aborted(self) -> bool:
        """Whether the transaction has failed, so that COMMIT would quietly undo it."""
        return self._driver is None or self._driver.info.transaction_status is psycopg.pq.TransactionStatus.INERROR

    def drop(self) -> None:
        """Close the connection, whatever state it is in."""
        connection, driver = self._connection, self._driver
        self._connection = self._driver = None
        with contextlib.suppress(Exception):  # it may be lost already
            if connection is not None:
                connection.invalidate()
                connection.close()
        with contextlib.suppress(Exception):
            if driver is not None:
                driver.close()

    def _connect(self) -> Patient:
        known = self._parameters | self._login()
        driver = Patient.connect(**known, autocommit=True, prepare_threshold=self._prepare_threshold)
        driver.deadline = time.monotonic() + TRANSACTION_SECONDS  # SQLAlchemy asks a few questions first
        self._driver = driver
        return driver


def sqlstate(error: BaseException) -> str | None:
    """The server's error code; None when the error is not the server's."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return original.sqlstate if isinstance(original, psycopg.Error) else None


def parameters(url: Secret) -> dict[str, Any]:
    """The URL as the driver takes it."""
    return {"application_name": "llmgw-gateway"} | conninfo_to_dict(url.reveal())


def login(reread: Callable[[], Secret]) -> dict[str, Any]:
    """User and password as they are now; nothing while they cannot be read: the last ones may still be good."""
    try:
        known = conninfo_to_dict(reread().reveal())
    except (OSError, ValueError, psycopg.ProgrammingError) as error:
        log.warning("the store's URL cannot be read again: %s", type(error).__name__)
        return {}
    return {name: known[name] for name in ("user", "password") if known.get(name)}


def place(known: dict[str, Any]) -> str:
    """Where the store is, as it may be printed: never the user, never the password."""
    host = known.get("host") or known.get("hostaddr")
    return f"postgresql://{host}:{known.get('port', 5432)}/{known.get('dbname', '')}"


def open_to_read(known: dict[str, Any]) -> Engine:
    """An engine for a command that reads: it waits for nobody, and for long queries as long as they take."""

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(**SOCKET | known, connect_timeout=CONNECT_SECONDS, autocommit=True)

    return create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool, use_native_hstore=False)
