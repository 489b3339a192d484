"""The two kinds of store, so that one test can run on both."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import sql

from llmgw_gateway.store.postgres import Postgres
from llmgw_gateway.store.sqlite import Sqlite
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.store.database import Backend
    from tests.lab.postgres import Postgres as Server

Rows = list[tuple[Any, ...]]


class Column(Protocol):
    """A store with no rows that nobody has opened yet."""

    @property
    def name(self) -> str:
        """As its error messages call it."""

    def backend(self) -> Backend:
        """One replica's way in."""

    def sql(self, statement: str, *values: object) -> Rows:
        """Look into it, or write to it, as someone would who got hold of it. Values stand for question marks."""

    def configuration(self) -> dict[str, str]:
        """The section `[store]`."""


class SqliteColumn:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def backend(self) -> Backend:
        return Sqlite(self.path)

    def sql(self, statement: str, *values: object) -> Rows:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def configuration(self) -> dict[str, str]:
        return {"path": str(self.path)}


class PostgresColumn:
    """A database of a server."""

    def __init__(self, server: Server, database: str) -> None:
        self.server = server
        self.database = database

    @property
    def name(self) -> str:
        return f"postgresql://127.0.0.1:{self.server.port}/{self.database}"

    def backend(self) -> Backend:
        return Postgres(Secret(self.server.url(self.database)))

    def sql(self, statement: str, *values: object) -> Rows:
        with psycopg.connect(self.server.url(self.database)) as connection:
            cursor = connection.execute(sql.SQL(statement.replace("?", "%s")), values or None)
            return cursor.fetchall() if cursor.description else []

    def configuration(self) -> dict[str, str]:
        return {"url": self.server.url(self.database)}
