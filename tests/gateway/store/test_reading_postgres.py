"""Operators' commands on PostgreSQL: the same words as on a file, beside a gateway that runs, and never a password."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from llmgw_gateway.errors import StoreError
from llmgw_gateway.main import main
from llmgw_gateway.settings import Settings, load
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.reading import reading
from tests.gateway import configuration
from tests.gateway.columns import PostgresColumn
from tests.gateway.store.keeping import keep, kept

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.postgres import Postgres


@pytest.fixture
def column(postgres: Postgres, empty_database: str) -> PostgresColumn:
    return PostgresColumn(postgres, postgres.database(empty_database))


def configured(folder: Path, url: str) -> Path:
    file = folder / "store.url"
    file.touch(mode=0o600)
    file.write_text(url, encoding="utf-8")
    document = configuration.good() | {"store": {"url_file": file.name}}
    return configuration.write(configuration.folder(folder), document)


@pytest.fixture
def config(tmp_path: Path, column: PostgresColumn) -> Path:
    return configured(tmp_path, column.server.url(column.database))


def settings(config: Path) -> Settings:
    return load(config)


async def test_a_running_gateway_is_read_at_one_moment(config: Path, column: PostgresColumn) -> None:
    database = Database(column.backend())
    database.start()
    with reading(settings(config)) as connection:
        assert kept(connection) == set()
        await database.submit(keep, "meanwhile")
        assert kept(connection) == set()
    with reading(settings(config)) as connection:
        assert kept(connection) == {"meanwhile"}
    database.close()


def test_nothing_can_be_written(config: Path, column: PostgresColumn) -> None:
    with (
        pytest.raises(StoreError, match="read-only transaction"),
        reading(settings(config)) as connection,
    ):
        connection.exec_driver_sql("CREATE TABLE mine (x INT)")
    assert column.sql("SELECT COUNT(*) FROM pg_tables WHERE tablename = 'mine'") == [(0,)]


@pytest.mark.parametrize(
    "words", [["usage", "--by", "user"], ["ledger", "verify"], ["ledger", "rerate", "--since", "2026-11-01"]], ids=str
)
def test_every_command_that_reads_works(config: Path, words: list[str]) -> None:
    verbs = words[: 2 if words[0] == "ledger" else 1]
    done = CliRunner().invoke(main, [*verbs, str(config), *words[len(verbs) :]])
    assert (done.exit_code, done.stderr) == (0, ""), done.exception


def check(config: Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["check", str(config)])
    return done.exit_code, done.stdout, done.stderr


def test_check_says_whether_the_store_can_be_reached(tmp_path: Path, config: Path, postgres: Postgres) -> None:
    code, out, _ = check(config)
    assert (code, out.splitlines()[-1]) == (0, "the store can be reached")
    code, out, _ = check(configured(tmp_path, postgres.url(postgres.database())))
    assert (code, out.splitlines()[-1]) == (0, "the store can be reached and is empty")


def test_check_says_why_it_cannot_without_the_password(tmp_path: Path, postgres: Postgres) -> None:
    for url, why in (
        (postgres.url("nowhere"), 'database "nowhere" does not exist'),
        (postgres.url().replace(postgres.password, "canary-password"), "password authentication failed"),
        (f"postgresql://llmgw:{postgres.password}@127.0.0.1:1/llmgw", "Connection refused"),
    ):
        code, _, err = check(configured(tmp_path, url))
        assert code == 3
        assert why in err
        assert len(err.splitlines()) == 1
        assert postgres.password not in err
        assert "canary" not in err


def test_a_store_of_a_newer_gateway_is_not_read(config: Path, column: PostgresColumn) -> None:
    column.sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match="has schema 9999"), reading(settings(config)):
        pass
