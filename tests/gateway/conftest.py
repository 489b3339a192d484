from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.money.accounts import Desk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@pytest.fixture
async def database(store: Path) -> AsyncIterator[Database]:
    """A running store on a real file."""
    running = Database(Sqlite(store))
    running.start()
    yield running
    running.close()


@pytest.fixture
def post(database: Database) -> Desk:
    """Hands items to the books of the store."""
    return Desk(database)
