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
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from llmgw_gateway.store.columns import NAMES, SERIAL, paying

HEAD: Final = "0001"
"""The newest migration. Kept here so that an up-to-date store opens without importing Alembic (a test compares)."""

metadata = MetaData(naming_convention=NAMES)

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
    Column("disabled_at", BigInteger, comment="an administrator of the gateway withdrew access"),
    Column("source", String(8), nullable=False, default="", comment="scim, csv; empty: known by their sign-in alone"),
    Column("home", Text, nullable=False, default="", comment="the provider whose sign-ins are theirs"),
    Column("user_name", Text, nullable=False, default=""),
    Column("user_key", Text, comment="user_name in one case; null: in no directory"),
    Column("email_key", Text, nullable=False, default="", comment="email in one case"),
    Column("external_id", Text, nullable=False, default="", comment="what the directory calls them"),
    Column("attributes", Text, nullable=False, default="{}", comment="JSON: what the directory wrote, as it wrote it"),
    Column("inactive_at", BigInteger, comment="the directory says that they have left"),
    Column("changed_at", BigInteger, nullable=False, default=0, comment="by a directory; never twice the same"),
    Column("directory_id", String(40), comment="by which id the directory knows them; null: by person_id"),
    UniqueConstraint("issuer", "subject", name="uq_persons_identity"),
    UniqueConstraint("directory_id", name="uq_persons_directory_id"),
    UniqueConstraint("home", "user_key", name="uq_persons_user_name"),
    Index("ix_persons_email_key", "email_key"),
    Index("ix_persons_external_id", "external_id"),
)

teams = Table(
    "teams",
    metadata,
    Column("team_id", String(40), primary_key=True),
    Column("home", Text, nullable=False, comment="the provider whose directory it is in"),
    Column("source", String(8), nullable=False, comment="scim, csv"),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False, comment="name in one case"),
    Column("external_id", Text, nullable=False, default=""),
    Column("made_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False, comment="never twice the same"),
    UniqueConstraint("name_key", name="uq_teams_name"),
)

team_members = Table(
    "team_members",
    metadata,
    Column("team_id", String(40), ForeignKey("teams.team_id"), primary_key=True),
    Column("person_id", String(40), ForeignKey("persons.person_id"), primary_key=True),
    Index("ix_team_members_person_id", "person_id"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sid", String(40), primary_key=True),
    Column("person_id", String(40), ForeignKey("persons.person_id"), nullable=False),
    Column("device", String(64), nullable=False, comment="RFC 7638 thumbprint of the device key"),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("last_exchange", BigInteger, nullable=False),
    Column(
        "access_key", String(40), nullable=False, comment="the place among the person's devices, counted by budgets"
    ),
    Column("ended_at", BigInteger, comment="since then the place is free; null: the session lives"),
    UniqueConstraint("access_key", name="uq_sessions_access_key"),
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

service_keys = Table(
    "service_keys",
    metadata,
    Column("secret_id", String(40), primary_key=True),
    Column("key_id", String(40), nullable=False, comment="also its person_id, and what budgets of level key count"),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the secret, which is kept nowhere"),
    Column("name", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("team", Text, nullable=False, comment="empty: none"),
    Column("models", Text, nullable=False, comment="JSON list; null: whatever policies allow"),
    Column(
        "home", Text, comment="the provider whose directory it may write by SCIM, and nothing else; null: for models"
    ),
    Column("expires_at", BigInteger, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("revoked_by", Text),
    Column("revoked_at", BigInteger),
    UniqueConstraint("digest", name="uq_service_keys_digest"),
    Index("ix_service_keys_key_id", "key_id"),
    Index("ix_service_keys_expires_at", "expires_at"),
    comment="A row for each secret of each key. Rows are never deleted: they are their own audit.",
)

counters = Table(
    "counters",
    metadata,
    Column("counter_id", SERIAL, primary_key=True),
    Column("budget", Text, nullable=False, comment="level, subject, model, period and unit of the budget"),
    Column("period_key", String(16), nullable=False, comment="2026-11, 2026-W47 or 2026-11-21: no job resets it"),
    Column("unit", SmallInteger, nullable=False, comment="0 micro-USD, 1 tokens, 2 weighted tokens"),
    Column("spent", BigInteger, nullable=False, default=0),
    Column("held", BigInteger, nullable=False, default=0),
    Column("exposure", BigInteger, nullable=False, default=0, comment="what open attempts may cost beyond held"),
    Column("limit_amount", BigInteger, nullable=False, default=0, comment="in force at the last admission"),
    Column("thresholds", Text, nullable=False, default="[]", comment="JSON list of percent, as of the last admission"),
    Column("crossed", SmallInteger, nullable=False, default=0, comment="the highest threshold that was announced"),
    Column("paced_at", BigInteger, nullable=False, default=0, comment="the last admission while throttled"),
    UniqueConstraint("budget", "period_key", name="uq_counters_period"),
)

payers = Table(
    "payers",
    metadata,
    Column("payer_id", SERIAL, primary_key=True),
    Column("person_id", String(40), nullable=False),
    Column("access_key", String(40), nullable=False, comment="the place among the person's devices"),
    Column("team", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("price_version", String(32), nullable=False),
    UniqueConstraint(
        "person_id", "access_key", "team", "project", "model", "target", "price_version", name="uq_payers_person_id"
    ),
    comment="Who pays for what, by which prices: once, and not in every row. Rows are never changed nor deleted.",
)

attempts = Table(
    "attempts",
    metadata,
    Column("attempt_id", String(40), primary_key=True, comment="att_: a call; alw_: an allowance of a replica"),
    *paying(),
    Column("hold", BigInteger, nullable=False, comment="micro-USD"),
    Column("hold_tokens", BigInteger, nullable=False),
    Column("hold_weighted", BigInteger, nullable=False),
    Column("ceiling", BigInteger, nullable=False, comment="micro-USD"),
    Column("ceiling_tokens", BigInteger, nullable=False),
    Column("ceiling_weighted", BigInteger, nullable=False),
    Column(
        "observed",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="micro-USD seen so far, carried by lease renewals",
    ),
    Column("observed_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("observed_weighted", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_until", BigInteger, nullable=False, comment="once it is swept: until when the truth may come"),
    Column(
        "swept",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="settled as unknown; kept while the truth may still come",
    ),
    comment="What was admitted and is not over: a row goes when its settlement is in the ledger for good.",
    # No index on the lease: the table is small, every admission would pay for it, and a sweep is seldom.
    sqlite_with_rowid=False,
)

ledger = Table(
    "ledger",
    metadata,
    Column("entry_id", SERIAL, primary_key=True),
    Column("attempt_id", String(40), nullable=False),
    Column("kind", String(16), nullable=False, comment="settlement or correction: at most one of each"),
    *paying(),
    Column("day", Integer, nullable=False, comment="of admission: days since the epoch, UTC"),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_5m_tokens", BigInteger, nullable=False),
    Column("cache_write_1h_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False, comment="micro-USD"),
    Column("tokens", BigInteger, nullable=False, comment="charged to budgets in tokens"),
    Column("weighted_tokens", BigInteger, nullable=False, comment="charged to budgets in weighted tokens"),
    Column("estimated", Boolean, nullable=False),
    Column("outcome", String(64), nullable=False),
    Column("settled_at", BigInteger, nullable=False),
    UniqueConstraint("attempt_id", "kind", name="uq_ledger_attempt"),
    # Some days of everybody, and each of these days of one person: that must not read a company's month.
    Index("ix_ledger_day", "day", "payer_id"),
)

ledger_sums = Table(
    "ledger_sums",
    metadata,
    Column("sum_id", String(64), primary_key=True, comment="SHA-256 of what it is the sum of"),
    Column("day", String(10), nullable=False, comment="of admission, in the organisation's time zone"),
    Column("calls", Boolean, nullable=False, comment="false: allowances, which are no calls"),
    Column("person_id", String(40), nullable=False),
    Column("team", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("counters", Text, nullable=False, comment="JSON list of the counters that it was charged to"),
    Column("operations", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_5m_tokens", BigInteger, nullable=False),
    Column("cache_write_1h_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False, comment="micro-USD"),
    Column("estimated_cost", BigInteger, nullable=False, comment="the part of it whose usage is not known"),
    Column("tokens", BigInteger, nullable=False, comment="charged to budgets in tokens"),
    Column("weighted_tokens", BigInteger, nullable=False, comment="charged to budgets in weighted tokens"),
    Index("ix_ledger_sums_day", "day"),
    comment="What retention has added up and removed from the ledger: with it, every sum is what it was.",
)

events = Table(
    "events",
    metadata,
    Column("event_id", SERIAL, primary_key=True),
    Column("kind", String(16), nullable=False, comment="threshold"),
    Column("budget", Text, nullable=False),
    Column("period_key", String(16), nullable=False),
    Column("percent", SmallInteger, nullable=False),
    Column("limit_amount", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Replicas that disagree about a limit for a moment cross its thresholds again and again.
    UniqueConstraint("budget", "period_key", "percent", "limit_amount", name="uq_events_threshold"),
    comment="The outbox: written in the transaction that causes the event, so that it is there exactly once.",
)

adjustments = Table(
    "adjustments",
    metadata,
    Column("adjustment_id", String(40), primary_key=True),
    Column("kind", String(8), nullable=False, comment="limit: replaces the configured one; grant: adds to it"),
    Column("budget", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, comment="null: until it is withdrawn"),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("withdrawn_by", Text),
    Column("withdrawn_at", BigInteger),
    comment="Changes of limits beside the configuration. Rows are never deleted: they are their own audit.",
)

write_offs = Table(
    "write_offs",
    metadata,
    Column("allowance_id", String(40), primary_key=True, comment="its ledger entry has this as attempt_id"),
    Column("amount", BigInteger, nullable=False, comment="micro-USD"),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    comment="Allowances that were charged whole because their replica's journal is lost. Rows are never deleted.",
)

role_grants = Table(
    "role_grants",
    metadata,
    Column("grant_id", String(40), primary_key=True),
    Column("holder", String(40), nullable=False, comment="person_id, or key_id of a service key"),
    Column("role", String(16), nullable=False, comment="admin, auditor, team_lead"),
    Column("team", Text, nullable=False, comment="of a team_lead; else empty"),
    Column("ends_at", BigInteger, comment="null: until it is withdrawn"),
    Column("made_by", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("withdrawn_by", Text),
    Column("withdrawn_at", BigInteger),
    Index("ix_role_grants_holder", "holder"),
    comment="Roles beside those of the configuration. Rows are never deleted.",
)

setup_codes = Table(
    "setup_codes",
    metadata,
    Column("digest", String(64), primary_key=True, comment="SHA-256 of the code, which is kept nowhere"),
    Column("expires_at", BigInteger, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("redeemed_by", String(40)),
    Column("redeemed_at", BigInteger),
    comment="One-time codes of `llmgw-gateway init`: who redeems one becomes the first administrator.",
)

changes = Table(
    "changes",
    metadata,
    Column("change_id", String(40), primary_key=True),
    Column("number", BigInteger, nullable=False, comment="from 1, without a gap: its place in the chain"),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False, comment="person_id, key_id, or name@host for a command"),
    Column("role", String(16), nullable=False, comment="what the actor did it as"),
    Column("action", String(40), nullable=False),
    Column("object_kind", String(32), nullable=False),
    Column("object_id", Text, nullable=False),
    Column("before", Text, comment="JSON of the part that changed; null: there was nothing"),
    Column("after", Text, comment="JSON; null: there is nothing any more"),
    Column("outcome", String(8), nullable=False, comment="allowed, denied"),
    Column("request_id", String(40), nullable=False, comment="empty for a command"),
    Column(
        "salts",
        Text,
        nullable=False,
        comment="JSON: salts of the texts that may have to be erased; of one that was, its commitment",
    ),
    Column("hash", String(64), nullable=False, comment="SHA-256 of the row and of the hash before it"),
    UniqueConstraint("number", name="uq_changes_number"),
    Index("ix_changes_at", "at", "change_id"),
    Index("ix_changes_object", "object_kind", "object_id", "at"),
    comment="What administrators have changed or were refused. Rows are chained, and name nobody.",
)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("chain", String(40), primary_key=True),
    Column("writer", Text, nullable=False, comment="host:path of the gateway's audit trail"),
    Column("day", String(10), nullable=False, comment="UTC"),
    Column("records", BigInteger, nullable=False, comment="that are on disk"),
    Column("seal", String(64), nullable=False, comment="of the last one"),
    Column("key_id", String(8), nullable=False),
    Column("anchored_at", BigInteger, nullable=False),
    Column("mac", String(64), nullable=False, comment="HMAC-SHA-256 over the above under the key of the audit trail"),
    Index("ix_audit_heads_day", "day"),
    comment="How far each file of the audit trail goes: one that ends before has lost records.",
)
