"""Opens the store for operators' commands: read-only, beside gateways that run."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from llmgw_gateway.errors import StoreError
from llmgw_gateway.store.schema import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from llmgw_gateway.settings import Settings

BUSY_SECONDS = 5


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """A connection that cannot write and that sees one moment: all queries within agree with each other.

    StoreError says in a sentence what is wrong with the store; nothing is created, locked or migrated.
    """
    name, engine, begin = _file(settings.path(settings.store.path)) if settings.store.path else _server(settings)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(begin)
            _check(connection, name)
            yield connection
    except SQLAlchemyError as error:
        # One line: a server explains itself in several.
        reason = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
        raise StoreError(f"{name} cannot be read as a gateway store: {reason}") from error


def reachable(settings: Settings) -> str:
    """Say that the store can be used; StoreError when not. Before a first start a file need not be there."""
    if settings.store.path and not settings.path(settings.store.path).exists():
        return f"the store will be made at {settings.path(settings.store.path)}"
    try:
        with reading(settings):
            return "the store can be reached"
    except EmptyStoreError:
        return "the store can be reached and is empty"


class EmptyStoreError(StoreError):
    """The database is there, and no gateway has used it yet."""


def _file(path: Path) -> tuple[str, Engine, str]:
    if not path.is_file():
        raise StoreError(f"there is no store at {path}: a gateway makes it when it first starts")
    return str(path), create_engine("sqlite://", creator=lambda: _open(path), poolclass=NullPool), "BEGIN"


def _open(path: Path) -> sqlite3.Connection:
    # Without isolation_level None the driver would begin and end transactions by itself.
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def _server(settings: Settings) -> tuple[str, Engine, str]:
    from llmgw_gateway.store.session import open_to_read, parameters, place  # noqa: PLC0415 -- not for a file

    known = parameters(settings.store_url())
    return place(known), open_to_read(known), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def _check(connection: Connection, name: str) -> None:
    """The queries are written for one schema: another one would make them fail, or worse, not fail."""
    if connection.dialect.name == "postgresql" and not connection.dialect.has_table(connection, "alembic_version"):
        raise EmptyStoreError(f"{name} holds no gateway store: a gateway makes it when it first starts")
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if version != HEAD:
        raise StoreError(
            f"{name} has schema {version}, this command knows {HEAD}: use the command of the gateway that runs on it"
        )
