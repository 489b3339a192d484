"""The embedded store: one process, one writer, durable answers, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select

from llmgw_gateway.errors import GatewayError, StoreError
from llmgw_gateway.store.database import MOST_PER_COMMIT, Database
from llmgw_gateway.store.migrating import MIGRATIONS
from llmgw_gateway.store.schema import HEAD, metadata, proofs
from llmgw_gateway.store.sqlite import Sqlite
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

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


class UnluckyError(Exception):
    """A fault of one item."""


def keep(connection: Connection, batch: list[str]) -> list[str | GatewayError]:
    """Keep each name; a name that begins with "bad" fails, and one that begins with "no" is refused."""
    good = [{"proof": name, "expires_at": 1} for name in batch if not name.startswith("no")]
    if good:
        connection.execute(insert(proofs), good)
    if any(name.startswith("bad") for name in batch):
        raise UnluckyError
    return [refused(name) if name.startswith("no") else name for name in batch]


def refused(name: str) -> GatewayError:
    return GatewayError(ErrorCode.TARGET_INVALID, f"{name} is refused")


def kept(connection: Connection) -> set[str]:
    return set(connection.scalars(select(proofs.c.proof)))


async def test_every_caller_gets_its_own_answer(database: Database) -> None:
    names = [f"name-{number}" for number in range(3 * MOST_PER_COMMIT)]
    assert await asyncio.gather(*(database.submit(keep, name) for name in names)) == names
    assert await database.read(kept) == set(names)


async def test_an_item_that_fails_fails_alone(database: Database) -> None:
    names = [f"name-{number}" for number in range(50)]
    names[20:20] = ["bad-one", "bad-two"]
    answers = await asyncio.gather(*(database.submit(keep, name) for name in names), return_exceptions=True)
    for name, answer in zip(names, answers, strict=True):
        if name.startswith("bad"):
            assert isinstance(answer, UnluckyError)
        else:
            assert answer == name
    assert await database.read(kept) == {name for name in names if not name.startswith("bad")}


async def test_an_item_that_is_refused_is_told_so_and_the_others_are_kept(database: Database) -> None:
    answers = await asyncio.gather(
        *(database.submit(keep, name) for name in ("one", "no", "two")), return_exceptions=True
    )
    assert answers[0] == "one"
    assert answers[2] == "two"
    assert isinstance(answers[1], GatewayError)
    assert await database.read(kept) == {"one", "two"}


async def test_what_the_database_itself_refuses_is_a_store_that_is_unavailable(database: Database) -> None:
    await database.submit(keep, "twice")
    with pytest.raises(GatewayError) as caught:
        await database.submit(keep, "twice")
    assert caught.value.code is ErrorCode.STORE_UNAVAILABLE
    assert caught.value.retry_after == 2
    assert "twice" not in caught.value.message
    assert await database.submit(keep, "again") == "again"


async def test_work_of_a_caller_who_left_is_done_all_the_same(database: Database) -> None:
    task = asyncio.create_task(database.submit(keep, "abandoned"))
    await asyncio.sleep(0)  # the work is queued now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await database.submit(keep, "next")
    assert await database.read(kept) == {"abandoned", "next"}


async def test_an_answer_means_that_the_row_is_in_the_file(database: Database, store: Path) -> None:
    await database.submit(keep, "durable")
    with closing(sqlite3.connect(store)) as other:
        assert other.execute("SELECT proof FROM proofs").fetchall() == [("durable",)]
    assert await database.read(lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()) == 2
    assert await database.read(lambda connection: connection.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"


async def test_one_thread_writes_and_not_the_loop_s(database: Database) -> None:
    def where(_connection: Connection, batch: list[None]) -> list[str]:
        return [threading.current_thread().name for _ in batch]

    seen = await asyncio.gather(*(database.submit(where, None) for _ in range(100)))
    assert set(seen) == {"store-writer"}


async def test_reading_cannot_write(database: Database) -> None:
    with pytest.raises(GatewayError):
        await database.read(lambda connection: connection.execute(insert(proofs), {"proof": "x", "expires_at": 1}))
    assert await database.read(kept) == set()


async def test_closing_commits_what_is_queued(store: Path) -> None:
    database = Database(Sqlite(store))
    database.start()
    tasks = [asyncio.create_task(database.submit(keep, f"name-{number}")) for number in range(100)]
    await asyncio.sleep(0)  # all of them are queued now
    database.close()
    assert len(await asyncio.gather(*tasks)) == 100
    with closing(sqlite3.connect(store)) as other:
        assert other.execute("SELECT COUNT(*) FROM proofs").fetchone() == (100,)


@pytest.mark.usefixtures("database")
def test_a_second_process_on_the_same_store_is_refused_in_words(store: Path) -> None:
    command = [sys.executable, "-c", SECOND_PROCESS, str(store)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{store} is in use by another gateway process" in said
    assert "stop that one" in said


async def test_a_store_that_was_let_go_can_be_used_again(store: Path) -> None:
    for name in ("one", "two"):
        database = Database(Sqlite(store))
        database.start()
        await database.submit(keep, name)
        database.close()
    with closing(sqlite3.connect(store)) as other:
        assert other.execute("SELECT COUNT(*) FROM proofs").fetchone() == (2,)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


async def refusal(path: Path) -> str:
    database = Database(Sqlite(path))
    try:
        with pytest.raises(StoreError) as caught:
            database.start()
    finally:
        database.close()
    assert str(path) in str(caught.value)
    return str(caught.value)


async def test_a_store_of_a_newer_gateway_is_refused_and_left_as_it_is(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = dump(store)
    message = await refusal(store)
    assert "9999" in message
    assert HEAD in message
    assert "newer gateway" in message
    assert dump(store) == before


async def test_a_store_of_an_unknown_older_schema_is_refused_in_words(store: Path) -> None:
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    await refusal(store)


async def test_a_file_that_is_no_database_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes\n" * 100, encoding="utf-8")
    assert "not a database" in await refusal(path)
    assert path.read_text(encoding="utf-8").startswith("these are my notes")


async def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE sessions (mine TEXT)")
        connection.execute("INSERT INTO sessions VALUES ('kept')")
    before = dump(path)
    await refusal(path)
    assert dump(path) == before


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


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


async def test_migrating_gives_the_very_schema_that_the_code_uses(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    assert await database.read(differences) == []


async def test_foreign_keys_are_enforced(database: Database) -> None:
    def orphan(connection: Connection, batch: list[None]) -> list[None]:
        connection.exec_driver_sql("INSERT INTO holds VALUES ('att_none', 1, 1, 1)")
        return batch

    with pytest.raises(GatewayError):
        await database.submit(orphan, None)
