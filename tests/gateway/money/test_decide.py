"""The one decision, against the two sentences of the design that it has to keep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.money.decide import decide
from llmgw_gateway.money.levels import BudgetRef, Counter, Denial
from tests.gateway.money import accounts

amounts = st.integers(0, 1000)
levels = st.lists(
    st.tuples(
        st.builds(
            BudgetRef,
            budget=st.text("ab", max_size=3),
            name=st.just("budget"),
            period_key=st.just("2026-11"),
            limit=amounts,
            overshoot=amounts,
            resets_at=st.just(""),
        ),
        st.builds(
            Counter,
            counter_id=st.just(1),
            unit=st.just(0),
            limit=st.just(0),
            spent=amounts,
            held=amounts,
            exposure=amounts,
        ),
    ),
    max_size=4,
)


def after(counter: Counter, hold: int, ceiling: int) -> Counter:
    return Counter(1, 0, counter.spent, counter.held + hold, counter.exposure + ceiling - hold)


def denial_of(some: list[tuple[BudgetRef, Counter]], hold: int, ceiling: int) -> Denial | None:
    answer = decide(some, accounts.terms(hold, ceiling), 0)
    return answer if isinstance(answer, Denial) else None


@given(levels, amounts, amounts)
def test_it_admits_exactly_what_every_level_still_bears(
    some: list[tuple[BudgetRef, Counter]], hold: int, beyond: int
) -> None:
    ceiling = hold + beyond
    fits = []
    for budget, counter in some:
        then = after(counter, hold, ceiling)
        i4 = then.spent + then.held <= budget.limit
        i5 = then.spent + then.held + then.exposure <= budget.limit + budget.overshoot
        fits.append((i4, i5))
    denial = denial_of(some, hold, ceiling)
    assert (denial is None) is all(i4 and i5 for i4, i5 in fits)
    if denial is not None:
        first = next(number for number, (i4, i5) in enumerate(fits) if not (i4 and i5))
        budget, counter = some[first]
        assert (denial.budget, denial.spent, denial.held) == (budget, counter.spent, counter.held)
        assert (denial.reason == "exposure") is fits[first][0]


@given(levels, amounts, amounts)
def test_deciding_changes_nothing(some: list[tuple[BudgetRef, Counter]], hold: int, beyond: int) -> None:
    before = [(counter.spent, counter.held, counter.exposure) for _, counter in some]
    denial_of(some, hold, hold + beyond)
    assert [(counter.spent, counter.held, counter.exposure) for _, counter in some] == before


@given(levels, amounts, amounts, amounts)
def test_what_is_refused_is_refused_for_more_money_too(
    some: list[tuple[BudgetRef, Counter]], hold: int, beyond: int, more: int
) -> None:
    if denial_of(some, hold, hold + beyond) is not None:
        assert denial_of(some, hold + more, hold + more + beyond) is not None
        assert denial_of(some, hold, hold + beyond + more) is not None
