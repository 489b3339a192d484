"""Opens the store for operators' commands: read-only, beside a gateway that runs."""

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

    from sqlalchemy import Connection

    from llmgw_gateway.settings import Settings

BUSY_SECONDS = 5


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """A connection that cannot write and that sees one moment: all queries within agree with each other.

    StoreError says in a sentence what is wrong with the store; nothing is created, locked or migrated.
    """
    path = settings.path(settings.store.path)
    if not path.is_file():
        raise StoreError(f"there is no store at {path}: a gateway makes it when it first starts")
    engine = create_engine("sqlite://", creator=lambda: _open(path), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            _check(connection, path)
            yield connection
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or type(error).__name__
        raise StoreError(f"{path} cannot be read as a gateway store: {reason}") from error


def _open(path: Path) -> sqlite3.Connection:
    # Without isolation_level None the driver would begin and end transactions by itself.
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def _check(connection: Connection, path: Path) -> None:
    """The queries are written for one schema: another one would make them fail, or worse, not fail."""
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if version != HEAD:
        raise StoreError(
            f"{path} has schema {version}, this command knows {HEAD}: use the command of the gateway that runs on it"
        )
