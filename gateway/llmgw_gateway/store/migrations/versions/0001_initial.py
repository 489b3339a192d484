"""The first schema: people, device sessions, keys, counters, attempts, ledger, events, adjustments of limits.

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
        "adjustments",
        sa.Column("adjustment_id", sa.String(length=40), nullable=False),
        sa.Column(
            "kind", sa.String(length=8), nullable=False, comment="limit: replaces the configured one; grant: adds to it"
        ),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=True, comment="null: until it is withdrawn"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.Column("withdrawn_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("adjustment_id", name=op.f("pk_adjustments")),
        comment="Changes of limits beside the configuration. Rows are never deleted: they are their own audit.",
    )
    op.create_table(
        "attempts",
        sa.Column(
            "attempt_id", sa.String(length=40), nullable=False, comment="att_: a call; alw_: an allowance of a replica"
        ),
        sa.Column("operation_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("access_key", sa.String(length=40), nullable=False, comment="the place among the person's devices"),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("price_version", sa.String(length=32), nullable=False),
        sa.Column("admitted_at", sa.BigInteger(), nullable=False),
        sa.Column("counters", sa.Text(), nullable=False, comment="JSON list of the counters that it is charged to"),
        sa.Column("hold", sa.BigInteger(), nullable=False, comment="micro-USD"),
        sa.Column("hold_tokens", sa.BigInteger(), nullable=False),
        sa.Column("hold_weighted", sa.BigInteger(), nullable=False),
        sa.Column("ceiling", sa.BigInteger(), nullable=False, comment="micro-USD"),
        sa.Column("ceiling_tokens", sa.BigInteger(), nullable=False),
        sa.Column("ceiling_weighted", sa.BigInteger(), nullable=False),
        sa.Column(
            "observed",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="micro-USD seen so far, carried by lease renewals",
        ),
        sa.Column("observed_tokens", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("observed_weighted", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "lease_until", sa.BigInteger(), nullable=False, comment="once it is swept: until when the truth may come"
        ),
        sa.Column(
            "swept",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="settled as unknown; kept while the truth may still come",
        ),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_attempts")),
        comment="What was admitted and is not over: a row goes when its settlement is in the ledger for good.",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "counters",
        sa.Column("counter_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("budget", sa.Text(), nullable=False, comment="level, subject, model, period and unit of the budget"),
        sa.Column(
            "period_key",
            sa.String(length=16),
            nullable=False,
            comment="2026-11, 2026-W47 or 2026-11-21: no job resets it",
        ),
        sa.Column("unit", sa.SmallInteger(), nullable=False, comment="0 micro-USD, 1 tokens, 2 weighted tokens"),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("exposure", sa.BigInteger(), nullable=False, comment="what open attempts may cost beyond held"),
        sa.Column("limit_amount", sa.BigInteger(), nullable=False, comment="in force at the last admission"),
        sa.Column("thresholds", sa.Text(), nullable=False, comment="JSON list of percent, as of the last admission"),
        sa.Column("crossed", sa.SmallInteger(), nullable=False, comment="the highest threshold that was announced"),
        sa.Column("paced_at", sa.BigInteger(), nullable=False, comment="the last admission while throttled"),
        sa.PrimaryKeyConstraint("counter_id", name=op.f("pk_counters")),
        sa.UniqueConstraint("budget", "period_key", name="uq_counters_period"),
    )
    op.create_table(
        "events",
        sa.Column("event_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="threshold"),
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("period_key", sa.String(length=16), nullable=False),
        sa.Column("percent", sa.SmallInteger(), nullable=False),
        sa.Column("limit_amount", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_events")),
        sa.UniqueConstraint("budget", "period_key", "percent", "limit_amount", name="uq_events_threshold"),
        comment="The outbox: written in the transaction that causes the event, so that it is there exactly once.",
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
        sa.Column("access_key", sa.String(length=40), nullable=False, comment="the place among the person's devices"),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("price_version", sa.String(length=32), nullable=False),
        sa.Column("admitted_at", sa.BigInteger(), nullable=False),
        sa.Column("counters", sa.Text(), nullable=False, comment="JSON list of the counters that it is charged to"),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False, comment="micro-USD"),
        sa.Column("tokens", sa.BigInteger(), nullable=False, comment="charged to budgets in tokens"),
        sa.Column("weighted_tokens", sa.BigInteger(), nullable=False, comment="charged to budgets in weighted tokens"),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(length=64), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_ledger")),
        sa.UniqueConstraint("attempt_id", "kind", name="uq_ledger_attempt"),
    )
    op.create_index("ix_ledger_admitted_at", "ledger", ["admitted_at"], unique=False)
    op.create_index("ix_ledger_person", "ledger", ["person_id", "admitted_at"], unique=False)
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
        "service_keys",
        sa.Column("secret_id", sa.String(length=40), nullable=False),
        sa.Column(
            "key_id",
            sa.String(length=40),
            nullable=False,
            comment="also its person_id, and what budgets of level key count",
        ),
        sa.Column(
            "digest", sa.String(length=64), nullable=False, comment="SHA-256 of the secret, which is kept nowhere"
        ),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False, comment="empty: none"),
        sa.Column("models", sa.Text(), nullable=False, comment="JSON list; null: whatever policies allow"),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_by", sa.Text(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("secret_id", name=op.f("pk_service_keys")),
        sa.UniqueConstraint("digest", name="uq_service_keys_digest"),
        comment="A row for each secret of each key. Rows are never deleted: they are their own audit.",
    )
    op.create_index("ix_service_keys_expires_at", "service_keys", ["expires_at"], unique=False)
    op.create_index("ix_service_keys_key_id", "service_keys", ["key_id"], unique=False)
    op.create_table(
        "write_offs",
        sa.Column(
            "allowance_id", sa.String(length=40), nullable=False, comment="its ledger entry has this as attempt_id"
        ),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="micro-USD"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("allowance_id", name=op.f("pk_write_offs")),
        comment="Allowances that were charged whole because their replica's journal is lost. Rows are never deleted.",
    )
    op.create_table(
        "sessions",
        sa.Column("sid", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False, comment="RFC 7638 thumbprint of the device key"),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("last_exchange", sa.BigInteger(), nullable=False),
        sa.Column(
            "access_key",
            sa.String(length=40),
            nullable=False,
            comment="the place among the person's devices, counted by budgets",
        ),
        sa.Column(
            "ended_at", sa.BigInteger(), nullable=True, comment="since then the place is free; null: the session lives"
        ),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["persons.person_id"],
        ),
        sa.PrimaryKeyConstraint("sid", name=op.f("pk_sessions")),
        sa.UniqueConstraint("access_key", name="uq_sessions_access_key"),
        sa.UniqueConstraint("person_id", "device", name="uq_sessions_device"),
    )
