"""The power fails at any moment: what was acknowledged is there, and the books are right.

`kill -9` cannot show this: what a killed process has written is still the kernel's. Here every write and fsync of the
real store is on record, and the disk is put together as a cut could leave it: before, at and between the syncs.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event

from llmgw_gateway.money.items import Sweep
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.money import accounts
from tests.gateway.money.accounts import faults
from tests.lab import disk, history
from tests.lab.disk import Disk, Mark, Sync, SyncDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_gateway.money.items import Item
    from tests.lab.disk import Image, Operation

CLIENTS = 12
ROUNDS = 60
"""Each client's attempts in `make test-long`."""
FEWER_ROUNDS = 25
"""In every run: still several checkpoints, and hundreds of images."""
RESTARTED_EVERY = 40
"""Of the images, every such one is given to the gateway itself, too."""

pytestmark = pytest.mark.skipif(disk.library() is None, reason="the SQLite of this interpreter is hidden in it")


@dataclass
class Run:
    """What the store did to its disk, with a mark for each answer that it gave."""

    before: Image
    given: frozenset[str] = frozenset()
    """What had been acknowledged before."""
    operations: list[Operation] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """The ledger in the end."""


@dataclass
class Verdict:
    """What became of the images of one run."""

    images: int = 0
    lost: int = 0
    """Acknowledged rows that were missing, in the worst image."""
    faults: list[str] = field(default_factory=list)


async def work(store: Path, *pragmas: str, life: str = "first", rounds: int = FEWER_ROUNDS) -> Run:
    """Admit, renew and settle on the real store, many at once; the disk is on record."""
    run = Run({file.name: file.read_bytes() for file in store.parent.iterdir()})
    # A checkpoint every forty pages instead of every thousand: a short run has many.
    with disk.recorded(store.parent) as run.operations, connections("wal_autocheckpoint = 40", *pragmas):
        database = Database(Sqlite(store))
        database.start()
        desk = accounts.Desk(database)
        budgets = [accounts.budget("organisation", 10**12), accounts.budget("user", 10**12)]

        async def acknowledged(item: Item, mark: str) -> None:
            await desk(item)
            run.operations.append(Mark(mark))

        async def client(name: int) -> None:
            for number in range(rounds):
                attempt = f"att_{life}_{name}_{number}"
                await acknowledged(accounts.admission(attempt, budgets, 5, 10), f"admitted {attempt}")
                if number % 3 == 0:
                    await desk(accounts.renewal(attempt, 6, accounts.LEASE, 8))
                if number % 7:  # some are under way when the power fails
                    await acknowledged(accounts.settlement(attempt, 7), f"settled {attempt}")

        await asyncio.gather(*(client(name) for name in range(CLIENTS)))
        database.close()
    run.rows = accounts.rows(store, "SELECT entry_id, attempt_id, cost FROM ledger ORDER BY entry_id")
    return run


@contextmanager
def connections(*pragmas: str) -> Iterator[None]:
    """What every connection of SQLAlchemy is told before its first transaction, after all that the store told it."""

    def tell(connection: Any) -> None:
        for pragma in pragmas:
            connection.connection.driver_connection.execute(f"PRAGMA {pragma}")

    event.listen(Engine, "engine_connect", tell)
    try:
        yield
    finally:
        event.remove(Engine, "engine_connect", tell)


def cuts(run: Run, chance: random.Random, *, dense: bool) -> Iterator[tuple[Image, set[str]]]:
    """Images with what had been acknowledged by then: all kinds around every sync, one kind at moments in between."""
    state, given = Disk(run.before), set(run.given)
    for operation in run.operations:
        at_sync = isinstance(operation, Sync)
        if at_sync:
            yield from ((image, set(given)) for image in (state.nothing(), state.anything(chance)))
        state.follow(operation)
        if isinstance(operation, Mark):
            given.add(operation.what)
        if at_sync or dense or chance.randrange(8) == 0:
            yield state.anything(chance), set(given)
        if at_sync and chance.randrange(4) == 0:
            yield state.everything(), set(given)
    yield state.nothing(), given


def chances() -> random.Random:
    # A seed of its own for each run would find more in a year, and nothing again tomorrow.
    return random.Random(20261121)  # noqa: S311 -- no secret


def judge(run: Run, folder: Path, *, dense: bool = False) -> Verdict:
    verdict = Verdict()
    for image, given in cuts(run, chances(), dense=dense):
        verdict.images += 1
        store = lay_out(image, folder)
        try:
            lost = examine(store, run, given, verdict)
        except (sqlite3.DatabaseError, ValueError) as error:
            verdict.faults.append(f"image {verdict.images} cannot be read: {error}")
            continue
        verdict.lost = max(verdict.lost, lost)
        if verdict.images % RESTARTED_EVERY == 0 and not verdict.faults and not lost:
            verdict.faults += asyncio.run(restarted(store))
    return verdict


def lay_out(image: Image, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)
    return folder / "gateway.db"


def examine(store: Path, run: Run, given: set[str], verdict: Verdict) -> int:
    """How many acknowledged rows are missing; everything else that is wrong goes into the verdict."""
    with closing(sqlite3.connect(store)) as connection:

        def sql(statement: str) -> list[tuple[Any, ...]]:
            return connection.execute(statement).fetchall()

        found = sql("PRAGMA integrity_check")
        if found != [("ok",)]:
            verdict.faults.append(f"image {verdict.images} is corrupt: {found[0]}")
            return 0
        books = history.Books.read(sql, watched=False)
        rows = sql("SELECT entry_id, attempt_id, cost FROM ledger ORDER BY entry_id")
    if rows != run.rows[: len(rows)]:
        verdict.faults.append(f"image {verdict.images}: the ledger is no beginning of what was written")
    verdict.faults += [*history.attempts_are_settled_once(books), *history.sums_agree(books)]
    settled = {entry.attempt for entry in books.entries}
    there = {f"settled {each}" for each in settled}
    there |= {f"admitted {each}" for each in settled | {each.attempt for each in books.open}}
    return len(given - there)


async def restarted(store: Path) -> list[str]:
    """The gateway's own view, after it has started on the image and settled what was under way."""
    database = Database(Sqlite(store))
    database.start()
    try:
        await accounts.Desk(database)(Sweep(accounts.LEASE + 1))
        found = await database.read(faults)
        running = accounts.rows(store, "SELECT attempt_id FROM attempts WHERE NOT swept")
    finally:
        database.close()
    return [*found, *(f"{attempt} is still open" for (attempt,) in running)]


async def recording(store: Path, *pragmas: str, rounds: int = FEWER_ROUNDS) -> Run:
    run = await work(store, *pragmas, rounds=rounds)
    checkpoints = [each for each in run.operations if isinstance(each, Sync) and each.file == "gateway.db"]
    assert len(checkpoints) > 3, "the database itself was hardly written: the images say nothing about checkpoints"
    return run


async def test_a_power_cut_loses_no_row_that_was_acknowledged(store: Path, tmp_path: Path) -> None:
    run = await recording(store)
    verdict = await asyncio.to_thread(judge, run, tmp_path / "image")
    assert verdict.images > 200
    assert verdict.faults == []
    assert verdict.lost == 0


async def test_a_power_cut_after_a_power_cut_loses_no_row_either(store: Path, tmp_path: Path) -> None:
    first = await recording(store)
    *_, (image, given) = itertools.islice(cuts(first, chances(), dense=False), 200)
    run = await work(lay_out(image, tmp_path / "second"), life="second", rounds=FEWER_ROUNDS // 2)
    run.given = frozenset(given)
    verdict = await asyncio.to_thread(judge, run, tmp_path / "image")
    assert verdict.images > 100
    assert verdict.faults == []
    assert verdict.lost == 0


async def test_a_store_starts_whenever_the_power_failed_at_its_first_starts(tmp_path: Path) -> None:
    run, store = Run({}), lay_out({}, tmp_path / "new")
    with disk.recorded(store.parent) as run.operations:
        for _ in range(2):  # the second makes a new log under the name of the one that the first deleted
            database = Database(Sqlite(store))
            database.start()
            await accounts.Desk(database)(Sweep(0))
            database.close()
    state = Disk({})
    for operation in run.operations:
        state.follow(operation)
    assert state.everything() == {store.name: store.read_bytes()}
    assert sum(isinstance(operation, SyncDirectory) for operation in run.operations) > 1
    for image, _ in cuts(run, chances(), dense=False):
        assert await restarted(lay_out(image, tmp_path / "image")) == []


@pytest.mark.long
async def test_a_power_cut_between_any_two_writes_loses_no_row_that_was_acknowledged(
    store: Path, tmp_path: Path
) -> None:
    verdict = await asyncio.to_thread(judge, await recording(store, rounds=ROUNDS), tmp_path / "image", dense=True)
    assert verdict.images > 2000
    assert verdict.faults == []
    assert verdict.lost == 0


async def test_the_harness_finds_the_loss_when_synchronous_is_lowered(store: Path, tmp_path: Path) -> None:
    run = await recording(store, "synchronous = NORMAL")
    verdict = await asyncio.to_thread(judge, run, tmp_path / "image")
    assert verdict.lost > 0, "acknowledged rows were in no synced write, and nobody noticed"
    assert verdict.faults == [], "NORMAL loses rows, but never the order of what it keeps"


async def test_the_harness_finds_the_damage_when_nothing_is_synced(store: Path, tmp_path: Path) -> None:
    run = await work(store, "synchronous = OFF")
    assert not [operation for operation in run.operations if isinstance(operation, Sync)]
    state, verdict, chance = Disk(run.before), Verdict(), chances()
    for number, operation in enumerate(run.operations):
        state.follow(operation)
        if number % 100 == 0:
            try:
                verdict.lost += examine(lay_out(state.anything(chance), tmp_path / "image"), run, set(), verdict)
            except (sqlite3.DatabaseError, ValueError) as error:
                verdict.faults.append(str(error))
    assert verdict.faults, "a store without a single fsync cannot survive a torn checkpoint"
