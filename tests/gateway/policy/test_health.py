"""Targets that rest: who is asked first, for how long, and that one call tries before the others follow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import Target
from llmgw_gateway.policy.health import PROBE_SECONDS, Health

A, B, C = (Target("bedrock", "m", name, "regional") for name in "abc")
ALL = (A, B, C)
REST, MOST = 5, 60


def names(targets: tuple[Target, ...]) -> str:
    return "".join(target.invoke_id for target in targets)


def test_who_has_failed_is_asked_last_until_its_rest_is_over() -> None:
    health = Health(REST, MOST)
    assert health.failed(A, 100)
    assert names(health.order(ALL, 100)) == names(health.order(ALL, 104.9)) == "bca"
    assert health.resting(103) == {"a": 2}
    assert names(health.order(ALL, 105)) == "abc"
    assert health.resting(105) == {}


def test_one_call_tries_and_the_others_wait_for_what_it_finds() -> None:
    health = Health(REST, MOST)
    health.failed(A, 100)
    assert names(health.order(ALL, 106)) == "abc", "the try"
    assert names(health.order(ALL, 106)) == "bca"
    health.answered(A)
    assert names(health.order(ALL, 106)) == names(health.order(ALL, 106)) == "abc"


def test_a_try_that_was_never_made_keeps_nobody_out_for_ever() -> None:
    health = Health(REST, MOST)
    health.failed(A, 100)
    assert names(health.order(ALL, 106)) == "abc"
    assert names(health.order(ALL, 105.9 + PROBE_SECONDS)) == "bca"
    assert names(health.order(ALL, 106 + PROBE_SECONDS)) == "abc"


def test_a_target_that_is_not_first_is_no_try() -> None:
    health = Health(REST, MOST)
    health.failed(B, 100)
    for _ in range(3):
        assert names(health.order(ALL, 106)) == "abc"


def test_each_failure_in_a_row_doubles_the_rest_up_to_the_most() -> None:
    health, now, rests = Health(REST, MOST), 0.0, []
    for _ in range(7):
        assert health.failed(A, now)
        (rest,) = health.resting(now).values()
        rests.append(rest)
        now += rest
    assert rests == [5, 10, 20, 40, 60, 60, 60]
    health.answered(A)
    health.failed(A, now)
    assert health.resting(now) == {"a": 5}


def test_the_failures_of_calls_that_ran_together_count_once() -> None:
    health = Health(REST, MOST)
    assert [health.failed(A, 100), health.failed(A, 101), health.failed(A, 102)] == [True, False, False]
    assert health.resting(100) == {"a": 5}


def test_what_a_target_asks_for_itself_counts_within_bounds() -> None:
    health = Health(REST, MOST)
    health.failed(A, 0, wait=30)
    health.failed(B, 0, wait=3600)
    health.failed(C, 0, wait=1)
    assert health.resting(0) == {"a": 30, "b": MOST, "c": REST}


def test_nothing_is_remembered_where_there_is_nothing_to_choose_or_nobody_wants_it() -> None:
    health = Health(0, MOST)
    assert not health.failed(A, 100)
    assert names(health.order(ALL, 100)) == "abc"
    alone = Health(REST, MOST)
    alone.failed(A, 100)
    assert alone.order((A,), 100) == (A,)


steps = st.lists(st.tuples(st.sampled_from(["order", "failed", "answered"]), st.sampled_from(ALL), st.floats(0, 30)))


@given(steps)
def test_whatever_happens_every_target_is_asked_and_none_that_rests_before_one_that_is_well(
    happens: list[tuple[str, Target, float]],
) -> None:
    health, now, well = Health(REST, MOST), 0.0, set(ALL)
    for what, target, later in happens:
        now += later
        if what == "failed":
            health.failed(target, now)
            well.discard(target)
        elif what == "answered":
            health.answered(target)
            well.add(target)
        order = health.order(ALL, now)
        assert sorted(names(order)) == list("abc")
        first_resting = min((order.index(each) for each in ALL if each.title in health.resting(now)), default=len(ALL))
        assert all(order.index(each) < first_resting for each in well)
