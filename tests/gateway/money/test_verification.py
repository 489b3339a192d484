"""Each way in which books can be wrong is found and named; a busy store is found right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, create_engine

from llmgw_gateway.money.verification import faults
from tests.gateway.money import accounts, history
from tests.gateway.money.history import Attempt

if TYPE_CHECKING:
    from pathlib import Path

USER = accounts.budget("user/per_ada//month", 10**9)
PAST = [
    Attempt(0, cost=10, budgets=(USER,)),
    Attempt(0, cost=None, outcome="client_gone", hold=20, budgets=(USER,)),
    Attempt(0, late=30, budgets=(USER,)),
    Attempt(0, cost=0, outcome="released", budgets=(USER,)),
]
OPEN = """INSERT INTO attempts
          SELECT 'att_open', operation_id, person_id, model, target, price_version, 5, 5, 0, 0, 0, 0
          FROM attempts LIMIT 1"""
HELD = "UPDATE counters SET held = held + 5"


def found(store: Path) -> list[str]:
    engine = create_engine(f"sqlite:///{store}", poolclass=NullPool)
    with engine.connect() as connection:
        return faults(connection)


def tamper(store: Path, *statements: str) -> None:
    with history.writing(store) as connection:
        for statement in statements:
            assert connection.exec_driver_sql(statement).rowcount > 0, statement


def test_books_with_every_kind_of_past_are_right(store: Path) -> None:
    history.write(store, PAST)
    assert accounts.counters(store) == {(USER.budget, "2026-11"): (60, 0, 0)}
    assert found(store) == []


def test_what_runs_is_no_fault(store: Path) -> None:
    history.write(store, PAST)
    tamper(store, OPEN, "INSERT INTO holds SELECT 'att_open', counter_id, 5, 7 FROM counters", HELD)
    assert found(store) == []


def test_what_a_swept_attempt_may_still_cost_is_no_held_money(store: Path) -> None:
    history.write(store, PAST)
    tamper(store, "INSERT INTO holds SELECT 'att_0001', counter_id, 0, 7 FROM counters")
    assert found(store) == []


FAULTS = {
    "spent": (["UPDATE counters SET spent = spent + 1"], "I2: user/per_ada//month 2026-11: spent 61, but its charges"),
    "held": ([HELD], "I2: user/per_ada//month 2026-11: held 5, but its open holds sum to 0"),
    "no entry": (["DELETE FROM ledger WHERE attempt_id = 'att_0003'"], "I1: attempt att_0003 is settled, but has no"),
    "reopened": (
        ["UPDATE attempts SET settled = 0 WHERE attempt_id = 'att_0000'"],
        "I1: there is a settlement of attempt att_0000, that is still open",
    ),
    "never admitted": (
        ["DELETE FROM attempts WHERE attempt_id = 'att_0003'"],
        "I1: there is a settlement of attempt att_0003, that was never admitted",
    ),
    "correction of nothing": (
        ["UPDATE ledger SET kind = 'correction' WHERE attempt_id = 'att_0003'"],
        "I1: attempt att_0003 has a correction, but no settlement",
    ),
    "strange kind": (
        ["UPDATE ledger SET kind = 'gift' WHERE attempt_id = 'att_0003'"],
        "I1: attempt att_0003 has an entry of the unknown kind 'gift'",
    ),
    "hold left": (
        ["INSERT INTO holds SELECT 'att_0000', counter_id, 5, 0 FROM counters", HELD],
        "I2: attempt att_0000 is settled, but still holds 5 in user/per_ada//month 2026-11",
    ),
    "charged otherwise": (
        ["UPDATE ledger SET cost = 11 WHERE attempt_id = 'att_0000'"],
        "I2: user/per_ada//month 2026-11 was charged 10 for the settlement of attempt att_0000, but its entry says 11",
    ),
    "charged for nothing": (
        ["DELETE FROM ledger WHERE kind = 'correction'"],
        "for the correction of attempt att_0002, but there is no such entry",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_a_sentence_that_names_its_place(store: Path, case: str) -> None:
    history.write(store, PAST)
    statements, sentence = FAULTS[case]
    tamper(store, *statements)
    assert any(sentence in fault for fault in found(store)), found(store)
    assert all("\n" not in fault for fault in found(store))
