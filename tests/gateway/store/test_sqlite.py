"""The embedded store: a file of one process, durable, for its owner's eyes only."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.errors import StoreError
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.store.keeping import keep

if TYPE_CHECKING:
    from pathlib import Path

SECOND_PROCESS = """
import sys
from pathlib import Path
from llmgw_gateway.errors import StoreError
from llmgw_gateway.store.sqlite import Sqlite
try:
    Sqlite(Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""


async def test_an_answer_means_that_the_row_is_in_the_file(database: Database, store: Path) -> None:
    await database.submit(keep, "durable")
    with closing(sqlite3.connect(store)) as other:
        assert other.execute("SELECT proof FROM proofs").fetchall() == [("durable",)]
    assert await database.read(lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()) == 2
    assert await database.read(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"


@pytest.mark.usefixtures("database")
def test_a_second_process_on_the_same_store_is_refused_in_words(store: Path) -> None:
    command = [sys.executable, "-c", SECOND_PROCESS, str(store)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{store} is in use by another gateway process" in said
    assert "stop that one" in said


async def refusal(path: Path) -> str:
    database = Database(Sqlite(path))
    try:
        with pytest.raises(StoreError) as caught:
            database.start()
    finally:
        database.close()
    assert str(path) in str(caught.value)
    return str(caught.value)


async def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes\n" * 100, encoding="utf-8")
    assert "not a database" in await refusal(path)
    assert path.read_text(encoding="utf-8").startswith("these are my notes")


def open_modes(folder: Path) -> dict[str, int]:
    """What the files of a store let others do."""
    return {file.name: file.stat().st_mode & 0o077 for file in folder.iterdir() if file.suffix != ".lock"}


async def test_only_its_owner_can_read_the_store(tmp_path: Path) -> None:
    path = tmp_path / "fresh.db"
    database = Database(Sqlite(path))
    database.start()
    await database.submit(keep, "row")
    modes = open_modes(tmp_path)
    database.close()
    assert set(modes.values()) == {0}, modes
