"""What several tables of the schema have in common."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, Integer, String, Text

NAMES: Final = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""How indexes and constraints are called."""


def paying() -> tuple[Column[Any], ...]:
    """Who and what an attempt is for: the same in `attempts` and, once it is settled, in `ledger`."""
    return (
        Column("operation_id", String(40), nullable=False),
        # No foreign key: it would be looked at for each row, and payers are never deleted. `ledger verify` looks.
        Column("payer_id", BigInteger, nullable=False, comment="a row of payers"),
        Column("admitted_at", BigInteger, nullable=False),
        Column("counters", Text, nullable=False, comment="JSON list of the counters that it is charged to"),
    )


# SQLite counts rows up by itself only for INTEGER PRIMARY KEY.
SERIAL = BigInteger().with_variant(Integer, "sqlite")
