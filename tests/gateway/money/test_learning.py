"""Estimates learn from bills: they come close, they forget with the provider's cache, and they stay bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import Usage
from llmgw_gateway.money import learning
from llmgw_gateway.money.estimate import EXPECTED_OUTPUT
from llmgw_gateway.money.learning import Learned

counts = st.integers(0, 200_000)
usages = st.builds(Usage, counts, counts, counts, counts, counts)


def turns(learned: Learned, number: int, *, size: int, usage: Usage, at: float = 0.0) -> None:
    for _ in range(number):
        learned.observe(model="m", person="p", session="s", size=size, usage=usage, now=at)


def expected(learned: Learned, *, size: int, now: float = 0.0, session: str = "s", most_output: int = 32_000) -> Usage:
    return learned.expect(
        model="m", person="p", session=session, size=size, most_prompt=10**6, most_output=most_output, now=now
    )


def test_after_some_turns_the_expectation_is_what_turns_cost() -> None:
    learned = Learned()
    bill = Usage(input=500, output=310, cache_read=38_000, cache_write_5m=1_500)
    turns(learned, 60, size=140_000, usage=bill)
    guess = expected(learned, size=140_000)
    for name in ("input", "output", "cache_read", "cache_write_5m"):
        assert abs(getattr(guess, name) - getattr(bill, name)) <= 0.02 * bill.prompt


def test_a_cache_that_the_provider_has_forgotten_is_written_again() -> None:
    learned = Learned()
    turns(learned, 60, size=160_000, usage=Usage(input=0, output=10, cache_read=40_000))
    assert expected(learned, size=160_000, now=learning.CACHE_SECONDS).cache_read > 39_000
    later = expected(learned, size=160_000, now=learning.CACHE_SECONDS + 1)
    assert later.cache_read == 0
    assert later.cache_write_5m > 39_000


def test_another_session_does_not_profit_from_this_ones_cache() -> None:
    learned = Learned()
    turns(learned, 60, size=160_000, usage=Usage(input=0, output=10, cache_read=40_000))
    assert expected(learned, size=160_000, session="other").cache_read == 0


def test_few_answers_prove_nothing() -> None:
    learned = Learned()
    turns(learned, learning.FEWEST - 1, size=100, usage=Usage(input=25, output=3))
    assert expected(learned, size=100).output == EXPECTED_OUTPUT
    turns(learned, 1, size=100, usage=Usage(input=25, output=3))
    assert expected(learned, size=100).output == 3


@given(st.lists(st.tuples(st.integers(0, 10**7), usages), max_size=30), st.integers(0, 10**7), st.integers(1, 10**6))
def test_whatever_was_seen_an_expectation_is_sane(seen: list[tuple[int, Usage]], size: int, most_output: int) -> None:
    learned = Learned()
    for size_seen, usage in seen:
        turns(learned, 1, size=size_seen, usage=usage)
    guess = expected(learned, size=size, most_output=most_output)
    assert 1 <= guess.output <= most_output
    assert 0 <= guess.prompt <= size + 4, "a token stands for at least one byte"
    assert min(guess.input, guess.cache_read, guess.cache_write_5m, guess.cache_write_1h) >= 0


def test_nothing_grows_without_bound() -> None:
    learned = Learned()
    for number in range(learning.MOST_KEPT + 10):
        learned.observe(model="m", person=str(number), session=str(number), size=4, usage=Usage(1, 1), now=0)
    assert len(learned._habits) == len(learned._sessions) == learning.MOST_KEPT


@given(st.lists(usages, min_size=1, max_size=learning.RECENT), st.integers(1, 10**6))
def test_nobody_moves_what_is_expected_of_another(seen: list[Usage], size: int) -> None:
    """Else one person's long answers would hold another's budget, and tell them something."""
    learned, alone = Learned(), Learned()
    for each in (learned, alone):
        turns(each, learning.FEWEST, size=400, usage=Usage(input=90, output=30, cache_read=10))
    for usage in seen:
        learned.observe(model="m", person="another", session="s", size=size, usage=usage, now=0.0)
    assert expected(learned, size=size) == expected(alone, size=size)


def test_long_answers_of_one_model_say_nothing_of_another() -> None:
    learned = Learned()
    turns(learned, learning.RECENT, size=400, usage=Usage(input=100, output=20_000))
    other = learned.expect(
        model="other", person="p", session="s", size=400, most_prompt=10**6, most_output=32_000, now=0.0
    )
    assert other.output == EXPECTED_OUTPUT
