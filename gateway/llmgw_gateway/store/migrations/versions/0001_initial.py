"""The first schema: people, device sessions, keys, counters, attempts, holds, ledger.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.String(length=40), nullable=False),
        sa.Column("operation_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("price_version", sa.String(length=32), nullable=False),
        sa.Column("hold", sa.BigInteger(), nullable=False),
        sa.Column("ceiling", sa.BigInteger(), nullable=False),
        sa.Column("observed", sa.BigInteger(), nullable=False, comment="cost seen so far, carried by lease renewals"),
        sa.Column("admitted_at", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_attempts")),
    )
    op.create_index(
        "ix_attempts_open",
        "attempts",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("settled = 0"),
        postgresql_where=sa.text("NOT settled"),
    )
    op.create_table(
        "counters",
        sa.Column("counter_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False, comment="level, subject, model and period of the budget"),
        sa.Column(
            "period_key",
            sa.String(length=16),
            nullable=False,
            comment="2026-11, 2026-W47 or 2026-11-21: there is no reset job",
        ),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("exposure", sa.BigInteger(), nullable=False, comment="sum of ceiling - hold over open holds"),
        sa.PrimaryKeyConstraint("counter_id", name=op.f("pk_counters")),
        sa.UniqueConstraint("budget", "period_key", name="uq_counters_period"),
    )
    op.create_table(
        "ledger",
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("attempt_id", sa.String(length=40), nullable=False),
        sa.Column(
            "kind", sa.String(length=16), nullable=False, comment="settlement or correction: at most one of each"
        ),
        sa.Column("operation_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("price_version", sa.String(length=32), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_ledger")),
        sa.UniqueConstraint("attempt_id", "kind", name="uq_ledger_attempt"),
    )
    op.create_table(
        "persons",
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="tid/oid for Entra, sub elsewhere"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("groups", sa.Text(), nullable=False, comment="JSON list, as of the last exchange"),
        sa.Column("first_seen", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_persons")),
        sa.UniqueConstraint("issuer", "subject", name="uq_persons_identity"),
    )
    op.create_table(
        "proofs",
        sa.Column(
            "proof",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of device thumbprint and jti (RFC 9449 section 11.1)",
        ),
        sa.Column("exchange", sa.String(length=40), nullable=False, comment="which exchange used it"),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("proof", name=op.f("pk_proofs")),
    )
    op.create_index("ix_proofs_expires_at", "proofs", ["expires_at"], unique=False)
    op.create_table(
        "replica_keys",
        sa.Column("kid", sa.String(length=64), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("replica", sa.String(length=40), nullable=False),
        sa.Column("public_jwk", sa.Text(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.Column(
            "mac",
            sa.String(length=64),
            nullable=False,
            comment="HMAC-SHA-256 over all of the above under the cluster secret",
        ),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_replica_keys")),
    )
    op.create_table(
        "revocations",
        sa.Column("session", sa.String(length=40), nullable=False),
        sa.Column(
            "expires_at", sa.BigInteger(), nullable=False, comment="when every token of the session has ended by itself"
        ),
        sa.PrimaryKeyConstraint("session", name=op.f("pk_revocations")),
    )
    op.create_table(
        "charges",
        sa.Column("attempt_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("counter_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "amount", sa.BigInteger(), nullable=False, comment="what this ledger entry added to spent: I2 is their sum"
        ),
        sa.ForeignKeyConstraint(
            ["counter_id"],
            ["counters.counter_id"],
        ),
        sa.PrimaryKeyConstraint("attempt_id", "kind", "counter_id", name=op.f("pk_charges")),
    )
    op.create_index("ix_charges_counter_id", "charges", ["counter_id"], unique=False)
    op.create_table(
        "holds",
        sa.Column("attempt_id", sa.String(length=40), nullable=False),
        sa.Column("counter_id", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("exposure", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["attempts.attempt_id"],
        ),
        sa.ForeignKeyConstraint(
            ["counter_id"],
            ["counters.counter_id"],
        ),
        sa.PrimaryKeyConstraint("attempt_id", "counter_id", name=op.f("pk_holds")),
    )
    op.create_table(
        "sessions",
        sa.Column("sid", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False, comment="RFC 7638 thumbprint of the device key"),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("last_exchange", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["persons.person_id"],
        ),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_sessions")),
        sa.UniqueConstraint("person_id", "device", name="uq_sessions_device"),
    )
