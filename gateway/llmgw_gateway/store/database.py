"""The embedded store: one SQLite file, one process, one thread that writes, group commit.

Why one writer: SQLite has one write lock anyway, and a queue in front of it turns 64 concurrent commits into one. It
also keeps all checkpoints on one connection, which
sidesteps the WAL-reset corruption of SQLite 3.7.0 to 3.51.2 (it needs two connections that write at once).

Durability: WAL with `synchronous=FULL`. With NORMAL a power cut loses acknowledged rows; `kill -9` does not show it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from llmgw_gateway.errors import GatewayError, StoreError
from llmgw_gateway.store.schema import HEAD
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")
Work = tuple["Callable[[Connection, list[Any]], Sequence[Any]]", Any, "asyncio.Future[Any]"]

MIGRATIONS = Path(__file__).parent / "migrations"
MOST_PER_COMMIT = 512
log = logging.getLogger("llmgw.store")


class Database:
    """Runs batches of work in transactions on the writer thread, and reads on another.

    A batch function takes a connection and a list of items and returns one result for each; items that arrive while
    a commit is under way are committed together with the next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _exclusive(path)
        self._engine = _engine(path, begin="BEGIN IMMEDIATE")
        self._reading = _engine(path, begin="BEGIN", pragmas=("query_only = 1",))
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Bring the schema up to date and start the writer. StoreError names the file when it cannot be used."""
        try:
            # Before SQLite opens it: the files that it puts beside the database take over these rights.
            self._path.touch(mode=0o600)
            self._path.chmod(0o600)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}") from None
        try:
            with self._engine.connect() as connection:
                _migrate(connection, self._path)
        except SQLAlchemyError as error:
            raise StoreError(f"{self._path} cannot be opened as a gateway store: {_reason(error)}") from error
        self._loop = asyncio.get_running_loop()
        self._writer.start()

    async def submit(
        self, work: Callable[[Connection, list[Item]], Sequence[Result | GatewayError]], item: Item
    ) -> Result:
        """Run `work` for `item` in a transaction of the writer and return its result once that is durable.

        GatewayError(STORE_UNAVAILABLE) when the database refused; an error that `work` returns for the item is raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._queue.put((work, item, future))
        return await future

    async def read(self, query: Callable[[Connection], Result]) -> Result:
        """Run a query on a connection that cannot write."""

        def run() -> Result:
            with self._reading.connect() as connection:
                return query(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, run)
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    def now(self) -> float:
        """The store's clock: seconds since the epoch."""
        return time.time()

    def close(self) -> None:
        """Commit what is queued, then stop. Call once, when no request is left."""
        self._queue.put(None)
        if self._writer.is_alive():
            self._writer.join()
        self._reader.shutdown()
        self._reading.dispose()
        self._engine.dispose()
        self._lock.close()

    def _write(self) -> None:
        with self._engine.connect() as connection:
            while True:
                first = self._queue.get()
                if first is None:
                    return
                batch = [first]
                last = False
                while len(batch) < MOST_PER_COMMIT and not self._queue.empty():
                    more = self._queue.get()
                    if more is None:
                        last = True
                        break
                    batch.append(more)
                self._commit(connection, batch)
                if last:
                    return

    def _commit(self, connection: Connection, batch: list[Work]) -> None:
        """One transaction for the whole batch; when it fails, one for each item, so that only the guilty one fails."""
        try:
            answers = _transact(connection, batch)
        except Exception:  # noqa: BLE001 -- whatever a batch function raises is told to its caller, below
            answers = []
            for work in batch:
                try:
                    answers += _transact(connection, [work])
                except Exception as error:  # noqa: BLE001 -- the same
                    answers.append((work[2], error))
        if self._loop is not None:
            self._loop.call_soon_threadsafe(_answer, answers)


def _transact(connection: Connection, batch: list[Work]) -> list[tuple[asyncio.Future[Any], Any]]:
    groups: dict[Callable[[Connection, list[Any]], Sequence[Any]], list[Work]] = {}
    for work in batch:
        groups.setdefault(work[0], []).append(work)
    answers: list[tuple[asyncio.Future[Any], Any]] = []
    with connection.begin():
        for function, works in groups.items():
            results = function(connection, [item for _, item, _ in works])
            answers += [(future, result) for (_, _, future), result in zip(works, results, strict=True)]
    return answers


def _answer(answers: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in answers:
        if future.done():  # the caller was cancelled; the work is done all the same
            continue
        if isinstance(result, SQLAlchemyError):
            future.set_exception(_unavailable(result))
        elif isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def _unavailable(error: SQLAlchemyError) -> GatewayError:
    log.error("the store refused: %s", _reason(error))
    return GatewayError(
        ErrorCode.STORE_UNAVAILABLE,
        "The gateway's store is not available; nothing was charged. Try again.",
        retry_after=2,
    )


def _reason(error: SQLAlchemyError) -> str:
    """The database's own words, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or type(error).__name__)


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
            *pragmas,
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _exclusive(path: Path) -> Any:  # noqa: ANN401 -- an open file
    """Hold a lock beside the file: a second gateway on the same store would enforce every budget on its own."""
    lock = path.with_name(path.name + ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StoreError(
            f"{path} is in use by another gateway process: stop that one, or give this one a store of its own"
        ) from None
    return lock


def _migrate(connection: Connection, path: Path) -> None:
    """Upgrade to HEAD. A store written by a newer gateway is refused, never changed."""
    present = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").scalar()
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if present else None
    connection.rollback()
    if version == HEAD:
        return
    if version is not None and version > HEAD:
        raise StoreError(
            f"{path} was written by a newer gateway (schema {version}, this one knows {HEAD}): upgrade this one"
        )
    from alembic import command  # noqa: PLC0415 -- 0.2 s of imports that an up-to-date store does not need
    from alembic.config import Config  # noqa: PLC0415 -- the same
    from alembic.util import CommandError  # noqa: PLC0415 -- the same

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"{path} has a schema ({version}) that this gateway cannot upgrade: {error}") from None
    connection.commit()
