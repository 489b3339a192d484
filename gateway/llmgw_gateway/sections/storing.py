"""The sections `[store]`, `[audit]`, `[retention]` and `[prices]`: what is kept, where and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from llmgw_gateway.sections import faults
from llmgw_gateway.sections.reading import Section, Text
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

LEAST_LEDGER_DAYS = 40


class Prices(Section, frozen=True, kw_only=True):
    """Prices of your own, beside and above the catalogue that ships."""

    file: str = ""
    """Rows in the catalogue's format (docs/money.md); empty: the catalogue as it ships."""

    def faults(self, base: Path) -> list[str]:
        """A file that is not there."""
        if self.file and not (base / self.file).is_file():
            return [f"file: no such file: {base / self.file}"]
        return []


class Retention(Section, frozen=True, kw_only=True):
    """How long what is over is kept, in days; 0: for good."""

    ledger_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Single attempts; then their sums for each day, person, team, project and model."""
    audit_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Files of the audit trail, from their day on."""
    changes_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Administrators' changes."""
    people_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Names of people, from their last sign-in on: then they are erased, unless a directory has them."""

    def faults(self, _base: Path) -> list[str]:
        """A ledger that would be cut while budgets and reports of the month still need it."""
        if 0 < self.ledger_days < LEAST_LEDGER_DAYS:
            return [f"ledger_days: at least {LEAST_LEDGER_DAYS} (a month and what is still settled), or 0"]
        return []


class Audit(Section, frozen=True, kw_only=True):
    """The audit trail: JSON lines, metadata only, chained."""

    path: Text
    """The file that is written; full ones and those of past days are put beside it, with their day in their names."""
    key_file: str = ""
    """At least 32 bytes that the chain is sealed with; empty: `tokens.cluster_secret_file`."""
    former_key_files: tuple[Text, ...] = ()
    """Secrets that it was sealed with before: `audit verify` needs them for older files."""
    file_megabytes: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """A file that has reached this size is followed by another."""
    most_waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    """Requests that may be under way, or answered, without their lines on disk; at so many, new ones are refused."""

    def faults(self, base: Path) -> list[str]:
        """A folder that is not there; a secret that is missing, short, or open to others."""
        found = faults.folder_faults(base, self.path)
        named = [("key_file", self.key_file)] if self.key_file else []
        named += [(f"former_key_files[{number}]", name) for number, name in enumerate(self.former_key_files)]
        for key, name in named:
            found += faults.secret_faults(key, base / name)
        return found


class Store(Section, frozen=True, kw_only=True):
    """Where everything durable is: one SQLite file, or a PostgreSQL server that several replicas share."""

    path: str = ""
    """The SQLite file, used by one process."""
    url: str = ""
    """postgresql://user@host/database?sslmode=verify-full, without a password (libpq finds it in PGPASSFILE)."""
    url_file: str = ""
    """A file that holds such a URL with its password, open to its owner only."""
    unencrypted: bool = False
    """Whether the connection to another machine may be in clear, because the network between encrypts."""
    journal: str = ""
    """The file for calls that are admitted on allowances while the store is away: one for each replica, on a volume
    that outlives the process. Needed when a budget has an allowance."""
    prepared_statements: bool = True
    """False behind a proxy that gives each transaction another connection and does not follow prepared statements."""

    def faults(self, base: Path) -> list[str]:
        """None or two stores, a folder that is not there, a URL that is none or that would talk in clear."""
        named = [name for name in ("path", "url", "url_file") if getattr(self, name)]
        if len(named) != 1:
            return [f"path: exactly one of path, url and url_file is needed, not {' and '.join(named) or 'none'}"]
        if self.journal and (found := faults.folder_faults(base, self.journal, "journal")):
            return found
        if self.path:
            return faults.folder_faults(base, self.path)
        if self.url:
            return faults.postgres_faults("url", Secret(self.url), password=False, unencrypted=self.unencrypted)
        text, found = faults.secret_file("url_file", base / self.url_file, "a postgresql:// URL")
        url = Secret((text or b"").decode(errors="replace"))
        return found or faults.postgres_faults("url_file", url, password=True, unencrypted=self.unencrypted)
