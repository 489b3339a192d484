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
    if connection.dialect.name == "postgresql":
        return connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows).rowcount
    return connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows).rowcount
