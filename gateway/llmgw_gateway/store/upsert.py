"""INSERT ... ON CONFLICT DO NOTHING for every database that the store may be.

Both speak the same SQL, SQLAlchemy has a construct of its own for each; here alone stands which one is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Table


def insert_if_absent(
    connection: Connection, table: Table, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> int:
    """Insert the rows whose keys are free and return how many that were; any unique key of the table counts.

    On PostgreSQL this waits for a transaction of another replica that is inserting the same key, and then sees its row.
    Give several rows in the order of their key: two replicas that insert the same rows in opposite orders deadlock.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).on_conflict_do_nothing()
    # Without preserve_rowcount the count of an INSERT is -1 on PostgreSQL: every replay would look new.
    return connection.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount
