"""Allowances and the journal (design, section 5): every dispatch is charged once, whatever crashes."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmgw_gateway.errors import StoreAwayError, StoreError
from llmgw_gateway.money.items import Admitted, Draw, Replay, Settlement, Sweep
from llmgw_gateway.money.journal import Journal
from llmgw_gateway.money.posting import Books
from llmgw_gateway.money.standby import Standby
from llmgw_gateway.store.database import Database
from tests.gateway.money import accounts
from tests.gateway.money.accounts import faults
from tests.gateway.store.interrupted import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmgw_gateway.money.items import Item
    from llmgw_gateway.money.levels import BudgetRef
    from tests.gateway.columns import Column
    from tests.gateway.money.accounts import Desk

LIMIT, OVERSHOOT = 1000, 200
LATER = 3 * 3600 * 1000
PERIOD = "2026-11"
LEVELS = st.sampled_from([("user",), ("team",), ("user", "team"), ("user", "closed"), ()])
AMOUNTS = st.integers(0, 40)


def level(name: str, period: str = PERIOD) -> BudgetRef:
    allowance = {"user": 120, "team": 200, "closed": 0}[name]
    return accounts.budget(name, LIMIT, OVERSHOOT, period, allowance=allowance, thresholds=(10, 50))


@dataclass
class Call:
    """One that was dispatched. Micro-USD."""

    levels: tuple[str, ...]
    hold: int
    ceiling: int
    life: int
    drawn: bool
    cost: int | None = None
    """None: it runs, or its process died."""
    over: bool = False
    known: bool = False
    """Whether how it ended is certain to be durable."""


class Outages(RuleBasedStateMachine):
    """A replica whose store comes and goes, and which is killed, at any moment."""

    folder: Path
    fresh: Callable[[], Path]

    def __init__(self) -> None:
        super().__init__()
        self.store = self.fresh()
        self.backend = Interrupted(self.store)
        self.runner = asyncio.Runner()
        self.life = 0
        self.count = 0
        self.calls: dict[str, Call] = {}
        self.late: list[Item] = []
        """What callers keep trying to hand in while the store is away."""
        self.alive = False

    @initialize()
    def begin(self) -> None:
        async def begin() -> None:
            self.database = Database(self.backend)
            self.database.start()

        self.runner.run(begin())
        self.journal_file = self.folder / f"{self.store.name}-0"
        self.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def post(self, item: Item) -> Any:
        return await self.database.submit(self.books, item)

    @precondition(lambda self: not self.alive)
    @rule()
    def start(self) -> None:
        self.books = Books().post
        self.journal = Journal(self.journal_file)
        self.standby = Standby(self.database, self.books, self.journal)
        before = self.journal_file.read_bytes() if self.journal_file.exists() else b""
        try:
            self.run(self.standby.start())
        except StoreError:
            assert self.backend.state != "here"
            self.run(self.journal.close())
            assert self.journal_file.read_bytes() == before
        else:
            self.alive = True
            self.standby.used([level("user"), level("team")])
            self.run(self.standby.tend())

    @precondition(lambda self: self.alive)
    @rule(
        torn=st.sampled_from([b"", b"0", b"00000000 {}", b"\0\0\0\n", b'12345678 {"record":"draw"']),
        twice=st.booleans(),
    )
    def kill(self, torn: bytes, twice: bool) -> None:  # noqa: FBT001 -- drawn
        """What is on the disk at this moment is all that the next life has."""
        before = self.journal_file.read_bytes()
        self.life += 1
        self.alive = False
        self.late.clear()
        self.run(self.journal.close())
        if not twice:  # otherwise what was under way is still written; both may happen
            self.journal_file.write_bytes(before)
        with self.journal_file.open("ab") as file:
            file.write(torn)

    @rule(state=st.sampled_from(["here", "away", "deaf"]))
    def turn(self, state: Any) -> None:
        self.backend.state = state

    @precondition(lambda self: self.alive)
    @rule(calls=st.lists(st.tuples(LEVELS, AMOUNTS, AMOUNTS), min_size=1, max_size=6), away=st.booleans())
    def work(self, calls: list[tuple[tuple[str, ...], int, int]], away: bool) -> None:  # noqa: FBT001 -- drawn
        """Some calls, often without the store: that is what this is about."""
        if away:
            self.backend.state = "away"
        for levels, hold, more in calls:
            self.call(levels, hold, more)

    def call(self, levels: tuple[str, ...], hold: int, more: int) -> None:
        """As `Money` admits one."""
        self.count += 1
        budgets = [level(name) for name in levels]
        asked = accounts.admission(f"att_{self.count}", budgets, hold, hold + more)

        async def admit() -> tuple[str, bool]:
            try:
                answer = await self.post(asked)
            except StoreAwayError:
                # Never dispatched, but it may have been admitted: given back, or swept when the process dies before.
                self.late.append(accounts.settlement(asked.attempt_id, 0, outcome="released"))
                self.calls[asked.attempt_id] = Call(levels, hold, hold + more, self.life, drawn=False, over=True)
                again = accounts.admission(f"{asked.attempt_id}_drawn", budgets, hold, hold + more)
                return (again.attempt_id, True) if await self.standby.draw(again) else ("", True)
            self.standby.used(budgets)
            return (asked.attempt_id, False) if isinstance(answer, Admitted) else ("", False)

        name, drawn = self.run(admit())
        if name:
            assert not drawn or levels
            assert not drawn or "closed" not in levels
            self.calls[name] = Call(levels, hold, hold + more, self.life, drawn)

    @precondition(lambda self: self.alive and any(self.running()))
    @rule(data=st.data(), known=st.booleans())
    def end(self, data: st.DataObject, known: bool) -> None:  # noqa: FBT001 -- drawn
        name = data.draw(st.sampled_from(self.running()))
        call = self.calls[name]
        cost = data.draw(st.integers(0, call.ceiling))
        call.over, call.cost = True, cost if known else max(call.hold, cost)
        item = accounts.settlement(name, cost if known else None, observed=cost)

        async def end() -> None:
            if call.drawn:
                assert name in self.standby
                self.standby.end(item)
            else:
                self.late.append(item)

        self.run(end())

    def running(self) -> list[str]:
        return [name for name, call in self.calls.items() if not call.over and call.life == self.life]

    @precondition(lambda self: self.alive)
    @rule()
    def beat(self) -> None:
        self.run(self.standby.tend())
        while self.late:
            try:
                self.run(self.post(self.late[0]))
            except StoreAwayError:
                return
            self.late.pop(0)

    @precondition(lambda self: self.alive)
    @rule()
    def stop(self) -> None:
        """An orderly end; what did not end is lost all the same."""
        self.run(self.standby.close())
        for call in self.calls.values():
            call.known |= call.over and call.life == self.life
        self.alive = False
        self.late.clear()
        self.life += 1

    @invariant()
    def the_books_are_right(self) -> None:
        state, self.backend.state = self.backend.state, "here"
        assert self.run(self.database.read(faults)) == []
        for spent, held, exposure in accounts.counters(self.store).values():
            assert spent + held <= LIMIT or exposure < OVERSHOOT
            assert spent + held + exposure <= LIMIT + OVERSHOOT
        self.backend.state = state

    def teardown(self) -> None:
        """At last the store is there and the process ends: every dispatch is charged exactly once, nothing is held."""
        try:
            self.backend.state = "here"
            if not self.alive:
                self.start()
            self.stop()
            self.start()
            self.stop()
            self.run(self.post(Sweep(LATER)))
            self._check()
        finally:
            self.database.close()
            self.runner.close()

    def _check(self) -> None:
        assert self.run(self.database.read(faults)) == []
        charged = {name: cost for (name, _), (cost, _) in accounts.entries(self.store).items()}
        spent = dict.fromkeys(("user", "team", "closed"), 0)
        for name, call in self.calls.items():
            if call.drawn:
                # How it ended may have died with its process; never that it was dispatched.
                possible = {call.cost} if call.known else {call.cost, call.hold} if call.over else {call.hold}
                assert charged[name] in possible
            for each in call.levels:
                spent[each] += charged.get(name, 0)
        for (budget, _), (counted, held, _) in accounts.counters(self.store).items():
            assert (counted, held) == (spent[budget], 0)


def test_whatever_goes_away_every_dispatch_is_charged_once_and_within_bounds(empty_store: Path, tmp_path: Path) -> None:
    numbers = itertools.count()

    class Here(Outages):
        folder = tmp_path
        fresh = staticmethod(lambda: Path(shutil.copy(empty_store, tmp_path / f"{next(numbers)}.db")))

    run_state_machine_as_test(Here, settings=settings(max_examples=60, stateful_step_count=20))


def drawn(name: str, allowances: tuple[str, ...], cost: int | None, hold: int = 30) -> Replay:
    """A call that the person and the team pay for."""
    places = (("user", PERIOD), ("team", PERIOD))
    draw = Draw(name, accounts.paying(name), places, allowances, accounts.every(hold), accounts.every(60))
    return Replay(draw, accounts.settlement(name, cost, observed=20))


async def set_aside(post: Desk) -> tuple[str, str]:
    """An allowance of each, of 100."""
    for name in ("user", "team"):
        asked = accounts.admission(f"alw_{name}", [level(name)], 100)
        assert isinstance(await post(asked), Admitted)
    return ("alw_user", "alw_team")


async def test_a_replay_moves_the_charge_out_of_what_was_set_aside_and_is_done_once(
    both: Database, post: Desk, column: Column
) -> None:
    allowances = await set_aside(post)
    replay = drawn("att_1", allowances, 45)
    assert await asyncio.gather(*(post(replay) for _ in range(3))) == [True, False, False]
    assert await post(replay) is False
    assert accounts.counters(column) == {("user", PERIOD): (45, 55, 0), ("team", PERIOD): (45, 55, 0)}
    assert accounts.entries(column) == {("att_1", "settlement"): (45, False)}
    assert await both.read(faults) == []


async def test_a_call_whose_end_is_not_known_is_charged_what_was_held_or_seen(post: Desk, column: Column) -> None:
    allowances = await set_aside(post)
    assert await post(drawn("att_1", allowances, None)) is True
    assert await post(drawn("att_2", allowances, None, hold=10)) is True
    assert accounts.entries(column) == {("att_1", "settlement"): (30, True), ("att_2", "settlement"): (20, True)}


async def test_what_was_written_off_is_not_charged_again(both: Database, post: Desk, column: Column) -> None:
    allowances = await set_aside(post)
    assert await post(Settlement("alw_team", "written_off", 5, charge=None)) is True
    assert await post(drawn("att_1", allowances, 45)) is True
    assert accounts.counters(column) == {("user", PERIOD): (45, 55, 0), ("team", PERIOD): (100, 0, 0)}
    assert accounts.entries(column)["att_1", "settlement"] == (45, False)
    assert await both.read(faults) == []
