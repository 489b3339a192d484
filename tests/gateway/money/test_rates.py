"""Buckets and slots, by a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.money.rates import MINUTE, Full, Windows
from tests.gateway.money.limiting import requests, slots, tokens

ONE = (1, 1, 1, 1)
LEASE = 30_000


def of(count: int) -> tuple[int, int, int, int]:
    return (1, count, count, 1)


def admit(
    windows: Windows, limit: object, amounts: tuple[int, int, int, int], now: int, name: str = "a"
) -> Full | None:
    return windows.admit(name, (limit,), amounts, now, now + LEASE)  # type: ignore[arg-type] # one of ours


def test_an_idle_bucket_lets_the_whole_limit_through_at_once_and_then_its_pace() -> None:
    windows, limit = Windows(), requests(60)
    assert [admit(windows, limit, ONE, 0) for _ in range(60)] == [None] * 60
    assert admit(windows, limit, ONE, 0) == Full(0, 60, 1000)
    assert admit(windows, limit, ONE, 999) == Full(0, 60, 1)
    assert admit(windows, limit, ONE, 1000) is None
    assert admit(windows, limit, ONE, 1000) is not None


@given(
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 50)), max_size=80),
    st.integers(1, 120_000),
)
def test_no_span_of_time_lets_more_through_than_the_published_bound(
    limit: int, calls: list[tuple[int, int]], span: int
) -> None:
    """W ms let through at most limit * (1 + W/minute), wherever they begin; calls above the limit are another case."""
    windows, now = Windows(), 0
    let_through: list[tuple[int, int]] = []
    for pause, amount in calls:
        now += pause
        if amount <= limit and admit(windows, tokens(limit), of(amount), now) is None:
            let_through.append((now, amount))
    for begin, _ in let_through:
        within = sum(amount for at, amount in let_through if begin <= at <= begin + span)
        assert within * MINUTE <= limit * (MINUTE + span)


@given(st.integers(1, 1000), st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 100_000))
def test_the_time_to_come_back_is_exact(limit: int, first: int, second: int, now: int) -> None:
    windows = Windows()
    assert admit(windows, tokens(limit), of(first), now) is None, "the first call is admitted, however large it is"
    full = admit(windows, tokens(limit), of(second), now)
    if full is None:
        assert first + second <= limit
    else:
        assert full.used == first
        assert admit(windows, tokens(limit), of(second), now + full.wait - 1) is not None
        assert admit(windows, tokens(limit), of(second), now + full.wait) is None


def test_all_limits_admit_or_none_changes() -> None:
    windows = Windows()
    asked = (requests(5), tokens(100), slots(1), requests(1, "team"))
    assert windows.admit("a", asked, of(30), 0, LEASE) is None
    before = windows.used(asked, 0)
    refused = windows.admit("b", (requests(5), tokens(100), slots(2), requests(1, "team")), of(30), 0, LEASE)
    assert refused == Full(3, 1, MINUTE)
    assert windows.used(asked, 0) == before == [1, 30, 1, 1]


def test_the_limit_that_refuses_longest_is_told() -> None:
    windows = Windows()
    asked = (requests(1), tokens(100), slots(1), requests(6, "team"))
    assert windows.admit("a", asked, of(100), 0, LEASE) is None
    assert windows.admit("b", asked, of(100), 0, LEASE) == Full(0, 1, MINUTE), "of two as long the first"
    assert windows.admit("b", asked[1:], of(50), 0, LEASE) == Full(0, 100, MINUTE // 2)
    assert windows.admit("b", asked[2:0:-1], of(50), 0, LEASE) == Full(1, 100, MINUTE // 2), "behind a slot"
    assert windows.admit("b", (requests(2), *asked[1:]), of(50), 0, LEASE) == Full(1, 100, MINUTE // 2)
    assert windows.admit("b", asked[2:], of(50), 0, LEASE) == Full(0, 1, 0)


def test_what_is_given_back_at_once_leaves_no_trace() -> None:
    windows = Windows()
    asked = (requests(5), tokens(100), slots(1))
    windows.admit("a", asked, of(60), 0, LEASE)
    windows.correct(asked[0].key, 5, -1, 0)
    windows.correct(asked[1].key, 100, -60, 0)
    windows.release("a", [asked[2].key])
    assert windows.used(asked, 0) == [0, 0, 0]
    assert len(windows) == 0


def test_what_was_taken_too_little_is_debt_and_is_paid_off_first() -> None:
    windows, limit = Windows(), tokens(100)
    admit(windows, limit, of(10), 0)
    windows.correct(limit.key, 100, 240, 0)
    assert windows.used((limit,), 0) == [250]
    assert admit(windows, limit, of(10), 0) == Full(0, 250, 160 * MINUTE // 100)
    assert windows.used((limit,), 2 * MINUTE) == [50]


def test_what_a_long_call_gives_back_may_be_used_at_once() -> None:
    """The one case in which more passes in an instant than the limit: documented, and no more than was given back."""
    windows, limit = Windows(), tokens(100)
    admit(windows, limit, of(100), 0, "long")
    admit(windows, limit, of(100), MINUTE, "other")
    windows.correct(limit.key, 100, -60, MINUTE)
    assert admit(windows, limit, of(60), MINUTE, "third") is None
    assert admit(windows, limit, of(1), MINUTE, "fourth") is not None


def test_nothing_is_given_back_beyond_empty() -> None:
    windows, limit = Windows(), tokens(100)
    admit(windows, limit, of(50), 0)
    windows.correct(limit.key, 100, -50, MINUTE)
    assert admit(windows, limit, of(100), MINUTE) is None
    assert admit(windows, limit, of(1), MINUTE) is not None


def test_a_slot_is_free_when_it_is_given_back_or_not_renewed() -> None:
    windows, limit = Windows(), slots(2)
    assert admit(windows, limit, ONE, 0, "a") is None
    assert admit(windows, limit, ONE, 0, "b") is None
    assert admit(windows, limit, ONE, 0, "c") == Full(0, 2, 0)
    assert admit(windows, limit, ONE, 0, "a") is None, "asking again is not asking for another"
    windows.release("a", [limit.key])
    windows.release("a", [limit.key])
    assert admit(windows, limit, ONE, 0, "c") is None
    windows.renew("b", [limit.key], 2 * LEASE)
    assert admit(windows, limit, ONE, LEASE - 1, "d") is not None
    assert admit(windows, limit, ONE, LEASE, "d") is None, "c was not renewed"
    assert admit(windows, limit, ONE, LEASE, "e") is not None, "b was"


def test_a_clock_that_is_set_back_freezes_for_a_minute_at_most() -> None:
    windows, limit = Windows(), requests(1)
    admit(windows, limit, ONE, 10 * MINUTE)
    assert admit(windows, limit, ONE, 0) is not None
    assert admit(windows, limit, ONE, 2 * MINUTE - 1) is not None
    assert admit(windows, limit, ONE, 2 * MINUTE) is None


def test_a_clock_that_runs_ahead_and_is_set_back_leaks_nothing_twice() -> None:
    windows, limit = Windows(), tokens(60)
    admit(windows, limit, of(60), 0)
    assert admit(windows, limit, of(30), MINUTE // 2) is None, "half of it has leaked"
    assert admit(windows, limit, of(1), 0) is not None
    windows.correct(limit.key, 60, 0, 0)
    assert admit(windows, limit, of(1), MINUTE // 2) is not None, "that half is gone already"
    assert admit(windows, limit, of(30), MINUTE) is None


def test_an_empty_bucket_does_not_leak_from_a_later_time() -> None:
    """As in Valkey, which keeps nothing of it: a clock that was set back since counts from now on."""
    windows, limit = Windows(), tokens(MINUTE)
    admit(windows, limit, of(0), 5)
    assert len(windows) == 0
    admit(windows, limit, of(1), 0)
    assert windows.used([limit], 0) == [1]
    assert windows.used([limit], 1) == [0]


def test_what_has_run_empty_takes_no_memory() -> None:
    windows = Windows()
    for number in range(100):
        windows.admit("a", (requests(1, str(number)), slots(1, str(number))), ONE, 0, LEASE)
    windows.forget(MINUTE - 1)
    assert len(windows) == 100
    windows.forget(MINUTE)
    assert len(windows) == 0
