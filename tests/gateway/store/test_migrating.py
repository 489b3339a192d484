"""Schemas on both kinds of store: made, recognised, refused; never half, never by two at once."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from llmgw_gateway.errors import StoreError
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.migrating import MIGRATIONS
from llmgw_gateway.store.postgres import MIGRATION_LOCK
from llmgw_gateway.store.schema import HEAD, metadata
from tests.gateway import configuration
from tests.gateway.columns import Column, PostgresColumn, SqliteColumn

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tests.lab.postgres import Postgres

# Both have imported everything, and say so, before either may begin.
REPLICA = """
import sys
from alembic import command, config
from llmgw_gateway.store.postgres import Postgres
from llmgw_wire.secret import Secret
print("here", flush=True)
backend = Postgres(Secret(sys.stdin.readline().strip()))
backend.open()
backend.close()
print("open")
"""

APART = """
import sys
from pathlib import Path
from llmgw_gateway import settings
from llmgw_gateway.store.opening import backend, upgrade_apart
loaded = settings.load(Path(sys.argv[1]))
upgrade_apart(loaded)
store = backend(loaded)
print(store.outdated(), "alembic" in sys.modules)
store.open()
store.close()
print("alembic" in sys.modules)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def unused(request: pytest.FixtureRequest, tmp_path: Path) -> Column:
    """Each kind of store in turn, before any gateway used it."""
    if request.param == "sqlite":
        return SqliteColumn(tmp_path / "unused.db")
    server: Postgres = request.getfixturevalue("postgres")
    return PostgresColumn(server, server.database())


async def refusal(column: Column) -> str:
    database = Database(column.backend())
    try:
        with pytest.raises(StoreError) as caught:
            database.start()
    finally:
        database.close()
    assert str(caught.value).startswith(column.name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_store_of_a_newer_gateway_is_refused_and_left_as_it_is(column: Column) -> None:
    column.sql("UPDATE alembic_version SET version_num = '9999'")
    message = await refusal(column)
    assert "9999" in message
    assert HEAD in message
    assert "newer gateway" in message
    assert column.sql("SELECT version_num FROM alembic_version") == [("9999",)]


async def test_a_newer_store_made_by_hand_is_refused_too(unused: Column) -> None:
    unused.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    unused.sql("INSERT INTO alembic_version VALUES ('9999')")
    assert "newer gateway" in await refusal(unused)


async def test_a_store_of_an_unknown_older_schema_is_refused_in_words(column: Column) -> None:
    column.sql("UPDATE alembic_version SET version_num = '0000'")
    assert "cannot upgrade" in await refusal(column)


async def test_a_database_of_something_else_is_refused_and_left_as_it_is(unused: Column) -> None:
    unused.sql("CREATE TABLE sessions (mine TEXT)")
    unused.sql("INSERT INTO sessions VALUES ('kept')")
    assert "already exists" in await refusal(unused)
    assert unused.sql("SELECT mine FROM sessions") == [("kept",)]
    with pytest.raises(Exception, match="persons"):
        unused.sql("SELECT * FROM persons")


def test_two_replicas_that_start_at_once_on_an_empty_database_both_serve(postgres: Postgres) -> None:
    column = PostgresColumn(postgres, postgres.database())
    replicas = [
        subprocess.Popen(
            [sys.executable, "-c", REPLICA], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(3)
    ]
    for replica in replicas:
        assert replica.stdout is not None
        assert replica.stdout.readline() == "here\n"
    for replica in replicas:
        assert replica.stdin is not None
        replica.stdin.write(postgres.url(column.database) + "\n")
    assert [replica.communicate()[0] for replica in replicas] == ["open\n"] * 3
    assert column.sql("SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


async def test_migrating_gives_the_very_schema_that_the_code_uses(both: Database) -> None:
    """While 0001 is unreleased, `make migration` writes it anew from schema.py."""

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))

    assert await both.read(differences) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_it_takes_to_make_a_schema_is_gone_from_memory_when_it_is_made(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = {"path": "gateway.db"}
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = tmp_path / "store.url"
        url.touch(mode=0o600)
        url.write_text(server.url(server.database()), encoding="ascii")
        store = {"url_file": str(url)}
    config = configuration.write(configuration.folder(tmp_path), configuration.good() | {"store": store})
    said = subprocess.run([sys.executable, "-c", APART, config], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["False", "False", "False"], said.stderr


def test_a_gateway_that_waits_for_another_to_make_the_schema_can_be_stopped(tmp_path: Path, postgres: Postgres) -> None:
    name = postgres.database()
    url = tmp_path / "store.url"
    url.touch(mode=0o600)
    url.write_text(postgres.url(name), encoding="ascii")
    store = {"url_file": str(url)}
    config = configuration.write(configuration.folder(tmp_path), configuration.good() | {"store": store})
    with psycopg.connect(postgres.url(name), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        with subprocess.Popen([sys.executable, "-c", APART, config], stderr=subprocess.PIPE) as gateway:
            wait_for(other, 1)
            gateway.terminate()
            assert gateway.wait(60) == 0
        wait_for(other, 0)


def wait_for(server: psycopg.Connection[Any], count: int) -> None:
    """Until so many wait for the lock under which schemas are made."""
    waiting = (
        "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database "
        "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    ends = time.monotonic() + 60
    while server.execute(waiting).fetchone() != (count,):
        assert time.monotonic() < ends
