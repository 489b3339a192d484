"""Reading a store beside its gateway: nothing is written, locked or made; what cannot be read is told in a sentence."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from llmgw_gateway.errors import StoreError
from llmgw_gateway.settings import Settings, load
from llmgw_gateway.store.reading import reading
from llmgw_gateway.store.schema import ledger
from tests.gateway import configuration
from tests.gateway.money import history
from tests.gateway.money.history import Attempt

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = select(func.count()).select_from(ledger)


def settings(store: Path) -> Settings:
    document = configuration.good()
    document["store"] = {"path": store.name}
    return load(configuration.write(configuration.folder(store.parent), document))


def test_what_is_committed_is_read_and_the_file_stays_as_it_is(store: Path) -> None:
    history.write(store, [Attempt(0, cost=1)])
    before = store.read_bytes()
    with reading(settings(store)) as connection:
        assert connection.scalar(ENTRIES) == 1
    assert store.read_bytes() == before
    assert not store.with_name("gateway.db.lock").exists()


@pytest.mark.usefixtures("database")
async def test_a_running_gateway_is_read_without_stopping_it(store: Path) -> None:
    with reading(settings(store)) as connection:
        assert connection.scalar(ENTRIES) == 0
        history.write(store, [Attempt(0, cost=1)])  # the reader does not stand in the way of a writer,
        assert connection.scalar(ENTRIES) == 0  # and sees one moment
    with reading(settings(store)) as connection:
        assert connection.scalar(ENTRIES) == 1


def test_nothing_can_be_written(store: Path) -> None:
    with pytest.raises(StoreError, match="readonly") as caught, reading(settings(store)) as connection:
        connection.exec_driver_sql("DELETE FROM ledger")
    assert isinstance(caught.value.__cause__, OperationalError)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("x" * 5000, encoding="ascii")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name)")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "there is no store at {path}: a gateway makes it when it first starts"),
    "empty": (empty, "{path} cannot be read as a gateway store: no such table"),
    "no database": (text, "{path} cannot be read as a gateway store: file is not"),
    "a folder": (folder, "there is no store at {path}"),
    "another program's": (foreign, "{path} cannot be read as a gateway store"),
    "a newer gateway's": (newer, "{path} has schema 9999, this command knows 0"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_store_that_cannot_be_read_is_named_with_the_reason(store: Path, case: str) -> None:
    spoil, sentence = BROKEN[case]
    spoil(store)
    with pytest.raises(StoreError) as caught, reading(settings(store)):
        pass
    assert str(caught.value).startswith(sentence.format(path=store))
    assert "\n" not in str(caught.value)


def test_a_path_with_signs_that_mean_something_in_an_address_is_that_file(store: Path) -> None:
    folder = store.parent / "50% of #1?mode=rw"
    folder.mkdir()
    moved = store.rename(folder / "gateway.db")
    with reading(settings(moved)) as connection:
        assert connection.scalar(ENTRIES) == 0
