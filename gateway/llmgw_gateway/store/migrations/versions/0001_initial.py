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
        sa.Column("payer_id", sa.BigInteger(), nullable=False, comment="a row of payers"),
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
        "audit_heads",
        sa.Column("chain", sa.String(length=40), nullable=False),
        sa.Column("writer", sa.Text(), nullable=False, comment="host:path of the gateway's audit trail"),
        sa.Column("day", sa.String(length=10), nullable=False, comment="UTC"),
        sa.Column("records", sa.BigInteger(), nullable=False, comment="that are on disk"),
        sa.Column("seal", sa.String(length=64), nullable=False, comment="of the last one"),
        sa.Column("key_id", sa.String(length=8), nullable=False),
        sa.Column("anchored_at", sa.BigInteger(), nullable=False),
        sa.Column(
            "mac",
            sa.String(length=64),
            nullable=False,
            comment="HMAC-SHA-256 over the above under the key of the audit trail",
        ),
        sa.PrimaryKeyConstraint("chain", name=op.f("pk_audit_heads")),
        comment="How far each file of the audit trail goes: one that ends before has lost records.",
    )
    op.create_index("ix_audit_heads_day", "audit_heads", ["day"], unique=False)
    op.create_table(
        "changes",
        sa.Column("change_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="from 1, without a gap: its place in the chain"),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False, comment="person_id, key_id, or name@host for a command"),
        sa.Column("role", sa.String(length=16), nullable=False, comment="what the actor did it as"),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("object_kind", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True, comment="JSON of the part that changed; null: there was nothing"),
        sa.Column("after", sa.Text(), nullable=True, comment="JSON; null: there is nothing any more"),
        sa.Column("outcome", sa.String(length=8), nullable=False, comment="allowed, denied"),
        sa.Column("request_id", sa.String(length=40), nullable=False, comment="empty for a command"),
        sa.Column(
            "salts",
            sa.Text(),
            nullable=False,
            comment="JSON: salts of the texts that may have to be erased; of one that was, its commitment",
        ),
        sa.Column("hash", sa.String(length=64), nullable=False, comment="SHA-256 of the row and of the hash before it"),
        sa.PrimaryKeyConstraint("change_id", name=op.f("pk_changes")),
        sa.UniqueConstraint("number", name="uq_changes_number"),
        comment="What administrators have changed or were refused. Rows are chained, and name nobody.",
    )
    op.create_index("ix_changes_at", "changes", ["at", "change_id"], unique=False)
    op.create_index("ix_changes_object", "changes", ["object_kind", "object_id", "at"], unique=False)
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
        sa.Column("payer_id", sa.BigInteger(), nullable=False, comment="a row of payers"),
        sa.Column("admitted_at", sa.BigInteger(), nullable=False),
        sa.Column("counters", sa.Text(), nullable=False, comment="JSON list of the counters that it is charged to"),
        sa.Column("day", sa.Integer(), nullable=False, comment="of admission: days since the epoch, UTC"),
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
    op.create_index("ix_ledger_day", "ledger", ["day", "payer_id"], unique=False)
    op.create_table(
        "ledger_sums",
        sa.Column("sum_id", sa.String(length=64), nullable=False, comment="SHA-256 of what it is the sum of"),
        sa.Column("day", sa.String(length=10), nullable=False, comment="of admission, in the organisation's time zone"),
        sa.Column("calls", sa.Boolean(), nullable=False, comment="false: allowances, which are no calls"),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("counters", sa.Text(), nullable=False, comment="JSON list of the counters that it was charged to"),
        sa.Column("operations", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False, comment="micro-USD"),
        sa.Column("estimated_cost", sa.BigInteger(), nullable=False, comment="the part of it whose usage is not known"),
        sa.Column("tokens", sa.BigInteger(), nullable=False, comment="charged to budgets in tokens"),
        sa.Column("weighted_tokens", sa.BigInteger(), nullable=False, comment="charged to budgets in weighted tokens"),
        sa.PrimaryKeyConstraint("sum_id", name=op.f("pk_ledger_sums")),
        comment="What retention has added up and removed from the ledger: with it, every sum is what it was.",
    )
    op.create_index("ix_ledger_sums_day", "ledger_sums", ["day"], unique=False)
    op.create_table(
        "payers",
        sa.Column("payer_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.Column("access_key", sa.String(length=40), nullable=False, comment="the place among the person's devices"),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("price_version", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("payer_id", name=op.f("pk_payers")),
        sa.UniqueConstraint(
            "person_id", "access_key", "team", "project", "model", "target", "price_version", name="uq_payers_person_id"
        ),
        comment="Who pays for what, by which prices: once, and not in every row. Rows are never changed nor deleted.",
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
        sa.Column(
            "disabled_at", sa.BigInteger(), nullable=True, comment="an administrator of the gateway withdrew access"
        ),
        sa.Column(
            "source", sa.String(length=8), nullable=False, comment="scim, csv; empty: known by their sign-in alone"
        ),
        sa.Column("home", sa.Text(), nullable=False, comment="the provider whose sign-ins are theirs"),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("user_key", sa.Text(), nullable=True, comment="user_name in one case; null: in no directory"),
        sa.Column("email_key", sa.Text(), nullable=False, comment="email in one case"),
        sa.Column("external_id", sa.Text(), nullable=False, comment="what the directory calls them"),
        sa.Column("attributes", sa.Text(), nullable=False, comment="JSON: what the directory wrote, as it wrote it"),
        sa.Column("inactive_at", sa.BigInteger(), nullable=True, comment="the directory says that they have left"),
        sa.Column("changed_at", sa.BigInteger(), nullable=False, comment="by a directory; never twice the same"),
        sa.Column(
            "directory_id",
            sa.String(length=40),
            nullable=True,
            comment="by which id the directory knows them; null: by person_id",
        ),
        sa.PrimaryKeyConstraint("person_id", name=op.f("pk_persons")),
        sa.UniqueConstraint("directory_id", name="uq_persons_directory_id"),
        sa.UniqueConstraint("home", "user_key", name="uq_persons_user_name"),
        sa.UniqueConstraint("issuer", "subject", name="uq_persons_identity"),
    )
    op.create_index("ix_persons_email_key", "persons", ["email_key"], unique=False)
    op.create_index("ix_persons_external_id", "persons", ["external_id"], unique=False)
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
        "role_grants",
        sa.Column("grant_id", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=40), nullable=False, comment="person_id, or key_id of a service key"),
        sa.Column("role", sa.String(length=16), nullable=False, comment="admin, auditor, team_lead"),
        sa.Column("team", sa.Text(), nullable=False, comment="of a team_lead; else empty"),
        sa.Column("ends_at", sa.BigInteger(), nullable=True, comment="null: until it is withdrawn"),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn_by", sa.Text(), nullable=True),
        sa.Column("withdrawn_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("grant_id", name=op.f("pk_role_grants")),
        comment="Roles beside those of the configuration. Rows are never deleted.",
    )
    op.create_index("ix_role_grants_holder", "role_grants", ["holder"], unique=False)
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
        sa.Column(
            "home",
            sa.Text(),
            nullable=True,
            comment="the provider whose directory it may write by SCIM, and nothing else; null: for models",
        ),
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
        "setup_codes",
        sa.Column("digest", sa.String(length=64), nullable=False, comment="SHA-256 of the code, which is kept nowhere"),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("redeemed_by", sa.String(length=40), nullable=True),
        sa.Column("redeemed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_setup_codes")),
        comment="One-time codes of `llmgw-gateway init`: who redeems one becomes the first administrator.",
    )
    op.create_table(
        "teams",
        sa.Column("team_id", sa.String(length=40), nullable=False),
        sa.Column("home", sa.Text(), nullable=False, comment="the provider whose directory it is in"),
        sa.Column("source", sa.String(length=8), nullable=False, comment="scim, csv"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False, comment="name in one case"),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False, comment="never twice the same"),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_teams")),
        sa.UniqueConstraint("name_key", name="uq_teams_name"),
    )
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
    op.create_table(
        "team_members",
        sa.Column("team_id", sa.String(length=40), nullable=False),
        sa.Column("person_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["persons.person_id"],
        ),
        sa.ForeignKeyConstraint(
            ["team_id"],
            ["teams.team_id"],
        ),
        sa.PrimaryKeyConstraint("team_id", "person_id", name=op.f("pk_team_members")),
    )
    op.create_index("ix_team_members_person_id", "team_members", ["person_id"], unique=False)
