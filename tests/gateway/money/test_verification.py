"""Each way in which books can be wrong is found and named; a busy store is found right."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select

from llmgw_gateway.money.verification import ROWS_AT_ONCE
from llmgw_gateway.store.schema import ledger
from tests.gateway.money import accounts, history
from tests.gateway.money.accounts import faults
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
          SELECT 'att_open', operation_id, payer_id, admitted_at, counters, 5, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0
          FROM ledger WHERE attempt_id = 'att_0000'"""
SWEPT = OPEN.replace("att_open", "att_0001").replace("0, 0, 0, 0, 0\n", "0, 0, 0, 0, 1\n").replace("12", "27")
HELD = "UPDATE counters SET held = held + 5"
EXPOSED = "UPDATE counters SET exposure = exposure + 7"


def found(store: Path) -> list[str]:
    with history.reading(store) as connection:
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
    tamper(store, OPEN, HELD, EXPOSED)
    assert found(store) == []


def test_what_a_swept_attempt_may_still_cost_is_no_held_money(store: Path) -> None:
    history.write(store, PAST)
    tamper(store, SWEPT, EXPOSED)
    assert found(store) == []


FAULTS = {
    "spent": (["UPDATE counters SET spent = spent + 1"], "I2: user/per_ada//month 2026-11: spent is 61, but its rows"),
    "held": ([HELD], "I2: user/per_ada//month 2026-11: held is 5, but its rows sum to 0"),
    "exposure": ([EXPOSED], "I2: user/per_ada//month 2026-11: exposure is 7, but its rows sum to 0"),
    "open with an entry": (
        [OPEN.replace("att_open", "att_0000")],
        "I1: there is a settlement of attempt att_0000, which is still open",
    ),
    "swept without an entry": ([SWEPT.replace("att_0001", "att_9")], "I1: attempt att_9 was swept, but its entries"),
    "correction of nothing": (
        ["UPDATE ledger SET kind = 'correction' WHERE attempt_id = 'att_0003'"],
        "I1: attempt att_0003 has a correction, but no settlement",
    ),
    "strange kind": (
        ["UPDATE ledger SET kind = 'gift' WHERE attempt_id = 'att_0003'"],
        "I1: attempt att_0003 has an entry of the unknown kind 'gift'",
    ),
    "charged otherwise": (["UPDATE ledger SET cost = 11 WHERE attempt_id = 'att_0000'"], "but its rows sum to 61"),
    "a counter gone": (
        ["DELETE FROM counters"],
        "I2: the settlement of attempt att_0000 is counted in counter 1, which is not there",
    ),
    "a counter gone under what runs": (
        [OPEN.replace("admitted_at, counters", "admitted_at, '[7]'")],
        "I2: attempt att_open is counted in counter 7, which is not there",
    ),
    "no list of counters": (
        ["UPDATE ledger SET counters = 'none' WHERE attempt_id = 'att_0002' AND kind = 'correction'"],
        "I2: the correction of attempt att_0002 has no list of counters",
    ),
    "an entry gone": (["DELETE FROM ledger WHERE kind = 'correction'"], "spent is 60, but its rows sum to"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_a_sentence_that_names_its_place(store: Path, case: str) -> None:
    history.write(store, PAST)
    statements, sentence = FAULTS[case]
    tamper(store, *statements)
    assert any(sentence in fault for fault in found(store)), found(store)
    assert all("\n" not in fault for fault in found(store))


def peak(store: Path) -> int:
    """Bytes that the examination needs at a time."""
    tracemalloc.start()
    try:
        assert found(store) == []
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_memory_that_it_needs_does_not_grow_with_the_ledger(store: Path) -> None:
    history.write(store, [Attempt(0, cost=0, budgets=(USER,))])
    peaks = []
    for rows in (2 * ROWS_AT_ONCE, 20 * ROWS_AT_ONCE):
        with history.writing(store) as connection:
            (one,) = connection.execute(select(ledger).where(ledger.c.attempt_id == "att_0000")).mappings()
            entry = {name: value for name, value in one.items() if name != "entry_id"}
            connection.execute(insert(ledger), [entry | {"attempt_id": f"att_{rows}_{n}"} for n in range(rows)])
        peaks.append(peak(store))
    assert peaks[1] < 1.2 * peaks[0], peaks
