"""Money while the store is away: what is admitted, on what, and what becomes of it when the store is back."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import settings
from llmgw_gateway.call import Account, Usage
from llmgw_gateway.errors import StoreAwayError
from llmgw_gateway.money.holds import Money
from llmgw_gateway.money.journal import Journal, contents
from llmgw_gateway.money.posting import Books
from llmgw_gateway.money.standby import Standby
from llmgw_gateway.money.writeoff import WriteOff, allowances, write_off
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.store.database import Database
from tests.gateway import configuration
from tests.gateway.money import accounts
from tests.gateway.money.accounts import faults
from tests.gateway.money.test_holds import ACCOUNT, CALL, CATALOGUE, GRANT
from tests.gateway.store.interrupted import Interrupted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmgw_gateway.money.hold import Hold

CEILING = (4000 + 4096) * 2 + 1000 * 10
"""Of a call: all of its bytes and the provider's own as tokens, written to the dearest cache; all of its output."""
ALLOWANCE = 2 * CEILING + 5000
SEEN = Usage(input=500, output=100)
SEEN_COST = 500 + 10 * 100


@dataclass
class Replica:
    money: Money
    backend: Interrupted
    database: Database
    store: Path
    journal: Path

    @contextlib.asynccontextmanager
    async def call(self, account: Account = ACCOUNT) -> AsyncIterator[Hold]:
        """One that is dispatched and ends as it should."""
        async with self.money.admit(account, GRANT, CALL, "req_1") as hold:
            hold.outcome.dispatched = True
            hold.outcome.usage, hold.outcome.completeness = SEEN, "complete"
            yield hold

    async def ask(self, account: Account = ACCOUNT) -> bool:
        """Whether one is admitted."""
        try:
            async with self.call(account):
                return True
        except StoreAwayError:
            return False

    async def held(self) -> None:
        """Have an allowance of everything that was used."""
        assert await self.ask()
        await self.settled()
        await self.money.standby.tend()

    async def settled(self) -> None:
        while self.money._settling:
            await asyncio.wait(set(self.money._settling))

    async def written(self) -> None:
        """Wait until the journal has what was ended: that is off the response path."""
        await asyncio.gather(*self.money.standby._writing)

    def allowances(self) -> list[int]:
        found = accounts.rows(self.store, "SELECT hold FROM attempts WHERE attempt_id LIKE 'alw%' ORDER BY hold")
        return [hold for (hold,) in found]

    def draws(self) -> tuple[int, int]:
        """Begun and ended, as the journal has them."""
        found = contents(self.journal.read_bytes())
        return len(found.draws), len(found.ends)


ALLOWED: dict[str, Any] = {"when_store_away": "allowance", "allowance_usd": ALLOWANCE / 1e6}
USER: dict[str, Any] = {"level": "user", "limit_usd": 1} | ALLOWED


@pytest.fixture
async def replica(store: Path, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Replica]:
    budgets: list[dict[str, Any]] = getattr(request, "param", [USER])
    document = configuration.good() | {"store": {"path": store.name, "journal": "journal"}, "budgets": budgets}
    backend = Interrupted(store)
    database = Database(backend)
    database.start()
    money = Money(database, CATALOGUE, settings.load(configuration.write(configuration.folder(tmp_path), document)))
    await money.standby.start()
    yield Replica(money, backend, database, store, tmp_path / "journal")
    backend.state = "here"
    await money.drain()
    assert await database.read(faults) == []
    database.close()


async def test_running_calls_together_never_exceed_what_was_set_aside(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"
    async with replica.call() as first, replica.call() as second:
        assert (first.remaining, second.remaining) == (ALLOWANCE - CEILING, ALLOWANCE - 2 * CEILING)
        assert not await replica.ask()
        assert replica.draws() == (2, 0)
    # What they did not cost can be used again, down to where a ceiling does not fit any more.
    admitted = 2
    while await replica.ask():
        admitted += 1
    left = ALLOWANCE - admitted * SEEN_COST
    assert left < CEILING <= left + SEEN_COST
    replica.backend.state = "here"
    await replica.money.standby.tend()
    assert accounts.counters(replica.store).popitem()[1] == ((admitted + 1) * SEEN_COST, ALLOWANCE, 0)
    assert len([name for name in accounts.entries(replica.store) if name[0].startswith("att")]) == admitted + 1


@pytest.mark.parametrize(
    "replica",
    [
        [USER, {"level": "organisation", "limit_usd": 1}],
        [USER, {"level": "user", "limit_tokens": 10**9}],
        [],
        [USER, {"level": "organisation", "limit_usd": 1, "when_store_away": "allowance", "allowance_usd": 0.001}],
    ],
    indirect=True,
    ids=["one is closed", "one is in tokens", "no budget at all", "one has too little"],
)
async def test_every_budget_has_to_cover_a_call(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"
    assert not await replica.ask()
    assert replica.draws() == (0, 0)


@pytest.mark.parametrize("replica", [[USER, {"level": "organisation", "limit_usd": 1} | ALLOWED]], indirect=True)
async def test_a_shared_budget_is_drawn_on_by_everybody(replica: Replica) -> None:
    others = [Account(f"per_{number}") for number in range(3)]
    for account in others:
        assert await replica.ask(account)
    await replica.money.standby.tend()
    assert replica.allowances() == [ALLOWANCE] * 4
    replica.backend.state = "away"
    async with replica.call(others[0]), replica.call(others[1]):
        assert not await replica.ask(others[2])
    assert await replica.ask(others[2])


async def test_somebody_who_was_not_here_before_has_nothing_set_aside(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"
    assert not await replica.ask(Account("per_2"))


async def test_a_call_that_still_runs_when_the_store_is_back_is_entered_when_it_ends(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"
    async with replica.call():
        assert await replica.ask()
        await replica.written()
        replica.backend.state = "here"
        await replica.money.standby.tend()
        assert replica.draws() == (2, 1)  # the journal is kept: one is not in the ledger
        assert replica.allowances() == [ALLOWANCE - SEEN_COST]
    await replica.written()
    await replica.money.standby.tend()
    assert replica.draws() == (0, 0)
    assert await replica.ask()
    await replica.money.standby.tend()
    assert replica.allowances() == [ALLOWANCE]  # a whole one again


async def test_an_answer_that_was_lost_is_no_second_charge(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "deaf"  # the admission is committed, and nobody learns of it
    assert await replica.ask()
    assert replica.draws()[0] == 1
    await replica.money.standby.tend()  # entered, and nobody learns of that either
    replica.backend.state = "here"
    await replica.money.standby.tend()
    await replica.settled()
    costs = [cost for cost, _ in accounts.entries(replica.store).values()]
    assert sorted(cost for cost in costs if cost) == [SEEN_COST, SEEN_COST]


async def test_a_call_that_is_not_known_to_have_ended_well_is_charged_what_was_held(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"
    async with replica.call() as hold:
        hold.outcome.completeness = "none"
        hold.outcome.usage = Usage()
    replica.backend.state = "here"
    await replica.money.standby.tend()
    assert accounts.entries(replica.store)[hold.attempt_id, "settlement"] == (hold.amounts[0], True)


async def test_what_cannot_be_entered_is_charged_as_unknown_by_the_next_life(replica: Replica, tmp_path: Path) -> None:
    await replica.held()
    replica.backend.state = "away"
    async with replica.call() as hold:
        hold.outcome.usage = Usage(input=2**63)  # a number that no database takes
        assert await replica.ask()
    await replica.written()
    left = tmp_path / "left"
    left.write_bytes(replica.journal.read_bytes())
    replica.backend.state = "here"
    other = Standby(replica.database, Books().post, Journal(left))
    await other.start()
    costs = accounts.entries(replica.store)
    assert costs.pop((hold.attempt_id, "settlement")) == (hold.amounts[0], True)
    assert sorted(cost for cost, _ in costs.values() if cost) == [SEEN_COST, SEEN_COST]
    await other.close()


async def test_what_cannot_be_entered_is_charged_as_unknown(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"
    async with replica.call() as hold:
        hold.outcome.usage = Usage(input=2**63)
        assert await replica.ask()
    replica.backend.state = "here"
    await replica.money.standby.tend()
    assert set(replica.money.standby._draws) == {hold.attempt_id}  # the others are not held up by it
    await replica.written()
    await replica.money.standby.tend()
    assert replica.draws() == (0, 0)
    assert accounts.entries(replica.store)[hold.attempt_id, "settlement"] == (hold.amounts[0], True)


async def test_calls_that_cost_nothing_do_not_fill_memory_and_disk_for_ever(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmgw_gateway.money.standby.MOST_DRAWN", 3)
    await replica.held()
    replica.backend.state = "away"
    admitted = 0
    with contextlib.suppress(StoreAwayError):
        while admitted < 10:
            async with replica.call() as hold:
                hold.outcome.refused_upstream = True
            admitted += 1
    assert admitted == 3
    replica.backend.state = "here"
    await replica.money.standby.tend()
    replica.backend.state = "away"
    assert await replica.ask()


async def test_allowances_are_given_back_together(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        assert await replica.ask(Account(f"per_{number}"))
    await replica.settled()
    await replica.money.standby.tend()
    commits = []
    real = replica.backend.transact

    def transact(*given: Any) -> Any:
        commits.append(given)
        return real(*given)

    monkeypatch.setattr(replica.backend, "transact", transact)
    await replica.money.standby._give_back(replica.money.standby._idle())
    assert (replica.allowances(), len(commits)) == ([], 1)


async def test_what_is_handed_in_together_is_limited_and_the_rest_is_not_tried_while_the_store_is_away(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A journal of 50,000 calls, handed in at once, would wait longer than anything may for the store.
    monkeypatch.setattr("llmgw_gateway.money.standby.MOST_AT_ONCE", 2)
    for number in range(5):
        assert await replica.ask(Account(f"per_{number}"))
    await replica.settled()
    await replica.money.standby.tend()
    commits = []
    real = replica.backend.transact

    def transact(run: Any, deadline: float) -> Any:
        commits.append(len(run.args[0]))
        return real(run, deadline)

    monkeypatch.setattr(replica.backend, "transact", transact)
    replica.backend.state = "away"
    with pytest.raises(StoreAwayError):
        await replica.money.standby._give_back(replica.money.standby._idle())
    assert commits == [2]
    replica.backend.state = "here"
    await replica.money.standby._give_back([])
    assert (replica.allowances(), commits) == ([], [2, 2, 2, 1])


async def test_a_caller_who_left_before_the_journal_was_synced_pays_nothing(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"

    async def leave() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]  # this one
        await replica.ask()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(leave())
    replica.backend.state = "here"
    await replica.money.standby.tend()
    assert replica.money.standby._draws == {}
    (spent,) = {spent for spent, _, _ in accounts.counters(replica.store).values()}
    assert spent == SEEN_COST


async def test_damage_in_the_journal_keeps_what_was_set_aside_until_it_is_written_off(replica: Replica) -> None:
    await replica.held()
    replica.backend.state = "away"
    assert await replica.ask()
    assert await replica.ask()
    await replica.written()
    lines = replica.journal.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"att_", b"atx_")
    damaged = replica.journal.with_name("damaged")
    damaged.write_bytes(b"".join(lines))
    replica.backend.state = "here"
    journal = Journal(damaged)
    standby = Standby(replica.database, Books().post, journal)
    await standby.start()
    assert sum(replica.allowances()) == ALLOWANCE - SEEN_COST  # the call that can be read; of the other nobody knows
    assert journal.replica not in contents(b"".join(lines)).replica
    await standby.close()
    (held,) = await replica.database.read(allowances)
    now = int(replica.database.now() * 1000)
    item = WriteOff(held.allowance_id, "the disk", operator("ada@here"), now)
    assert await replica.database.submit(write_off, item) == ALLOWANCE - SEEN_COST
    assert await replica.database.submit(write_off, item) == ALLOWANCE - SEEN_COST  # an answer that was lost
    assert (
        await replica.database.submit(write_off, WriteOff(held.allowance_id, "again", operator("bob@here"), now))
        is None
    )
    assert (
        await replica.database.submit(write_off, WriteOff("att_1", "no allowance", operator("bob@here"), now)) is None
    )
    # The living replica has not noticed: what it still enters was charged with the rest.
    await replica.money.standby.tend()
    await replica.money.standby.tend()
    assert {spent for spent, _, _ in accounts.counters(replica.store).values()} == {SEEN_COST + ALLOWANCE}


async def test_a_disk_that_refuses_closes_the_gateway_while_the_store_is_away(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.held()
    replica.backend.state = "away"

    def refuse(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmgw_gateway.money.journal.os.fsync", refuse)
    assert not await replica.ask()
    assert not await replica.ask()
    replica.backend.state = "here"
    assert await replica.ask()
    await replica.money.standby.tend()
    assert replica.allowances() == []  # nothing can be drawn on it


@pytest.mark.parametrize("replica", [[{"level": "user", "limit_usd": 0.06} | ALLOWED]], indirect=True)
async def test_an_allowance_that_does_not_fit_is_not_taken(replica: Replica) -> None:
    async with replica.call():  # holds so much that the rest of the limit is less than the allowance
        await replica.money.standby.tend()
        assert replica.allowances() == []


async def test_an_allowance_whose_commit_lands_after_it_was_given_up_is_not_held_for_ever(replica: Replica) -> None:
    assert await replica.ask()
    await replica.settled()
    replica.backend.state = "late"
    await replica.money.standby.tend()  # asks for one, and is told that nobody knows
    await replica.money.standby.tend()  # gives that back, and takes another
    await replica.database.submit(replica.backend.land, None)
    assert replica.allowances() == [ALLOWANCE]
