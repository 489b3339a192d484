"""What admissions wait for while retention makes sums of an old ledger, beside what they wait for without it."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from llmgw_gateway import settings
from llmgw_gateway.app import spare_the_collector
from llmgw_gateway.money import catalogues
from llmgw_gateway.money.holds import Money
from llmgw_gateway.money.posting import Books
from llmgw_gateway.retention import Retention
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.opening import backend
from tests.bench import admission
from tests.gateway import configuration
from tests.gateway.money import accounts, history
from tests.gateway.money.history import Attempt
from tests.lab.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

OLD = 4_000
DAY = 86_400_000
PAUSE_SECONDS = 0.005
"""Between two admissions of one client: the store is in use, and not saturated."""
QUIET = 500
"""Admissions beside nothing."""


def main() -> None:
    """Print one line for each kind of store."""
    with tempfile.TemporaryDirectory(prefix="llmgw-bench-") as name, Postgres() as server:
        folder = Path(name)
        print(f"retention, embedded: {uvloop.run(_waits({'path': 'gateway.db'}, folder))}", flush=True)
        file = folder / "store.url"
        file.touch(mode=0o600)
        file.write_text(server.url(server.database()), encoding="ascii")
        print(f"retention, PostgreSQL: {uvloop.run(_waits({'url_file': file.name}, folder))}", flush=True)


async def _waits(store: Mapping[str, str], folder: Path) -> str:
    ample = [{"level": level, "limit_usd": 1_000_000_000} for level in ("organisation", "user")]
    document = configuration.good() | {"store": dict(store), "projects": [{"name": "atlas"}], "budgets": ample}
    document["retention"] = {"ledger_days": 40}
    loaded = settings.load(configuration.write(configuration.folder(folder), document))
    database = Database(backend(loaded))
    database.start()
    await _fill(database)
    money = Money(database, catalogues.load(None), loaded)
    spare_the_collector()
    call = admission.call()
    waits: list[float] = []

    async def admit() -> None:
        began = time.perf_counter()
        async with money.admit(admission.ACCOUNT, admission.GRANT, call, "req_1") as hold:
            waits.append(time.perf_counter() - began)
            hold.outcome.dispatched = True
            hold.outcome.usage, hold.outcome.completeness = admission.USAGE, "complete"
        await asyncio.sleep(PAUSE_SECONDS)

    for _ in range(QUIET):
        await admit()
    quiet = _told(waits)
    waits.clear()
    began = time.monotonic()
    round_ = asyncio.create_task(Retention(database, loaded).round())
    while not round_.done():
        await admit()
    took = time.monotonic() - began
    removed = (await round_).ledger
    await money.drain()
    database.close()
    return f"{removed:,} attempts in {took:.0f} s; to admit {_told(waits)}, beside nothing {quiet}"


def _told(waits: list[float]) -> str:
    ordered = sorted(waits)
    at = {f"p{share}": ordered[int(len(ordered) * share / 100)] * 1000 for share in (50, 99)}
    return ", ".join(f"{name} {wait:.1f} ms" for name, wait in at.items()) + f", most {ordered[-1] * 1000:.0f} ms"


async def _fill(database: Database) -> None:
    now = int(database.now() * 1000)
    budgets = tuple(accounts.budget(level, 10**12) for level in ("organisation", "user"))
    base = Attempt(0, budgets=budgets, usage=admission.USAGE, cost=7)

    def fill(connection: Connection, batch: list[range]) -> list[None]:
        books = Books()
        for numbers in batch:
            for number in numbers:
                at = now - 100 * DAY + number * 50 * DAY // OLD
                one = replace(base, admitted=at, person=f"per_{number % 200}", model=("opus", "sonnet")[number % 2])
                history._write(connection, books, f"att_{number:06d}", one)
        return [None] * len(batch)

    for first in range(0, OLD, 20):
        await database.submit(fill, range(first, first + 20))


if __name__ == "__main__":
    main()
