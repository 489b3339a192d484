"""The invariants of money (design, section 5) on a real store, against a model, after every step of any history."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llmgw_gateway.call import Usage
from llmgw_gateway.money.amounts import UNITS
from llmgw_gateway.money.items import TRUTH_MILLISECONDS, Admission, Admitted, Item, Settlement, Sweep
from llmgw_gateway.money.levels import BudgetRef, Denial
from llmgw_gateway.money.posting import Books as RealBooks
from llmgw_gateway.store.database import Database
from tests.gateway.columns import SqliteColumn
from tests.gateway.money import accounts
from tests.gateway.money.accounts import Desk, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from tests.gateway.columns import Column

LEASES = "SELECT attempt_id, lease_until, observed, hold, swept FROM attempts"
EVENTS = "SELECT budget, period_key, percent, COUNT(*) FROM events GROUP BY budget, period_key, percent"
LIMITS = {"organisation": (400, 60), "team": (250, 0), "user": (120, 40)}
"""In money. The team's is counted in tokens and the person's in weighted tokens: two and three for each micro-USD."""
SCALE = {"organisation": 1, "team": 2, "user": 3}
THRESHOLDS = (10, 50, 100)
amounts = st.integers(0, 60)
seconds = st.integers(0, 40_000)
asked_for = st.tuples(amounts, amounts, st.integers(0, 3), st.sampled_from(["2026-11", "2026-12"]))


def level(name: str, period: str) -> BudgetRef:
    """A budget of the test, in its own unit."""
    limit, overshoot = (amount * SCALE[name] for amount in LIMITS[name])
    unit = UNITS[SCALE[name] - 1]
    return accounts.budget(name, limit, overshoot, period_key=period, unit=unit, thresholds=THRESHOLDS)


@dataclass
class Attempt:
    """What the model knows of an attempt that was admitted. Amounts in money; other units are multiples."""

    asked: Admission
    hold: int
    ceiling: int
    lease_until: int
    observed: int = 0
    charged: list[int] = field(default_factory=list)
    """What the settlement cost and, after it, the correction."""
    swept_at: int | None = None
    remainder: int = 0
    """What it may still cost beyond the estimate that the sweep charged."""

    @property
    def settled(self) -> bool:
        return bool(self.charged)


class Books(RuleBasedStateMachine):
    """Anything that can happen to attempts, done to the store and to the model."""

    columns: Callable[[], Column]

    def __init__(self) -> None:
        super().__init__()
        self._store = self.columns()
        self._runner = asyncio.Runner()
        self._open()
        self.now = 0
        self.attempts: dict[str, Attempt] = {}
        self.highest: dict[tuple[str, str], int] = {}
        """The most that each counter ever had spent, in its unit."""

    def _open(self) -> None:
        self._database = Database(self._store.backend())
        self._desk = Desk(self._database)

        async def start() -> None:
            self._database.start()

        self._runner.run(start())

    def teardown(self) -> None:
        self._database.close()
        self._runner.close()

    def post(self, *batch: Item) -> list[Any]:
        """Hand in together, as callers at the same moment do."""

        async def run() -> list[Any]:
            return list(await asyncio.gather(*(self._desk(each) for each in batch)))

        return self._runner.run(run())

    def sums(self, key: tuple[str, str]) -> tuple[int, int, int]:
        """Spent, held and exposure of a counter, from the attempts alone."""
        mine = [
            each
            for each in self.attempts.values()
            if key in {(budget.budget, budget.period_key) for budget in each.asked.budgets}
        ]
        still = [each for each in mine if not each.settled]
        scale = SCALE[key[0]]
        return (
            scale * sum(sum(each.charged) for each in mine),
            scale * sum(each.hold for each in still),
            scale * (sum(each.ceiling - each.hold for each in still) + sum(each.remainder for each in mine)),
        )

    def expected(self, asked: Admission, hold: int, ceiling: int) -> Admitted | Denial:
        """What the design says to an admission now."""
        left = []
        for budget in asked.budgets:
            spent, held, exposure = self.sums((budget.budget, budget.period_key))
            scale = SCALE[budget.budget]
            if spent + held + scale * hold > budget.limit:
                return Denial(budget, spent, held, "limit")
            if spent + held + exposure + scale * ceiling > budget.limit + budget.overshoot:
                return Denial(budget, spent, held, "exposure")
            if budget.unit == "usd":
                left.append(budget.limit - spent - held - hold)
        return Admitted(accounts.every(hold), accounts.every(ceiling), 1, min(left) if left else None)

    @initialize(names=st.permutations(sorted(LIMITS)))
    def order_levels(self, names: list[str]) -> None:
        self.names = names

    @rule(wanted=st.lists(asked_for, max_size=4))
    def admit(self, wanted: Sequence[tuple[int, int, int, str]]) -> None:
        """Up to four at once: decided as if one after another."""
        batch: list[tuple[Admission, int, int]] = []
        for hold, beyond, levels, period in wanted:
            budgets = [level(name, period) for name in self.names[:levels]]
            name = f"att_{len(self.attempts)}_{len(batch)}"
            batch.append((accounts.admission(name, budgets, hold, hold + beyond, self.now), hold, hold + beyond))
        answers = self.post(*(asked for asked, *_ in batch))
        for (asked, hold, ceiling), answer in zip(batch, answers, strict=True):
            assert answer == self.expected(asked, hold, ceiling)
            if isinstance(answer, Admitted):
                self.attempts[asked.attempt_id] = Attempt(asked, hold, ceiling, asked.lease_until)
                for budget in asked.budgets:  # I4: at this commit, for all levels
                    spent, held, _ = self.sums((budget.budget, budget.period_key))
                    assert spent + held <= budget.limit

    def known(self) -> bool:
        return bool(self.attempts)

    @precondition(known)
    @rule(data=st.data())
    def admit_again(self, data: st.DataObject) -> None:
        """I6: the same id changes nothing, even with other amounts, settled or not."""
        known = self.pick(data)
        asked = accounts.admission(known.asked.attempt_id, known.asked.budgets, 7, 9, self.now)
        (answer,) = self.post(asked)
        assert isinstance(answer, Admitted)

    @precondition(known)
    @rule(data=st.data(), exact=st.booleans(), twice=st.booleans(), seen=st.integers(0, 1000))
    def settle_one(self, data: st.DataObject, exact: bool, twice: bool, seen: int) -> None:  # noqa: FBT001 -- drawn
        """A settlement: the first, a replay, or the truth about what was swept."""
        attempt = self.pick(data)
        cost = min(seen, attempt.ceiling)
        settlement = accounts.settlement(
            attempt.asked.attempt_id,
            cost if exact else None,
            now=self.now,
            usage=Usage(output=cost),
            observed=cost,
        )
        swept = attempt.swept_at is not None
        forgotten = swept and self.gone(attempt)
        answers = self.post(*([settlement] * (2 if twice else 1)))
        says_more = exact or (attempt.settled and cost > attempt.charged[0])
        changed = not attempt.settled or (says_more and swept and len(attempt.charged) == 1 and not forgotten)
        assert answers == [changed, False][: len(answers)]
        if not attempt.settled:
            attempt.charged.append(cost if exact else max(attempt.hold, attempt.observed, cost))
        elif changed:
            attempt.charged.append(cost - attempt.charged[0])
            attempt.remainder = 0

    def gone(self, attempt: Attempt) -> bool:
        """Whether the store no longer waits for the truth about a swept attempt."""
        query = "SELECT COUNT(*) FROM attempts WHERE attempt_id = ?"
        return accounts.rows(self._store, query, attempt.asked.attempt_id) == [(0,)]

    @rule(data=st.data())
    def settle_a_stranger(self, data: st.DataObject) -> None:
        """What was never admitted is never charged."""
        cost = data.draw(st.none() | amounts)
        assert self.post(accounts.settlement("att_stranger", cost, now=self.now)) == [False]

    @precondition(known)
    @rule(data=st.data(), seen=amounts, lease=seconds, hold=st.integers(0, 150))
    def renew(self, data: st.DataObject, seen: int, lease: int, hold: int) -> None:
        """A lease is extended; a hold grows where every limit has room, and otherwise stays."""
        attempt = self.pick(data)
        observed = min(max(seen, attempt.observed), attempt.ceiling)
        renewal = accounts.renewal(attempt.asked.attempt_id, observed, self.now + lease, hold)
        wanted = max(attempt.hold, min(hold, attempt.ceiling))
        more = wanted - attempt.hold
        fits = all(
            sum(self.sums((b.budget, b.period_key))[:2]) + SCALE[b.budget] * more <= b.limit
            for b in attempt.asked.budgets
        )
        assert self.post(renewal) == [not attempt.settled and (fits or not more)]
        if not attempt.settled:
            attempt.observed, attempt.lease_until = observed, self.now + lease
            attempt.hold = wanted if fits else attempt.hold

    @rule(passes=seconds | st.integers(TRUTH_MILLISECONDS, 2 * TRUTH_MILLISECONDS))
    def sweep(self, passes: int) -> None:
        """I3: no hold outlives its lease; and what nobody knows is never refunded."""
        self.now += passes
        lost = [each for each in self.attempts.values() if not each.settled and each.lease_until < self.now]
        assert self.post(Sweep(self.now)) == [len(lost)]
        for attempt in self.attempts.values():
            # The truth may come for a while; after that the worst case is no longer counted.
            if attempt.swept_at is not None and attempt.swept_at < self.now - TRUTH_MILLISECONDS:
                attempt.remainder = 0
        for attempt in lost:
            attempt.charged.append(max(attempt.hold, attempt.observed))
            attempt.swept_at = self.now
            attempt.remainder = max(0, attempt.ceiling - attempt.charged[0])

    @rule()
    def restart(self) -> None:
        self._database.close()
        self._open()

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        assert self._runner.run(self._database.read(faults)) == []
        kept = accounts.counters(self._store)
        assert kept == {key: self.sums(key) for key in kept}  # I2, and exposure besides
        charged = {
            (name, kind): cost
            for name, attempt in self.attempts.items()
            for kind, cost in zip(("settlement", "correction"), attempt.charged, strict=False)
        }
        assert {key: cost for key, (cost, _) in accounts.entries(self._store).items()} == charged  # I1
        for (name, _), (spent, held, exposure) in kept.items():  # I5
            assert spent + held + exposure <= sum(LIMITS[name]) * SCALE[name]
            assert min(spent, held, exposure) >= 0

    @invariant()
    def what_is_open_is_in_the_store_as_it_was_last_renewed(self) -> None:
        found = {name: row for name, *row in accounts.rows(self._store, LEASES)}
        still = {name: each for name, each in self.attempts.items() if not each.settled}
        assert {name: row for name, row in found.items() if not row[-1]} == {
            name: [each.lease_until, each.observed, each.hold, 0] for name, each in still.items()
        }
        waiting = {name for name, row in found.items() if row[-1]}
        assert waiting >= {name for name, each in self.attempts.items() if each.remainder}
        assert waiting <= {
            name for name, each in self.attempts.items() if each.swept_at is not None and len(each.charged) == 1
        }

    @invariant()
    def every_threshold_is_announced_once_and_only_when_it_was_reached(self) -> None:
        for key, (spent, *_) in accounts.counters(self._store).items():
            self.highest[key] = max(self.highest.get(key, 0), spent)
        found = {(name, period, percent): count for name, period, percent, count in accounts.rows(self._store, EVENTS)}
        reached = {
            (name, period, percent)
            for (name, period), spent in self.highest.items()
            for percent in THRESHOLDS
            if spent * 100 >= percent * LIMITS[name][0] * SCALE[name]
        }
        assert found == dict.fromkeys(reached, 1)

    def pick(self, data: st.DataObject) -> Attempt:
        return self.attempts[data.draw(st.sampled_from(sorted(self.attempts)))]


# Not "explain": it repeats a failing history for minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def test_any_history_keeps_the_invariants(columns: Callable[[], Column]) -> None:
    # On a server each history costs a database, and each look at it a connection.
    histories = 40 if isinstance(columns(), SqliteColumn) else 12
    Books.columns = staticmethod(columns)
    run_state_machine_as_test(
        Books, settings=settings(max_examples=histories, stateful_step_count=25, deadline=None, phases=PHASES)
    )


async def test_two_hundred_admissions_at_once_admit_exactly_what_fits(
    both: Database, post: Desk, column: Column
) -> None:
    # BerriAI/litellm#18730, #34732: check and record were two operations, and everybody passed the check.
    budgets = [accounts.budget("organisation", 10_000), accounts.budget("user", 37 * 50 + 49)]
    answers = await asyncio.gather(*(post(accounts.admission(f"att_{n}", budgets, 50)) for n in range(200)))
    admitted = [answer for answer in answers if isinstance(answer, Admitted)]
    assert len(admitted) == 37
    assert sorted(answer.remaining or 0 for answer in admitted) == [49 + 50 * n for n in range(37)]
    assert {answer.budget.budget for answer in answers if isinstance(answer, Denial)} == {"user"}
    assert accounts.counters(column) == {
        ("organisation", "2026-11"): (0, 37 * 50, 0),
        ("user", "2026-11"): (0, 37 * 50, 0),
    }
    assert await both.read(faults) == []


async def test_the_worst_case_of_all_that_runs_stays_within_the_published_bound(post: Desk, column: Column) -> None:
    # Each holds 1 and may cost 30: money for 100, an overshoot of 60, so five run at once, however many ask.
    budgets = [accounts.budget("user", 100, 60)]
    answers = await asyncio.gather(*(post(accounts.admission(f"att_{n}", budgets, 1, 30)) for n in range(200)))
    admitted = [n for n, answer in enumerate(answers) if isinstance(answer, Admitted)]
    assert len(admitted) == 5
    assert all(answer.reason == "exposure" for answer in answers if isinstance(answer, Denial))
    await asyncio.gather(*(post(accounts.settlement(f"att_{n}", 30, now=1)) for n in admitted))
    assert accounts.counters(column) == {("user", "2026-11"): (150, 0, 0)}


async def test_a_lease_holds_to_its_last_millisecond(post: Desk) -> None:
    asked = accounts.admission("att_1", [accounts.budget("user", 100)], 50)
    await post(asked)
    assert await post(Sweep(asked.lease_until)) == 0
    assert await post(Sweep(asked.lease_until + 1)) == 1


async def test_what_was_observed_before_a_crash_is_charged_when_it_is_more_than_was_held(
    post: Desk, column: Column
) -> None:
    asked = accounts.admission("att_1", [accounts.budget("user", 100, 100)], 10, 60)
    await post(asked)
    await post(accounts.renewal("att_1", 40, 1))
    assert await post(Sweep(2)) == 1
    assert accounts.counters(column) == {("user", "2026-11"): (40, 0, 20)}
    assert accounts.entries(column) == {("att_1", "settlement"): (40, True)}


async def test_the_truth_about_a_swept_attempt_stays_within_the_published_bound_too(post: Desk, column: Column) -> None:
    # I5: an attempt whose end nobody saw may still turn out to have cost its ceiling.
    budgets = [accounts.budget("user", 100, 90)]
    await post(accounts.admission("att_1", budgets, 10, 100))
    assert await post(Sweep(accounts.LEASE + 1)) == 1
    second = await post(accounts.admission("att_2", budgets, 90, 180))
    await post(accounts.settlement("att_1", 100, now=1))
    if isinstance(second, Admitted):
        await post(accounts.settlement("att_2", 180, now=1))
    spent, _, _ = accounts.counters(column)["user", "2026-11"]
    assert spent <= 100 + 90


async def test_a_refused_admission_leaves_no_trace(post: Desk, column: Column) -> None:
    budgets = [accounts.budget("organisation", 100), accounts.budget("user", 10)]
    assert isinstance(await post(accounts.admission("att_1", budgets, 50)), Denial)
    assert set(accounts.counters(column).values()) == {(0, 0, 0)}
    assert accounts.rows(column, "SELECT * FROM attempts") == []
    assert await post(accounts.settlement("att_1", 5, now=1)) is False


async def test_a_corrected_attempt_has_the_tokens_that_were_really_used(post: Desk, column: Column) -> None:
    # The correction carries the difference in money; a sum over the ledger has to be right for tokens, too.
    await post(accounts.admission("att_1", [accounts.budget("user", 100)], 50))
    usage = Usage(input=10, output=3)
    await post(accounts.settlement("att_1", None, swept=True, usage=usage, observed=20))
    truth = accounts.settlement("att_1", 60, now=2, usage=Usage(input=10, output=40))
    assert await post(truth) is True
    assert accounts.rows(column, "SELECT SUM(cost), SUM(input_tokens), SUM(output_tokens) FROM ledger") == [
        (60, 10, 40)
    ]


async def test_the_truth_is_not_lost_when_it_is_committed_together_with_the_estimate(
    both: Database, post: Desk, column: Column
) -> None:
    await post(accounts.admission("att_1", [accounts.budget("user", 100)], 50))

    def together(connection: Connection, batch: list[Settlement]) -> list[Any]:
        estimate = accounts.settlement("att_1", None, swept=True)
        return RealBooks().post(connection, [estimate, *batch])[1:]

    assert await both.submit(together, accounts.settlement("att_1", 20)) is True
    assert accounts.counters(column) == {("user", "2026-11"): (20, 0, 0)}


@pytest.mark.parametrize("fault", ["spent = spent + 1", "held = held - 1"])
async def test_a_counter_that_is_wrong_by_one_is_found(both: Database, post: Desk, fault: str) -> None:
    def tamper(connection: Connection, batch: list[None]) -> list[None]:
        connection.exec_driver_sql(f"UPDATE counters SET {fault}")  # noqa: S608 -- our own text
        return batch

    await post(accounts.admission("att_1", [accounts.budget("user", 100)], 50))
    assert await both.read(faults) == []
    await both.submit(tamper, None)
    (found,) = await both.read(faults)
    assert found.startswith("I2: user 2026-11")
