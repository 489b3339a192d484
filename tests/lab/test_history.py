"""The judge itself: a history that is right passes, and each fault that it is there for is found."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.history import Answered, Books, Bound, Dispatched, Entry, History, Moment, Open, Price
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

PRICE = Price(
    input=2_000_000, output=10_000_000, cache_read=200_000, cache_write_5m=2_500_000, cache_write_1h=4_000_000
)
USAGE = Usage(100, 10)
COST = 300
NAME = "user/ada 2026-11"


def entry(attempt: str = "att_1", **more: Any) -> Entry:
    made = Entry(
        attempt, "settlement", f"req_of_{attempt}", (1,), USAGE, (COST, 110, 150), estimated=False, outcome="ok"
    )
    return dataclasses.replace(made, **more)


def moment(one: int, two: int, three: int, what: str = "counter", subject: str = NAME) -> Moment:
    return Moment(what, subject, () if what == "counter" else (1,), (one, two, three))


def good() -> tuple[History, Books]:
    """One call, answered, billed and settled; another one runs."""
    clients = [Answered("one", 200, "req_of_att_1", whole=True), Answered("two", 402, "req_9")]
    history = History(PRICE, {"user/": Bound(1000, 500)}, clients=clients, calls=[Dispatched("one", USAGE)])
    moments = [
        moment(0, 0, 0),
        moment(200, 100, 100, "admitted", "att_1"),
        moment(0, 200, 300),
        moment(COST, 110, 150, "entry", "att_1"),
        moment(COST, 0, 0),
        moment(50, 1, 1, "admitted", "att_2"),
        moment(COST, 50, 50),
    ]
    still = Open("att_2", (1,), swept=False, hold=(50, 1, 1), ceiling=(100, 2, 2))
    return history, Books([entry()], [still], {1: (NAME, 0, (COST, 50, 50))}, moments)


def spoilt(change: Callable[[History, Books], object]) -> list[str]:
    history, books = good()
    change(history, books)
    return history.faults(books)


def test_a_history_that_is_right_has_no_fault() -> None:
    assert spoilt(lambda _history, _books: None) == []


def test_a_commit_may_hold_an_admission_and_a_settlement_that_is_dearer_than_its_hold() -> None:
    """The admission was within the limit, the settlement came after it: the limit is passed, but by no admission."""

    def together(history: History, books: Books) -> None:
        history.bounds = {"user/": Bound(320, 500)}
        books.moments[4:] = [moment(50, 1, 1, "admitted", "att_2"), moment(COST, 50, 50)]

    assert spoilt(together) == []

    def apart(history: History, _books: Books) -> None:
        history.bounds = {"user/": Bound(320, 500)}

    assert spoilt(apart) == [f"I4: moment 6: {NAME} admitted up to 350 of 320"]


def test_the_price_is_a_sum_rounded_up_once() -> None:
    assert PRICE.cost(USAGE) == COST
    assert PRICE.cost(Usage(cache_read=1, cache_write_5m=1)) == 3
    assert PRICE.cost(Usage()) == 0


def without_entry(_history: History, books: Books) -> None:
    books.entries.clear()


def twice(_history: History, books: Books) -> None:
    books.entries.append(entry())


def correction_of_the_exact(_history: History, books: Books) -> None:
    books.entries.append(entry(kind="correction", charge=(0, 0, 0)))


def smaller_estimate(_history: History, books: Books) -> None:
    books.entries[:] = [
        entry(estimated=True, outcome="lease_expired"),
        entry(kind="correction", charge=(-1, 0, 0), estimated=True),
    ]


def another_payer(_history: History, books: Books) -> None:
    books.entries[:] = [entry(estimated=True, outcome="lease_expired"), entry(kind="correction", operation="req_other")]


def released_with_a_charge(_history: History, books: Books) -> None:
    books.entries[0] = entry(outcome="released")


def open_and_settled(_history: History, books: Books) -> None:
    books.open[0] = dataclasses.replace(books.open[0], attempt="att_1")


def swept_without_entry(_history: History, books: Books) -> None:
    books.open[0] = dataclasses.replace(books.open[0], swept=True)


def never_admitted(_history: History, books: Books) -> None:
    del books.moments[1]


def admitted_twice(_history: History, books: Books) -> None:
    books.moments.append(books.moments[1])


def rewritten(_history: History, books: Books) -> None:
    books.moments.append(moment(0, 0, 0, "changed", "att_1"))


def wrong_by_one(_history: History, books: Books) -> None:
    books.counters[1] = (NAME, 0, (COST + 1, 50, 50))


def hold_forgotten(_history: History, books: Books) -> None:
    books.counters[1] = (NAME, 0, (COST, 0, 50))


def above_the_limit_for_a_moment(_history: History, books: Books) -> None:
    books.moments[2] = moment(0, 1001, 0)


def above_the_bound_for_a_moment(_history: History, books: Books) -> None:
    books.moments[2] = moment(0, 200, 1301)


def below_zero_for_a_moment(_history: History, books: Books) -> None:
    books.moments[4] = moment(COST, -1, 0)


def another_cost(_history: History, books: Books) -> None:
    books.entries[0] = entry(charge=(COST - 1, 110, 150))


def other_tokens(_history: History, books: Books) -> None:
    books.entries[0] = entry(usage=Usage(110, 8))


def an_estimate_without_need(_history: History, books: Books) -> None:
    books.entries[0] = entry(estimated=True)


def a_call_without_entry(history: History, _books: Books) -> None:
    history.clients.append(Answered("three", 200, "req_3", whole=True))
    history.calls.append(Dispatched("three", Usage(7, 7)))


def an_unnamed_call_without_entry(history: History, _books: Books) -> None:
    history.crashes = True
    history.calls.append(Dispatched("three", Usage(7, 7)))


def charged_without_a_call(history: History, _books: Books) -> None:
    history.calls.clear()


def charged_although_refused(history: History, _books: Books) -> None:
    history.calls[0] = Dispatched("one", None)


def refused_and_called(history: History, _books: Books) -> None:
    history.clients[0] = Answered("one", 402, "req_of_att_1")


FAULTS: dict[Callable[[History, Books], None], str] = {
    without_entry: "lost: the call of one was dispatched, but has no entry",
    twice: "I1: attempt att_1 has the entries ['settlement', 'settlement']",
    correction_of_the_exact: "I1: attempt att_1 has a correction of what was exact",
    smaller_estimate: "I1: attempt att_1 has a correction of what was exact, or by a smaller",
    another_payer: "I1: the entries of attempt att_1 disagree",
    released_with_a_charge: "I1: attempt att_1 was released, but charged",
    open_and_settled: "I1: attempt att_1 is open and settled",
    swept_without_entry: "I1: attempt att_2 was swept, but has no entry",
    never_admitted: "I1: attempt att_1 has entries, but was never admitted",
    admitted_twice: "I1: attempt att_1 was admitted 2 times",
    rewritten: "I1: the entry or counter att_1 was changed",
    wrong_by_one: f"I2: {NAME} says (301, 50, 50)",
    hold_forgotten: f"I2: {NAME} says (300, 0, 50)",
    above_the_limit_for_a_moment: f"I4: moment 2: {NAME} admitted up to 1001 of 1000",
    above_the_bound_for_a_moment: f"I5: moment 2: {NAME} may cost 1501 of 1000 + 500",
    below_zero_for_a_moment: f"I2: moment 4: {NAME} is below zero",
    another_cost: "one cost 300, but was charged 299",
    other_tokens: "one used ",
    an_estimate_without_need: "one is an estimate, although",
    a_call_without_entry: "lost: three was answered, but req_3 has no entry",
    an_unnamed_call_without_entry: "lost: 1 calls have no exact entry, but there are only 0 estimates",
    charged_without_a_call: "doubled: ",
    charged_although_refused: "one was refused by the provider, but charged 300",
    refused_and_called: "one was refused with 402, but the provider was called",
}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_each_fault_is_found(spoil: Callable[[History, Books], None]) -> None:
    found = spoilt(spoil)
    assert any(fault.startswith(FAULTS[spoil]) for fault in found), found
