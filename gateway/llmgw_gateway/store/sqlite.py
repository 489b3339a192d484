"""The embedded store: one SQLite file, one process.

One connection writes and does all checkpoints, which sidesteps the WAL-reset corruption of SQLite 3.7.0 to 3.51.2 (it
needs two connections that write at once).

Durability: WAL with `synchronous=FULL`. With NORMAL a power cut loses acknowledged rows; `kill -9` does not show it.
"""

from __future__ import annotations

import fcntl
import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from llmgw_gateway.errors import StoreError
from llmgw_gateway.store import migrating
from llmgw_gateway.store.bulk import drive
from llmgw_gateway.store.database import reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Result = TypeVar("Result")


class Sqlite:
    """A `Backend` on a file. StoreError when another gateway process has it."""

    shared = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _exclusive(path)
        self._engine = _engine(path, begin="BEGIN IMMEDIATE")
        self._reading = _engine(path, begin="BEGIN", pragmas=("query_only = 1",))
        self._writer: Connection | None = None

    def outdated(self) -> bool:
        """Whether the file is missing, or of an older gateway."""
        if not self._path.exists():
            return True
        self._path.chmod(0o600)  # as in `open`
        try:
            with self._reading.connect() as connection:
                return not migrating.up_to_date(connection, str(self._path))
        finally:
            self._reading.dispose()

    def open(self) -> None:
        """Make the file where it is missing, for its owner alone, and bring its schema up to date."""
        try:
            # Before SQLite opens it: the files that it puts beside the database take over these rights.
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}") from None
        name = str(self._path)
        try:
            with self._engine.begin() as connection:
                if not migrating.up_to_date(connection, name):
                    migrating.upgrade(connection, name)
        except SQLAlchemyError as error:
            raise StoreError(f"{name} cannot be opened as a gateway store: {reason(error)}") from error

    def transact(self, run: Callable[[Connection], Result], deadline: float) -> Result:  # noqa: ARG002 -- see busy_timeout
        """Run a function in a transaction; the lock on the file is taken before its first statement."""
        if self._writer is None:
            self._writer = self._engine.connect()
        with self._writer.begin():
            return run(self._writer)

    def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query on a connection that cannot write."""
        with self._reading.connect() as connection:
            return query(connection)

    def purge(self) -> bool:
        """Bring the file up to date and empty the log beside it: what is deleted is overwritten there at once."""
        if self._writer is None or self._writer.connection.dbapi_connection is None:
            return True
        cursor = self._writer.connection.dbapi_connection.cursor()
        try:
            busy, *_ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            cursor.close()
        return not busy

    def now(self) -> float:
        """The clock of this machine: the only one there is."""
        return time.time()

    def follow_clock(self) -> None:
        """There is no other clock."""

    def stop(self) -> None:
        """A file never goes away: there is nothing to wait for."""

    def close(self) -> None:
        """Close both connections and let the next process in."""
        if self._writer is not None:
            self._writer.close()
        self._reading.dispose()
        self._engine.dispose()
        self._lock.close()


def _engine(path: Path, *, begin: str, pragmas: tuple[str, ...] = ()) -> Engine:
    """An engine with one connection, used by one thread. `begin` starts its transactions."""
    engine = create_engine(f"sqlite:///{path}", pool_size=1, max_overflow=0, connect_args={"check_same_thread": False})

    # The driver's own transaction control begins late and commits early; with isolation_level None it does nothing,
    # and BEGIN IMMEDIATE takes the write lock before the first read (no upgrade, hence no SQLITE_BUSY in the middle).
    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 -- a driver's connection
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = 1",
            "busy_timeout = 5000",
            # What is deleted or moved is overwritten in the page, which is written anyway: it costs nothing measurable.
            "secure_delete = 1",
            *pragmas,
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        # By the driver: SQLAlchemy would make a statement of it, with a context and a result, for each transaction.
        drive(connection, lambda driver: driver.execute(begin))

    return engine


def _exclusive(path: Path) -> Any:  # noqa: ANN401 -- an open file
    """Hold a lock beside the file: a second gateway on the same store would enforce every budget on its own."""
    place = path.with_name(path.name + ".lock")
    try:
        lock = place.open("w")
    except OSError as error:
        raise StoreError(
            f"{place} cannot be written: {error.strerror}; the gateway needs it beside its store"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreError(
            f"{path} is in use by another gateway process: stop that one, or give this one a store of its own"
        ) from None
    return lock
