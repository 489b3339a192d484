"""The invariants of money (design, section 5) on a real store, against a model, after every step of any history."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

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
from llmgw_gateway.money import admission, ledger
from llmgw_gateway.money.admission import Admitted, Renewal
from llmgw_gateway.money.decide import Denial
from llmgw_gateway.money.ledger import Settlement
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.money import accounts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from llmgw_gateway.money.decide import BudgetRef

LEASES = "SELECT attempt_id, lease_until, observed FROM attempts"
LIMITS = {"organisation": (400, 60), "team": (250, 0), "user": (120, 40)}
amounts = st.integers(0, 60)
seconds = st.integers(0, 40_000)
asked_for = st.tuples(amounts, amounts, st.integers(0, 3), st.sampled_from(["2026-11", "2026-12"]))


@dataclass
class Attempt:
    """What the model knows of an attempt that was admitted."""

    asked: admission.Admission
    lease_until: int
    observed: int = 0
    charged: list[int] = field(default_factory=list)
    """What the settlement cost and, after it, the correction."""
    swept: bool = False
    remainder: int = 0
    """What it may still cost beyond the estimate that the sweep charged."""

    @property
    def settled(self) -> bool:
        return bool(self.charged)


class Books(RuleBasedStateMachine):
    """Anything that can happen to attempts, done to the store and to the model."""

    empty_store: Path

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._store = Path(shutil.copy(self.empty_store, Path(self._folder.name) / "gateway.db"))
        self._runner = asyncio.Runner()
        self._database = Database(Sqlite(self._store))
        self._runner.run(self._start())
        self.now = 0
        self.attempts: dict[str, Attempt] = {}

    async def _start(self) -> None:
        self._database.start()

    def teardown(self) -> None:
        self._database.close()
        self._runner.close()
        self._folder.cleanup()

    def settle(self, *batch: Settlement) -> list[bool]:
        """Settle together, as callers at the same moment do."""

        async def run() -> list[bool]:
            return list(await asyncio.gather(*(self._database.submit(ledger.settle, each) for each in batch)))

        return self._runner.run(run())

    def sums(self, key: tuple[str, str]) -> tuple[int, int, int]:
        """Spent, held and exposure of a counter, from the attempts alone."""
        mine = [
            each
            for each in self.attempts.values()
            if key in {(budget.budget, budget.period_key) for budget in each.asked.budgets}
        ]
        still = [each.asked for each in mine if not each.settled]
        return (
            sum(sum(each.charged) for each in mine),
            sum(asked.hold for asked in still),
            sum(asked.ceiling - asked.hold for asked in still) + sum(each.remainder for each in mine),
        )

    def expected(self, asked: admission.Admission) -> Admitted | Denial:
        """What the design says to an admission now."""
        left = []
        for budget in asked.budgets:
            spent, held, exposure = self.sums((budget.budget, budget.period_key))
            if spent + held + asked.hold > budget.limit:
                return Denial(budget, spent, held, exposed=False)
            if spent + held + exposure + asked.ceiling > budget.limit + budget.overshoot:
                return Denial(budget, spent, held, exposed=True)
            left.append(budget.limit - spent - held - asked.hold)
        return Admitted(min(left) if left else None)

    @initialize(names=st.permutations(sorted(LIMITS)))
    def order_levels(self, names: list[str]) -> None:
        self.names = names

    @rule(wanted=st.lists(asked_for, max_size=4))
    def admit(self, wanted: Sequence[tuple[int, int, int, str]]) -> None:
        """Up to four at once: decided as if one after another."""
        batch: list[admission.Admission] = []
        for hold, beyond, levels, period in wanted:
            budgets: list[BudgetRef] = [
                accounts.budget(name, *LIMITS[name], period_key=period) for name in self.names[:levels]
            ]
            name = f"att_{len(self.attempts)}_{len(batch)}"
            batch.append(accounts.admission(name, budgets, hold, hold + beyond, self.now))

        async def one(asked: admission.Admission) -> Admitted | Denial:
            return await self._database.submit(admission.admit, asked)

        async def run() -> list[Admitted | Denial]:
            return await asyncio.gather(*map(one, batch))

        for asked, answer in zip(batch, self._runner.run(run()), strict=True):
            assert answer == self.expected(asked)
            if isinstance(answer, Admitted):
                self.attempts[asked.attempt_id] = Attempt(asked, asked.lease_until)
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
        assert isinstance(self._runner.run(self._database.submit(admission.admit, asked)), Admitted)

    @precondition(known)
    @rule(data=st.data(), exact=st.booleans(), twice=st.booleans(), seen=st.integers(0, 1000))
    def settle_one(self, data: st.DataObject, exact: bool, twice: bool, seen: int) -> None:  # noqa: FBT001 -- drawn
        """A settlement: the first, a replay, or the truth about what was swept."""
        attempt = self.pick(data)
        cost = min(seen, attempt.asked.ceiling)
        settlement = Settlement(
            attempt.asked.attempt_id,
            "ok",
            self.now,
            cost=cost if exact else None,
            usage=Usage(output=cost),
            observed=cost,
        )
        answers = self.settle(*([settlement] * (2 if twice else 1)))
        changed = not attempt.settled or (exact and attempt.swept and len(attempt.charged) == 1)
        assert answers == [changed, False][: len(answers)]
        if not attempt.settled:
            attempt.charged.append(cost if exact else max(attempt.asked.hold, attempt.observed, cost))
        elif changed:
            attempt.charged.append(cost - attempt.charged[0])
            attempt.remainder = 0

    @rule(data=st.data())
    def settle_a_stranger(self, data: st.DataObject) -> None:
        """What was never admitted is never charged."""
        cost = data.draw(st.none() | amounts)
        assert self.settle(Settlement("att_stranger", "ok", self.now, cost=cost)) == [False]

    @precondition(known)
    @rule(data=st.data(), seen=amounts, lease=seconds)
    def renew(self, data: st.DataObject, seen: int, lease: int) -> None:
        attempt = self.pick(data)
        observed = min(max(seen, attempt.observed), attempt.asked.ceiling)
        renewal = Renewal(attempt.asked.attempt_id, observed, self.now + lease)
        self._runner.run(self._database.submit(admission.renew, renewal))
        if not attempt.settled:
            attempt.observed, attempt.lease_until = observed, self.now + lease

    @rule(passes=seconds)
    def sweep(self, passes: int) -> None:
        """I3: no hold outlives its lease; and what nobody knows is never refunded."""
        self.now += passes
        swept = self._runner.run(self._database.submit(ledger.sweep, self.now))
        lost = [each for each in self.attempts.values() if not each.settled and each.lease_until < self.now]
        assert swept == len(lost)
        for attempt in lost:
            attempt.charged.append(max(attempt.asked.hold, attempt.observed))
            attempt.swept = True
            # The truth may still come: until it cannot any more, the worst case stays counted.
            attempt.remainder = max(0, attempt.asked.ceiling - attempt.charged[0])
        for attempt in self.attempts.values():
            if attempt.settled and attempt.asked.now < self.now - ledger.TRUTH_MILLISECONDS:
                attempt.remainder = 0

    @rule()
    def restart(self) -> None:
        self._database.close()
        self._database = Database(Sqlite(self._store))
        self._runner.run(self._start())

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        assert self._runner.run(self._database.read(ledger.verify)) == []
        kept = accounts.counters(self._store)
        assert kept == {key: self.sums(key) for key in kept}  # I2, and exposure besides
        charged = {
            (name, kind): cost
            for name, attempt in self.attempts.items()
            for kind, cost in zip(("settlement", "correction"), attempt.charged, strict=False)
        }
        assert {key: cost for key, (cost, _) in accounts.entries(self._store).items()} == charged  # I1
        for (name, _), (spent, held, exposure) in kept.items():  # I5
            limit, overshoot = LIMITS[name]
            assert spent + held + exposure <= limit + overshoot
            assert min(spent, held, exposure) >= 0
        leases = {name: seen for name, *seen in accounts.rows(self._store, LEASES)}
        assert leases == {name: [each.lease_until, each.observed] for name, each in self.attempts.items()}
        holding = {attempt for attempt, *_ in accounts.rows(self._store, "SELECT DISTINCT attempt_id FROM holds")}
        assert holding == {
            name for name, each in self.attempts.items() if each.asked.budgets and (not each.settled or each.remainder)
        }

    def pick(self, data: st.DataObject) -> Attempt:
        return self.attempts[data.draw(st.sampled_from(sorted(self.attempts)))]


# Not "explain": it repeats a failing history for minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def test_any_history_keeps_the_invariants(empty_store: Path) -> None:
    Books.empty_store = empty_store
    run_state_machine_as_test(
        Books, settings=settings(max_examples=40, stateful_step_count=25, deadline=None, phases=PHASES)
    )


async def test_two_hundred_admissions_at_once_admit_exactly_what_fits(database: Database, store: Path) -> None:
    # BerriAI/litellm#18730, #34732: check and record were two operations, and everybody passed the check.
    budgets = [accounts.budget("organisation", 10_000), accounts.budget("user", 37 * 50 + 49)]
    answers = await asyncio.gather(
        *(database.submit(admission.admit, accounts.admission(f"att_{n}", budgets, 50)) for n in range(200))
    )
    admitted = [answer for answer in answers if isinstance(answer, Admitted)]
    assert len(admitted) == 37
    assert sorted(answer.remaining or 0 for answer in admitted) == [49 + 50 * n for n in range(37)]
    assert {answer.budget.budget for answer in answers if isinstance(answer, Denial)} == {"user"}
    assert accounts.counters(store) == {
        ("organisation", "2026-11"): (0, 37 * 50, 0),
        ("user", "2026-11"): (0, 37 * 50, 0),
    }
    assert await database.read(ledger.verify) == []


async def test_the_worst_case_of_all_that_runs_stays_within_the_published_bound(
    database: Database, store: Path
) -> None:
    # Each holds 1 and may cost 30: money for 100, an overshoot of 60, so five run at once, however many ask.
    budgets = [accounts.budget("user", 100, 60)]
    answers = await asyncio.gather(
        *(database.submit(admission.admit, accounts.admission(f"att_{n}", budgets, 1, 30)) for n in range(200))
    )
    admitted = [n for n, answer in enumerate(answers) if isinstance(answer, Admitted)]
    assert len(admitted) == 5
    assert all(answer.exposed for answer in answers if isinstance(answer, Denial))
    await asyncio.gather(*(database.submit(ledger.settle, Settlement(f"att_{n}", "ok", 1, cost=30)) for n in admitted))
    assert accounts.counters(store) == {("user", "2026-11"): (150, 0, 0)}


async def test_a_lease_holds_to_its_last_millisecond(database: Database) -> None:
    asked = accounts.admission("att_1", [accounts.budget("user", 100)], 50)
    await database.submit(admission.admit, asked)
    assert await database.submit(ledger.sweep, asked.lease_until) == 0
    assert await database.submit(ledger.sweep, asked.lease_until + 1) == 1


async def test_what_was_observed_before_a_crash_is_charged_when_it_is_more_than_was_held(
    database: Database, store: Path
) -> None:
    asked = accounts.admission("att_1", [accounts.budget("user", 100, 100)], 10, 60)
    await database.submit(admission.admit, asked)
    await database.submit(admission.renew, Renewal("att_1", 40, 1))
    assert await database.submit(ledger.sweep, 2) == 1
    assert accounts.counters(store) == {("user", "2026-11"): (40, 0, 20)}
    assert accounts.entries(store) == {("att_1", "settlement"): (40, True)}


async def test_the_truth_about_a_swept_attempt_stays_within_the_published_bound_too(
    database: Database, store: Path
) -> None:
    # I5: an attempt whose end nobody saw may still turn out to have cost its ceiling.
    budgets = [accounts.budget("user", 100, 90)]
    await database.submit(admission.admit, accounts.admission("att_1", budgets, 10, 100))
    assert await database.submit(ledger.sweep, accounts.LEASE + 1) == 1
    second = await database.submit(admission.admit, accounts.admission("att_2", budgets, 90, 180))
    await database.submit(ledger.settle, Settlement("att_1", "ok", 1, cost=100))
    if isinstance(second, Admitted):
        await database.submit(ledger.settle, Settlement("att_2", "ok", 1, cost=180))
    spent, _, _ = accounts.counters(store)["user", "2026-11"]
    assert spent <= 100 + 90


async def test_a_refused_admission_leaves_no_trace(database: Database, store: Path) -> None:
    budgets = [accounts.budget("organisation", 100), accounts.budget("user", 10)]
    assert isinstance(await database.submit(admission.admit, accounts.admission("att_1", budgets, 50)), Denial)
    assert set(accounts.counters(store).values()) == {(0, 0, 0)}
    assert accounts.rows(store, "SELECT * FROM attempts") == []
    assert await database.submit(ledger.settle, Settlement("att_1", "ok", 1, cost=5)) is False


async def test_a_corrected_attempt_has_the_tokens_that_were_really_used(database: Database, store: Path) -> None:
    # The correction carries the difference in money; a sum over the ledger has to be right for tokens, too.
    await database.submit(admission.admit, accounts.admission("att_1", [accounts.budget("user", 100)], 50))
    seen = Settlement("att_1", ledger.LEASE_EXPIRED, 1, cost=None, usage=Usage(input=10, output=3), observed=20)
    await database.submit(ledger.settle, seen)
    truth = Settlement("att_1", "ok", 2, cost=60, usage=Usage(input=10, output=40))
    assert await database.submit(ledger.settle, truth) is True
    assert accounts.rows(store, "SELECT SUM(cost), SUM(input_tokens), SUM(output_tokens) FROM ledger") == [(60, 10, 40)]


async def test_the_truth_is_not_lost_when_it_is_committed_together_with_the_estimate(
    database: Database, store: Path
) -> None:
    await database.submit(admission.admit, accounts.admission("att_1", [accounts.budget("user", 100)], 50))

    def both(connection: Connection, batch: list[Settlement]) -> list[bool]:
        return ledger.settle(connection, [Settlement("att_1", "lease_expired", 1, cost=None), *batch])[1:]

    assert await database.submit(both, Settlement("att_1", "ok", 1, cost=20)) is True
    assert accounts.counters(store) == {("user", "2026-11"): (20, 0, 0)}


@pytest.mark.parametrize("fault", ["spent = spent + 1", "held = held - 1"])
async def test_a_counter_that_is_wrong_by_one_is_found(database: Database, fault: str) -> None:
    def tamper(connection: Connection, batch: list[None]) -> list[None]:
        connection.exec_driver_sql(f"UPDATE counters SET {fault}")  # noqa: S608 -- our own text
        return batch

    await database.submit(admission.admit, accounts.admission("att_1", [accounts.budget("user", 100)], 50))
    assert await database.read(ledger.verify) == []
    await database.submit(tamper, None)
    (found,) = await database.read(ledger.verify)
    assert found.startswith("I2: user 2026-11")


async def test_an_attempt_that_is_closed_without_an_entry_is_found(database: Database) -> None:
    def tamper(connection: Connection, batch: list[None]) -> list[None]:
        connection.exec_driver_sql("UPDATE attempts SET settled = 1")
        return batch

    await database.submit(admission.admit, accounts.admission("att_1", [], 50))
    await database.submit(tamper, None)
    assert await database.read(ledger.verify) == ["I1: attempt att_1 is settled, but has no entry"]
