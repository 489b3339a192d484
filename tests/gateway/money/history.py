"""A store with a past: attempts admitted and settled by the gateway's own transactions, people to whom they belong."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, create_engine, insert

from llmgw_gateway.call import Usage
from llmgw_gateway.money.items import LEASE_EXPIRED, Admission, Admitted, Payer, Paying
from llmgw_gateway.money.posting import Books
from llmgw_gateway.store.schema import persons
from tests.gateway.money import accounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from llmgw_gateway.money.levels import BudgetRef


@dataclass(frozen=True)
class Attempt:
    """One attempt, from admission to the last entry."""

    admitted: int
    """Milliseconds since the epoch."""
    person: str = "per_ada"
    model: str = "claude-sonnet-4-5"
    team: str = ""
    project: str = ""
    key: str = "ses_1"
    operation: str = ""
    """Empty: an operation of its own."""
    usage: Usage = field(default_factory=Usage)
    cost: int | None = 0
    """None: unknown, charged at the hold."""
    late: int | None = None
    """What the truth came to, after a sweep."""
    outcome: str = "ok"
    hold: int = 1_000
    target: str = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
    price_version: str = "2026-11-21"
    budgets: tuple[BudgetRef, ...] = ()

    @property
    def charged(self) -> int:
        """What it costs in the end."""
        if self.late is not None:
            return self.late
        return self.hold if self.cost is None else self.cost

    @property
    def known(self) -> bool:
        return self.late is not None or self.cost is not None

    @property
    def ended(self) -> str:
        return "ok" if self.late is not None else self.outcome


_FILE: ContextVar[Path] = ContextVar("_FILE")
_ENGINE = create_engine("sqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(_FILE.get()))
"""One for every file: a statement is compiled once for all of them."""


@contextmanager
def reading(store: Path) -> Iterator[Connection]:
    """A connection to the file, beside whatever else has it open."""
    before = _FILE.set(store)
    try:
        with _ENGINE.connect() as connection:
            yield connection
    finally:
        _FILE.reset(before)


@contextmanager
def writing(store: Path) -> Iterator[Connection]:
    """A transaction on the file."""
    with reading(store) as connection, connection.begin():
        yield connection


def write(store: Path, attempts: Iterable[Attempt]) -> None:
    with writing(store) as connection:
        books = Books()
        for number, attempt in enumerate(attempts):
            _write(connection, books, f"att_{number:04d}", attempt)


def _write(connection: Connection, books: Books, attempt_id: str, attempt: Attempt) -> None:
    asked = Admission(
        attempt_id=attempt_id,
        paying=Paying(
            operation_id=attempt.operation or f"req_of_{attempt_id}",
            payer=Payer(
                person_id=attempt.person,
                access_key=attempt.key,
                team=attempt.team,
                project=attempt.project,
                model=attempt.model,
                target=attempt.target,
                price_version=attempt.price_version,
            ),
            admitted_at=attempt.admitted,
        ),
        terms=accounts.terms(attempt.hold),
        budgets=attempt.budgets,
        lease_until=attempt.admitted + accounts.LEASE,
    )
    (answer,) = books.post(connection, [asked])
    assert isinstance(answer, Admitted)
    end = attempt.admitted + 5_000
    if attempt.late is not None:
        swept = accounts.settlement(attempt_id, None, outcome=LEASE_EXPIRED, swept=True, now=end, usage=Usage(input=1))
        assert books.post(connection, [swept]) == [True]
        end += 100_000_000  # more than a day later: the correction still belongs to the day of the attempt
    exact = attempt.cost if attempt.late is None else attempt.late
    settlement = accounts.settlement(attempt_id, exact, outcome=attempt.ended, now=end, usage=attempt.usage)
    assert books.post(connection, [settlement]) == [True]


def introduce(store: Path, person_id: str, name: str = "", email: str = "") -> None:
    """Somebody who signed in once."""
    with writing(store) as connection:
        connection.execute(
            insert(persons),
            {
                "person_id": person_id,
                "issuer": "https://login.example",
                "subject": person_id,
                "name": name,
                "email": email,
                "groups": "[]",
                "first_seen": 0,
                "last_seen": 0,
            },
        )
