"""Estimates: the ceiling is a ceiling, and the hold lies below it."""

from __future__ import annotations

from datetime import date

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import convert

from llmgw_gateway.call import Usage
from llmgw_gateway.money.estimate import PROVIDER_OVERHEAD, Terms
from llmgw_gateway.money.estimate import estimate as estimated
from llmgw_gateway.money.learning import Learned
from llmgw_gateway.money.prices import Price, Tariff

DAY = date(2026, 1, 1)
CLASSES = list(Usage.__struct_fields__)
rates = st.integers(0, 10**8)


@st.composite
def prices(draw: st.DrawFn) -> tuple[Price, Price]:
    """A base price and one for long prompts that is not cheaper in any class, as every catalogue has them."""
    base = [draw(rates) for _ in CLASSES]
    return priced(base), priced([rate + draw(rates) for rate in base])


def priced(rates_of_classes: list[int]) -> Price:
    return convert(dict(zip(CLASSES, rates_of_classes, strict=True)) | {"from": DAY}, Price)


def estimate(size: int, most_output: int, context: int, expected: Price, dearest: Price) -> Terms:
    """The estimate of a call about which nothing was learned yet."""
    likely = Learned().expect(
        model="m", person="p", session="", size=size, most_prompt=context, most_output=most_output, now=0
    )
    return estimated(
        size=size,
        max_tokens=most_output,
        least_tokens=1,
        context_tokens=context,
        likely=likely,
        tariff=Tariff.of([(0, expected), (200_000, dearest)]),
    )


def hold_of(terms: Terms) -> int:
    return terms.amounts(terms.max_tokens)[0][0]


def ceiling_of(terms: Terms) -> int:
    return terms.amounts(terms.max_tokens)[1][0]


sizes = st.integers(0, 32 * 1024 * 1024)
tokens = st.integers(1, 10**6)


@given(prices(), sizes, tokens, tokens, st.data())
def test_no_bill_exceeds_the_ceiling(
    both: tuple[Price, Price], size: int, most_output: int, context: int, data: st.DataObject
) -> None:
    # A token stands for at least one byte, a provider adds a little, and no prompt exceeds the context.
    left = min(size + PROVIDER_OVERHEAD, context)
    prompt = []
    for _ in range(4):
        prompt.append(data.draw(st.integers(0, left)))
        left -= prompt[-1]
    usage = Usage(prompt[0], data.draw(st.integers(0, most_output)), *prompt[1:])
    ceiling = ceiling_of(estimate(size, most_output, context, *both))
    assert all(price.cost(usage) <= ceiling for price in both)


@given(prices(), sizes, tokens, tokens)
def test_the_hold_never_exceeds_the_ceiling_and_is_never_free(
    both: tuple[Price, Price], size: int, most_output: int, context: int
) -> None:
    kept = estimate(size, most_output, context, *both)
    assert 0 <= hold_of(kept) <= ceiling_of(kept)
    if both[0].output:
        assert hold_of(kept) > 0


@given(prices(), sizes, sizes, tokens, tokens, tokens)
def test_a_larger_request_keeps_no_less(
    both: tuple[Price, Price], size: int, more: int, most_output: int, more_output: int, context: int
) -> None:
    small = estimate(size, most_output, context, *both)
    large = estimate(size + more, most_output + more_output, context, *both)
    assert hold_of(large) >= hold_of(small)
    assert ceiling_of(large) >= ceiling_of(small)


@given(sizes, st.integers(4096, 10**6))
def test_a_coding_agent_is_not_blocked_by_the_worst_case(size: int, most_output: int) -> None:
    # It asks for 32,000 tokens and takes 300: what is held must not grow with what is merely possible.
    price = Price(DAY, 3_000_000, 15_000_000, 300_000, 3_750_000, 6_000_000)
    assume(size < 100_000)
    kept = estimate(size, most_output, 200_000, price, price)
    assert hold_of(kept) == hold_of(estimate(size, 4096, 200_000, price, price))
