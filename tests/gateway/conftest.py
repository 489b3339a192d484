from __future__ import annotations

import asyncio
import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.columns import Column, PostgresColumn, SqliteColumn
from tests.gateway.money.accounts import Desk
from tests.lab.fixtures import postgres

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.lab.postgres import Postgres as Server

__all__ = ["postgres"]

# A shared machine is sometimes slow, and no test here is about time.
settings.register_profile("llmgw", deadline=None)
settings.load_profile("llmgw")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store as the first start leaves it; migrated once, because that takes most of a second."""
    path = tmp_path_factory.mktemp("store") / "empty.db"

    async def first_start() -> None:
        database = Database(Sqlite(path))
        database.start()
        database.close()

    asyncio.run(first_start())
    assert not path.with_name("empty.db-wal").exists()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    """The file of a store with no rows."""
    return Path(shutil.copy(empty_store, tmp_path / "gateway.db"))


@pytest.fixture(scope="session")
def empty_database(postgres: Server) -> str:
    """A PostgreSQL database as the first start leaves it; the template of each test's own."""
    column = PostgresColumn(postgres, postgres.database())
    backend = column.backend()
    backend.open()
    backend.close()
    return column.database


@pytest.fixture(params=["sqlite", "postgresql"])
def columns(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Column]:
    """Makes stores with no rows, of each kind in turn."""
    if request.param == "sqlite":
        empty: Path = request.getfixturevalue("empty_store")
        numbers = itertools.count()
        return lambda: SqliteColumn(Path(shutil.copy(empty, tmp_path / f"gateway-{next(numbers)}.db")))
    server: Server = request.getfixturevalue("postgres")
    template: str = request.getfixturevalue("empty_database")
    return lambda: PostgresColumn(server, server.database(template))


@pytest.fixture
def column(columns: Callable[[], Column]) -> Column:
    """Each kind of store in turn, with no rows."""
    return columns()


@pytest.fixture
async def both(column: Column) -> AsyncIterator[Database]:
    """A running store of each kind in turn."""
    running = Database(column.backend())
    running.start()
    yield running
    running.close()


@pytest.fixture
async def database(store: Path) -> AsyncIterator[Database]:
    """A running store on a real file."""
    running = Database(Sqlite(store))
    running.start()
    yield running
    running.close()


@pytest.fixture
def post(both: Database) -> Desk:
    """Hands items to the books of a store, of each kind in turn."""
    return Desk(both)
