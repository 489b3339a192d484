"""INSERT ... ON CONFLICT for every database that the store may be.

Both speak the same SQL, SQLAlchemy has a construct of its own for each; here alone stands which one is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table
    from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert


def insert_into(table: Table, *, postgresql: bool) -> PostgresqlInsert | sqlite.Insert:
    """The construct of a database; that of PostgreSQL is 2 MiB of memory, which an embedded store does without."""
    if postgresql:
        from sqlalchemy.dialects import postgresql as dialect  # noqa: PLC0415 -- see above

        return dialect.insert(table)
    return sqlite.insert(table)


def insert_if_absent(
    connection: Connection, table: Table, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> int:
    """Insert the rows whose keys are free and return how many that were; any unique key of the table counts.

    On PostgreSQL this waits for a transaction of another replica that is inserting the same key, and then sees its row.
    Give several rows in the order of their key: two replicas that insert the same rows in opposite orders deadlock.
    """
    statement = insert_into(table, postgresql=connection.dialect.name == "postgresql").on_conflict_do_nothing()
    # Without preserve_rowcount the count of an INSERT is -1 on PostgreSQL: every replay would look new.
    return connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount


def add_up(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], summed: Sequence[str]) -> None:
    """Insert rows; where the primary key is taken, add the `summed` columns to those of the row that is there.

    Give the rows in the order of their key, for the same reason.
    """
    statement = insert_into(table, postgresql=connection.dialect.name == "postgresql")
    sums = {name: table.c[name] + statement.excluded[name] for name in summed}
    keys = list(table.primary_key.columns)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=sums), rows)
