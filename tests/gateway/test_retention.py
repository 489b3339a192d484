"""What is too old goes, a little at a time, and every sum and every chain is what it was."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import OrderedDict
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert, update

from llmgw_gateway.call import Usage
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money import verification
from llmgw_gateway.money.posting import Books
from llmgw_gateway.money.rollup import Slice, remember, roll_up
from llmgw_gateway.money.usage import SUMMED_BY, Line, Span, total, usage
from llmgw_gateway.observe import change_chain, trail
from llmgw_gateway.observe.anchors import anchor
from llmgw_gateway.observe.anchors import write as write_anchor
from llmgw_gateway.observe.audit import Audit
from llmgw_gateway.observe.chain import Head, key_of
from llmgw_gateway.observe.changes import Author, Change, record
from llmgw_gateway.observe.entry import Entry
from llmgw_gateway.observe.spool import Spool
from llmgw_gateway.retention import SLICE_SECONDS, Pace, Removed, Retention, waits
from llmgw_gateway.settings import Settings, load
from llmgw_gateway.store.schema import audit_heads, persons
from tests.gateway import configuration
from tests.gateway.money import accounts, history
from tests.gateway.money.history import Attempt

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

BERLIN = ZoneInfo("Europe/Berlin")
DAY = 86_400_000
START = 1_780_000_000_000
OPEN_SPAN = Span(BERLIN)


def past(connection: Connection, batch: list[list[Attempt]]) -> list[None]:
    books = Books()
    for attempts in batch:
        for number, each in enumerate(attempts):
            history._write(connection, books, f"att_{number:04d}", each)
    return [None] * len(batch)


def attempts(first: int = START) -> list[Attempt]:
    """Two people, three models, estimates, late truths, operations of several attempts, over 90 days."""
    found = []
    for number in range(150):
        person, team = (("per_ada", "payments"), ("per_bob", ""))[number % 2]
        budgets = tuple(accounts.budget(level, 10**12) for level in ("organisation", "user"))
        one = Attempt(
            first + number * DAY * 90 // 150,
            person,
            model=("opus", "sonnet", "haiku")[number % 3],
            team=team,
            usage=Usage(number, 2 * number, 3, 4, 5),
            cost=None if number % 7 == 0 else number,
            late=number if number % 11 == 0 else None,
            hold=500,
            budgets=budgets,
        )
        found.append(one)
        if number % 5 == 0:
            again = replace(one, operation=f"req_of_att_{len(found) - 1:04d}", admitted=one.admitted + 1, late=None)
            found.append(again)
    return found


async def books(both: Database) -> dict[str, Any]:
    """Everything that may not change."""
    spans = (OPEN_SPAN, Span(BERLIN, date(2026, 6, 10), date(2026, 7, 3)), Span(BERLIN, until=date(2026, 6, 1)))

    def look(connection: Connection) -> dict[str, Any]:
        found: dict[str, list[Line]] = {
            f"{by} {number}": usage(connection, by, span) for by in SUMMED_BY for number, span in enumerate(spans)
        }
        of_ada = {by: usage(connection, by, OPEN_SPAN, "per_ada") for by in ("day", "model")}
        return found | of_ada | {"faults": list(verification.faults(connection))}

    return await both.read(look)


async def roll(both: Database, asked: Slice) -> int:
    """One transaction, and what is kept in mind of it."""
    done = await both.submit(roll_up, asked)
    assert done is not None
    assert isinstance(asked.seen, OrderedDict)
    remember(asked.seen, done.operations)
    return done.attempts


@pytest.mark.parametrize("most", [3, 50])
async def test_every_sum_is_what_it_was_and_the_ledger_is_right(column: Column, both: Database, most: int) -> None:
    await both.submit(past, attempts())
    before = await books(both)
    assert before["faults"] == []
    counters = column.sql("SELECT * FROM counters")
    cut = START + 60 * DAY
    asked = Slice(cut, BERLIN, OrderedDict(), most)
    rolled = 0
    while count := await roll(both, asked):
        rolled += count
        if rolled % 50 < most:
            assert (await books(both)) == before, f"after {rolled} attempts"
    assert (await books(both)) == before
    ((oldest,),) = column.sql("SELECT MIN(admitted_at) FROM ledger")
    whole_days = cut // DAY * DAY
    assert oldest >= whole_days
    assert rolled == sum(each.admitted < whole_days for each in attempts())
    assert column.sql("SELECT * FROM counters") == counters
    ((sums,),) = column.sql("SELECT COUNT(*) FROM ledger_sums")
    assert 0 < sums < rolled
    outcomes = await both.read(lambda connection: usage(connection, "outcome", OPEN_SPAN))
    assert "(removed)" in {line.label for line in outcomes}
    assert total(outcomes) == total(before["team 0"])


async def test_a_transaction_that_is_run_again_counts_its_operations_again(column: Column, both: Database) -> None:
    await both.submit(past, attempts())
    before = await books(both)
    asked = Slice(START + 60 * DAY, BERLIN, OrderedDict())

    def undone(connection: Connection, batch: list[Slice]) -> list[None]:
        roll_up(connection, batch)
        raise ValueError("the store takes it back")

    with pytest.raises(ValueError, match="takes it back"):
        await both.submit(undone, asked)
    while await roll(both, asked):
        pass
    assert (await books(both)) == before
    assert column.sql("SELECT COUNT(*) FROM ledger_sums") != [(0,)]


def test_a_slice_that_took_too_long_is_followed_by_a_smaller_one_and_grows_again_by_and_by() -> None:
    pace = Pace(50)
    assert pace.size == 5
    pace.took(SLICE_SECONDS / 100)
    assert pace.size == 10
    pace.took(SLICE_SECONDS * 5 / 4)
    assert pace.size == 8
    pace.took(1.0)
    assert pace.size == 5
    for _ in range(10):
        pace.took(0.0)
    assert pace.size == 50


async def test_what_was_settled_late_goes_with_its_day(column: Column, both: Database) -> None:
    """As it does after the replay of a journal: it stands behind entries that stay."""
    given = [replace(each, operation=each.operation or f"req_of_att_{n:04d}") for n, each in enumerate(attempts())]
    await both.submit(past, [*given[20:], *given[:20]])
    before = await books(both)
    asked = Slice(START + 20 * DAY, BERLIN, OrderedDict())
    while await roll(both, asked):
        pass
    ((oldest,),) = column.sql("SELECT MIN(day) FROM ledger")
    assert oldest >= asked.day
    assert await books(both) == before


async def test_a_ledger_whose_sums_were_altered_is_not_right(column: Column, both: Database) -> None:
    await both.submit(past, attempts())
    await both.submit(roll_up, Slice(START + 10 * DAY, BERLIN, OrderedDict()))
    column.sql("UPDATE ledger_sums SET cost = cost + 1")
    assert any("I2" in fault for fault in (await books(both))["faults"])


async def test_what_is_open_stays(column: Column, both: Database) -> None:
    await both.submit(past, attempts()[:3])
    column.sql("UPDATE ledger SET attempt_id = 'att_open' WHERE attempt_id = 'att_0000'")
    column.sql(
        "INSERT INTO attempts (attempt_id, operation_id, payer_id, admitted_at, counters, hold, hold_tokens, "
        "hold_weighted, ceiling, ceiling_tokens, ceiling_weighted, observed, observed_tokens, observed_weighted, "
        "lease_until, swept) "
        "SELECT 'att_open', operation_id, payer_id, admitted_at, counters, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, swept "
        "FROM ledger, "
        "(SELECT estimated AS swept FROM ledger LIMIT 1) AS any_one WHERE attempt_id = 'att_open' LIMIT 1"
    )
    while await roll(both, Slice(START + 10 * DAY, BERLIN, OrderedDict())):
        pass
    assert {name for (name,) in column.sql("SELECT attempt_id FROM ledger")} == {"att_open"}


def settings(tmp_path: Path, **days: int) -> Settings:
    document = configuration.good() | {"retention": days}
    return load(configuration.write(configuration.folder(tmp_path), document))


def change(connection: Connection, batch: list[int]) -> list[None]:
    for at in batch:
        record(
            connection, Change(Author("per_ada", "admin", f"chg_{at}"), at, "budget.grant", "budget", "b", None, None)
        )
    return [None] * len(batch)


async def test_old_changes_go_and_their_chain_holds(column: Column, both: Database, tmp_path: Path) -> None:
    now = int(both.now() * 1000)
    for at in (now - 100 * DAY, now - 99 * DAY, now - 5 * DAY, now):
        await both.submit(change, at)
    chosen = settings(tmp_path, changes_days=30)
    assert (await both.read(lambda connection: waits(connection, chosen, now))).changes == 2
    assert await Retention(both, chosen).round() == Removed(changes=2)
    assert await Retention(both, chosen).round() == Removed()
    assert column.sql("SELECT number FROM changes ORDER BY number") == [(3,), (4,), (5,)]
    assert await faults(both, chosen) == []
    column.sql("DELETE FROM changes WHERE number = 3")
    assert "was altered" in (await faults(both, chosen))[0]
    column.sql("UPDATE changes SET number = number + 100")
    assert await faults(both, chosen) != []


async def faults(both: Database, chosen: Settings) -> list[str]:
    keys = [key_of(chosen.audit_secrets()[0])]
    return await both.read(lambda connection: list(change_chain.faults(connection, {}, keys)))


async def test_other_times_begin_a_round(both: Database, tmp_path: Path) -> None:
    now = int(both.now() * 1000)
    for at in (now - 100 * DAY, now):
        await both.submit(change, at)
    retention = Retention(both, settings(tmp_path, changes_days=0))
    retention.start()
    try:
        for _ in range(2):  # the second waits for the one that the start has begun
            await retention.round()
        retention.follow(settings(tmp_path, changes_days=30))
        while await both.read(lambda connection: change_chain.up_to(connection, 1)):  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.02)
    finally:
        retention.stop()


async def test_who_was_not_seen_for_long_is_erased_unless_a_directory_or_a_ban_has_them(
    column: Column, both: Database, tmp_path: Path
) -> None:
    now = int(both.now() * 1000)
    seen = {"ada": now} | dict.fromkeys(("bob", "cid", "dan", "eve"), now - 500 * DAY) | {"fay": 0}

    def fill(connection: Connection, _batch: list[None]) -> list[None]:
        rows = [
            {
                "person_id": f"per_{name}",
                "issuer": "https://idp" if name != "dan" else "service-key",
                "subject": name,
                "name": f"{name.title()} X",
                "email": f"{name}@example.com",
                "groups": "[]",
                "first_seen": 0,
                "last_seen": last,
            }
            for name, last in seen.items()
        ]
        connection.execute(insert(persons), rows)
        known: dict[str, dict[str, Any]] = {
            "cid": {"source": "scim"},
            "eve": {"disabled_at": now - 400 * DAY},
            # Never there, and made inactive just now: whoever is let in again is who they are.
            "fay": {"source": "scim", "inactive_at": now, "changed_at": now},
        }
        for name, values in known.items():
            connection.execute(update(persons).where(persons.c.person_id == f"per_{name}").values(values))
        return [None]

    await both.submit(fill, None)
    chosen = settings(tmp_path, people_days=365)
    assert await Retention(both, chosen).round() == Removed(people=1)
    assert await Retention(both, chosen).round() == Removed()
    named = {person for (person,) in column.sql("SELECT person_id FROM persons WHERE email <> ''")}
    assert named == {"per_ada", "per_cid", "per_dan", "per_eve", "per_fay"}
    ((actor, after),) = column.sql("SELECT actor, after FROM changes WHERE action = 'person.erase'")
    assert (actor, json.loads(after)["sessions"]) == ("retention", 0)


async def test_a_file_goes_only_once_the_record_of_it_is_on_disk(both: Database, tmp_path: Path) -> None:
    chosen = settings(tmp_path, audit_days=30)
    path = chosen.path(chosen.audit.path)
    key = key_of(chosen.audit_secrets()[0])
    old = Spool(path, key, writer="w", most_bytes=1 << 20, now=lambda: both.now() - 90 * 86_400)
    old.open()
    old.turn()
    old.take([b'{"request_id":"req_1"}'])
    old.flush()
    old.close()
    audit = Audit(path, key, writer="w")
    audit.start()
    async with audit.entry(Entry("req_2", "GET", "/")):
        pass
    await audit.on_disk()
    (aside,) = set(trail.of(path)) - {path}
    before = path.read_bytes()
    # A disk that takes nothing more: the kernel refuses what would make a file longer.
    soft, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), most))
    try:
        round_ = asyncio.create_task(Retention(both, chosen, audit).round())
        while audit.unwritten == 0:  # noqa: ASYNC110 -- the trail tells nobody
            await asyncio.sleep(0)
        assert audit.close(seconds=0.1) == 1
        with pytest.raises(GatewayError, match="cannot write its audit trail"):
            await round_
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, most))
    assert path.read_bytes() == before
    assert aside.exists()


async def test_old_files_of_the_audit_trail_go_and_the_rest_is_whole(both: Database, tmp_path: Path) -> None:
    chosen = settings(tmp_path, audit_days=30)
    path = chosen.path(chosen.audit.path)
    key = key_of(chosen.audit_secrets()[0])
    now = both.now()
    for days in (90, 60, 10):
        spool = Spool(path, key, writer="w", most_bytes=1 << 20, now=lambda days=days: now - days * 86_400)  # type: ignore[misc] # bound at once
        spool.open()
        spool.turn()
        spool.take([b'{"request_id":"req_%d"}' % days])
        spool.flush()
        assert spool.head is not None
        await both.submit(write_anchor, anchor(key, spool.head, "w", 0))
        spool.close()
    audit = Audit(path, key, writer="w")
    audit.start()
    assert await Retention(both, chosen, audit).round() == Removed(audit=2)
    assert audit.head is not None
    await both.submit(write_anchor, anchor(key, audit.head, "w", 0))
    assert audit.close() == 0
    found = trail.files(trail.of(path))
    with_heads = await both.read(lambda connection: connection.execute(audit_heads.select()).all())
    told = [trail.Anchor(Head(r.chain, r.day, r.records, r.seal), r.writer, r.key_id, r.mac) for r in with_heads]
    report = trail.verify(found, [key], told, "w")
    assert report.faults == []
    assert report.notes == []
    assert [r["request_id"] for r in trail.records(found) if "request_id" in r] == ["req_10"]
