"""Every table, once, for SQLite and PostgreSQL. Amounts are micro-USD, times milliseconds since the epoch.

Ledger, attempts and audit carry a random `person_id` only; who that is stands in `persons` alone, so that one row can
be erased without touching a sum.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD: Final = "0001"
"""The newest migration. Kept here so that an up-to-date store opens without importing Alembic (a test compares)."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows up by itself only for INTEGER PRIMARY KEY.
_serial = BigInteger().with_variant(Integer, "sqlite")

persons = Table(
    "persons",
    metadata,
    Column("person_id", String(40), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="tid/oid for Entra, sub elsewhere"),
    Column("name", Text, nullable=False, default=""),
    Column("email", Text, nullable=False, default=""),
    Column("groups", Text, nullable=False, default="[]", comment="JSON list, as of the last exchange"),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    UniqueConstraint("issuer", "subject", name="uq_persons_identity"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sid", String(40), primary_key=True),
    Column("person_id", String(40), ForeignKey("persons.person_id"), nullable=False),
    Column("device", String(64), nullable=False, comment="RFC 7638 thumbprint of the device key"),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("last_exchange", BigInteger, nullable=False),
    UniqueConstraint("person_id", "device", name="uq_sessions_device"),
)

replica_keys = Table(
    "replica_keys",
    metadata,
    Column("kid", String(64), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("replica", String(40), nullable=False),
    Column("public_jwk", Text, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("removed", Boolean, nullable=False, default=False),
    Column(
        "mac",
        String(64),
        nullable=False,
        comment="HMAC-SHA-256 over all of the above under the cluster secret",
    ),
)

proofs = Table(
    "proofs",
    metadata,
    Column(
        "proof",
        String(64),
        primary_key=True,
        comment="SHA-256 of device thumbprint and jti (RFC 9449 section 11.1)",
    ),
    Column("exchange", String(40), nullable=False, comment="which exchange used it"),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_proofs_expires_at", "expires_at"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("session", String(40), primary_key=True),
    Column("expires_at", BigInteger, nullable=False, comment="when every token of the session has ended by itself"),
)

counters = Table(
    "counters",
    metadata,
    Column("counter_id", _serial, primary_key=True),
    Column("budget", Text, nullable=False, comment="level, subject, model and period of the budget"),
    Column(
        "period_key",
        String(16),
        nullable=False,
        comment="2026-11, 2026-W47 or 2026-11-21: there is no reset job",
    ),
    Column("spent", BigInteger, nullable=False, default=0),
    Column("held", BigInteger, nullable=False, default=0),
    Column("exposure", BigInteger, nullable=False, default=0, comment="sum of ceiling - hold over open holds"),
    UniqueConstraint("budget", "period_key", name="uq_counters_period"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("attempt_id", String(40), primary_key=True),
    Column("operation_id", String(40), nullable=False),
    Column("person_id", String(40), nullable=False),
    Column("model", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("price_version", String(32), nullable=False),
    Column("hold", BigInteger, nullable=False),
    Column("ceiling", BigInteger, nullable=False),
    Column(
        "observed",
        BigInteger,
        nullable=False,
        default=0,
        comment="cost seen so far, carried by lease renewals",
    ),
    Column("admitted_at", BigInteger, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("settled", Boolean, nullable=False, default=False),
    Index(
        "ix_attempts_open",
        "lease_until",
        sqlite_where=text("settled = 0"),
        postgresql_where=text("NOT settled"),
    ),
)

holds = Table(
    "holds",
    metadata,
    Column("attempt_id", String(40), ForeignKey("attempts.attempt_id"), primary_key=True),
    Column("counter_id", BigInteger, ForeignKey("counters.counter_id"), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("exposure", BigInteger, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("entry_id", _serial, primary_key=True),
    Column("attempt_id", String(40), nullable=False),
    Column("kind", String(16), nullable=False, comment="settlement or correction: at most one of each"),
    Column("operation_id", String(40), nullable=False),
    Column("person_id", String(40), nullable=False),
    Column("model", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_5m_tokens", BigInteger, nullable=False),
    Column("cache_write_1h_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("price_version", String(32), nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("settled_at", BigInteger, nullable=False),
    UniqueConstraint("attempt_id", "kind", name="uq_ledger_attempt"),
)

charges = Table(
    "charges",
    metadata,
    Column("attempt_id", String(40), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("counter_id", BigInteger, ForeignKey("counters.counter_id"), primary_key=True),
    Column("amount", BigInteger, nullable=False, comment="what this ledger entry added to spent: I2 is their sum"),
    Index("ix_charges_counter_id", "counter_id"),
)
