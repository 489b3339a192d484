"""What the books answer near a limit, the second time, and to rows that do not fit; on both kinds of store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.call import MICRO
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.money.amounts import NOTHING
from llmgw_gateway.money.estimate import Terms
from llmgw_gateway.money.items import Admission, Admitted, Sweep
from llmgw_gateway.money.levels import Denial, Throttle
from llmgw_wire.errors import ErrorCode
from tests.gateway.money import accounts

if TYPE_CHECKING:
    from tests.gateway.columns import Column
    from tests.gateway.money.accounts import Desk


def asked(attempt_id: str, *, limit: int, overshoot: int = 0, max_tokens: int = 1000, clamp: bool = True) -> Admission:
    """A prompt of 10 micro-USD whose every token of output costs one; 100 of them are likely."""
    terms = Terms(
        max_tokens=max_tokens,
        least_tokens=50,
        likely_output=100,
        likely_prompt=(10 * MICRO, 10 * MICRO, 10 * MICRO),
        likely_rate=(MICRO, MICRO, MICRO),
        most_prompt=(10 * MICRO, 10 * MICRO, 10 * MICRO),
        most_rate=(MICRO, MICRO, MICRO),
    )
    budget = replace(accounts.budget("user", limit, overshoot), clamp=clamp)
    return Admission(attempt_id, accounts.paying(attempt_id), terms, (budget,), accounts.LEASE)


async def test_what_does_not_fit_is_clamped_to_exactly_what_does(post: Desk, column: Column) -> None:
    admitted = await post(asked("att_1", limit=400))
    assert isinstance(admitted, Admitted)
    assert (admitted.max_tokens, admitted.hold[0], admitted.clamped_by) == (390, 110, "user")
    assert accounts.counters(column) == {("user", "2026-11"): (0, 110, 290)}
    assert isinstance(await post(asked("att_2", limit=400)), Denial)


async def test_a_clamp_also_fits_the_hold_into_the_limit(post: Desk) -> None:
    admitted = await post(asked("att_1", limit=90, overshoot=10_000))
    assert isinstance(admitted, Admitted)
    assert (admitted.max_tokens, admitted.hold[0]) == (80, 90)


async def test_below_the_least_that_makes_sense_a_call_is_refused(post: Desk) -> None:
    assert isinstance(await post(asked("att_1", limit=59)), Denial)
    assert isinstance(await post(asked("att_2", limit=60)), Admitted)


async def test_a_budget_that_refuses_is_not_overruled_by_one_that_would_clamp(post: Desk) -> None:
    both = asked("att_1", limit=400)
    strict = replace(accounts.budget("team", 400), clamp=False)
    answer = await post(Admission(both.attempt_id, both.paying, both.terms, (*both.budgets, strict), accounts.LEASE))
    assert isinstance(answer, Denial)


@pytest.mark.parametrize("limit", [400, 10_000])
async def test_the_same_admission_again_has_the_same_answer(post: Desk, limit: int) -> None:
    # The connection may break while COMMIT is under way; what was clamped then must not be sent whole now.
    first = await post(asked("att_1", limit=limit))
    again = await post(asked("att_1", limit=limit))
    assert (again.hold, again.max_tokens, again.clamped_by) == (first.hold, first.max_tokens, first.clamped_by)
    assert again.remaining == first.remaining


async def test_near_its_limit_a_throttled_budget_admits_one_and_says_when_the_next(post: Desk) -> None:
    slow = accounts.budget("user", 1000, 1000, throttle=Throttle(percent=50, per_minute=6))

    async def ask(number: int, now: int) -> Admitted | Denial:
        answer: Admitted | Denial = await post(accounts.admission(f"att_{number}", [slow], 100, now=now))
        return answer

    for number in range(5):
        assert isinstance(await ask(number, 1_000_000), Admitted)  # below half: as fast as they come
    assert isinstance(await ask(5, 1_000_000), Admitted)
    refused = await ask(6, 1_004_000)
    assert isinstance(refused, Denial)
    assert (refused.reason, refused.retry_after) == ("pace", 6)
    assert isinstance(await ask(7, 1_010_000), Admitted)


async def test_a_hold_grows_to_its_ceiling_and_never_past_a_limit(post: Desk, column: Column) -> None:
    budgets = [accounts.budget("user", 100, 1000)]
    await post(accounts.admission("att_1", budgets, 10, 50))
    assert await post(accounts.renewal("att_1", 30, 1, hold=40)) is True
    assert accounts.counters(column) == {("user", "2026-11"): (0, 40, 10)}
    assert await post(accounts.renewal("att_1", 30, 1, hold=70)) is True
    assert accounts.counters(column) == {("user", "2026-11"): (0, 50, 0)}
    await post(accounts.admission("att_2", budgets, 40, 500))
    assert await post(accounts.renewal("att_2", 60, 1, hold=60)) is False
    assert accounts.counters(column) == {("user", "2026-11"): (0, 90, 460)}


async def test_a_row_that_does_not_fit_is_refused_for_good_and_holds_nothing(post: Desk, column: Column) -> None:
    # "Try again" would be said for ever; and with the others of its batch it must not be.
    long = accounts.admission("att_" + "x" * 50, [accounts.budget("user", 100)], 10)
    if column.name.startswith("postgresql"):
        with pytest.raises(GatewayError) as caught:
            await post(long)
        assert caught.value.code is ErrorCode.INTERNAL
        assert set(accounts.counters(column).values()) <= {(0, 0, 0)}
    usual = accounts.admission("att_2", [accounts.budget("user", 100)], 10)
    assert isinstance(await post(usual), Admitted)


async def test_an_attempt_without_a_budget_is_settled_like_any_other(post: Desk, column: Column) -> None:
    admitted = await post(accounts.admission("att_1", [], 10))
    assert admitted.hold != NOTHING
    assert await post(accounts.settlement("att_1", 7)) is True
    assert accounts.entries(column) == {("att_1", "settlement"): (7, False)}


@pytest.mark.parametrize(
    ("seen", "charged", "entries"), [(5, 10, 1), (10, 10, 1), (30, 30, 2)], ids=["less", "as much", "more"]
)
async def test_an_owner_who_wakes_up_and_has_seen_more_than_was_swept_corrects_that_once(
    post: Desk, column: Column, seen: int, charged: int, entries: int
) -> None:
    await post(accounts.admission("att_1", [accounts.budget("user", 100, 100)], 10, 50))
    await post(Sweep(accounts.LEASE + 1))
    late = accounts.settlement("att_1", None, outcome="upstream_broken", observed=seen)
    assert await post(late) is (entries == 2)
    assert await post(late) is False
    assert await post(accounts.settlement("att_1", None, outcome="internal")) is False
    left = 0 if entries == 2 else 40  # with a correction the last word is spoken
    assert accounts.counters(column) == {("user", "2026-11"): (charged, 0, left)}
    found = accounts.entries(column)
    assert [estimated for _, estimated in found.values()] == [True] * entries
    assert sum(cost for cost, _ in found.values()) == charged


async def test_replicas_that_disagree_about_a_limit_announce_its_thresholds_once_for_each(
    post: Desk, column: Column
) -> None:
    # For two seconds after a change one replica has the old limit: every admission of the other arms what it announced.
    limits = [100, 1000] * 5
    await post(accounts.admission("att_0", [accounts.budget("user", 100, 5000, thresholds=(50,))], 60))
    await post(accounts.settlement("att_0", 60))
    for number, limit in enumerate(limits, 1):
        level = accounts.budget("user", limit, 5000, thresholds=(50,))
        await post(accounts.admission(f"att_{number}", [level], 1))
        await post(accounts.settlement(f"att_{number}", 1))
    found = accounts.rows(column, "SELECT budget, period_key, percent, limit_amount FROM events")
    assert found == [("user", "2026-11", 50, 100)]
