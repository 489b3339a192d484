"""Prices: no class of tokens is free by omission, no gap makes a call cheap, rounding happens once."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llmgw_gateway.call import Geography, Target, Usage
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.money import catalogues
from llmgw_gateway.money.prices import Catalogue, CatalogueModel, Price
from llmgw_gateway.money.tariffs import version_for
from llmgw_gateway.sections.guarding import MOST_USD, Guardrail

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES = list(Usage.__struct_fields__)
DAY = date(2026, 6, 1)
counts = st.integers(0, 10**9)
rates = st.integers(0, 10**8)
usages = st.builds(Usage, **dict.fromkeys(CLASSES, counts))
rows = st.builds(
    Price,
    effective=st.dates(date(2025, 1, 1), date(2027, 1, 1)),
    geography=st.sampled_from(["global", "regional"]),
    tier=st.sampled_from(["standard", "batch", "priority"]),
    context_over=st.sampled_from([0, 200_000]),
    **dict.fromkeys(CLASSES, rates),
)
plain = st.builds(Price, effective=st.just(DAY), **dict.fromkeys(CLASSES, rates))


def catalogue(some: Sequence[Price]) -> Catalogue:
    model = CatalogueModel("m", "M", "v", 10, 100, tuple(some), "v.m")
    return Catalogue("1", {"m": model})


def table(**changed: object) -> str:
    """One model of a catalogue as text; None leaves a key out."""
    good: dict[str, object] = {"name": '"m"', "display_name": '"M"', "vendor": '"v"', "bedrock_id": '"v.m"'}
    good |= {"max_output_tokens": 10, "context_tokens": 100, "prices": f"[{row()}]"} | changed
    return "[[models]]\n" + "".join(f"{name} = {value}\n" for name, value in good.items() if value is not None)


def row(**changed: object) -> str:
    good: dict[str, object] = {"from": "2026-01-01", "input": 1, "output": 5} | dict.fromkeys(CLASSES[2:], 1) | changed
    return "{" + ", ".join(f"{name} = {value}" for name, value in good.items() if value is not None) + "}"


@given(plain, usages)
def test_the_cost_is_the_exact_sum_rounded_up_once(price: Price, usage: Usage) -> None:
    exact = sum(Fraction(getattr(usage, name) * getattr(price, name), 1_000_000) for name in CLASSES)
    assert price.cost(usage) == ceil(exact)


@given(plain, usages, st.sampled_from(CLASSES), st.integers(1, 10**6))
def test_more_tokens_of_any_class_never_cost_less(price: Price, usage: Usage, name: str, more: int) -> None:
    dearer = replace(usage, **{name: getattr(usage, name) + more})
    difference = price.cost(dearer) - price.cost(usage)
    assert difference >= (more * getattr(price, name)) // 1_000_000 >= 0


@given(plain, usages, usages)
def test_one_bill_is_never_dearer_than_two(price: Price, one: Usage, other: Usage) -> None:
    both = Usage(*(getattr(one, name) + getattr(other, name) for name in CLASSES))
    assert price.cost(both) <= price.cost(one) + price.cost(other) <= price.cost(both) + 1


@given(plain, usages)
def test_no_prompt_token_costs_more_than_the_dearest(price: Price, usage: Usage) -> None:
    dearest = Price(DAY, price.dearest_prompt, 0, 0, 0, 0)
    assert price.cost(replace(usage, output=0)) <= dearest.cost(Usage(input=usage.prompt))


@given(st.lists(rows, min_size=1, max_size=6), st.dates(date(2024, 6, 1), date(2027, 6, 1)), counts)
def test_the_price_is_one_that_is_in_force_for_such_a_prompt(some: list[Price], day: date, prompt: int) -> None:
    fit = [each for each in some if each.tier == "standard" and each.effective <= day and each.context_over <= prompt]
    for geography in ("global", "regional"):
        if not fit:
            with pytest.raises(LookupError, match="no price of 'm'"):
                catalogue(some).price("m", geography=geography, day=day, prompt_tokens=prompt)
            continue
        chosen = catalogue(some).price("m", geography=geography, day=day, prompt_tokens=prompt)
        assert chosen in fit
        longest = max(each.context_over for each in fit)
        own = [each for each in fit if each.geography == geography and each.context_over == longest]
        assert not own or chosen in own
        assert chosen.effective == max((each.effective for each in own), default=chosen.effective)


@given(st.lists(rows, min_size=1, max_size=6), usages)
def test_a_geography_without_a_price_is_charged_by_one_that_has_one(some: list[Price], usage: Usage) -> None:
    only = [replace_geography(each, "regional") for each in some]
    if not any(each.tier == "standard" and each.context_over == 0 and each.effective <= DAY for each in only):
        return
    costs = [
        catalogue(only).price("m", geography=place, day=DAY, prompt_tokens=usage.prompt).cost(usage)
        for place in ("global", "regional")
    ]
    assert costs[0] == costs[1]


def replace_geography(price: Price, geography: Geography) -> Price:
    members = {name: getattr(price, name) for name in price.__struct_fields__}
    return Price(**(members | {"geography": geography}))


def test_a_long_prompt_is_never_cheaper_for_want_of_a_row() -> None:
    # Regional calls have the base price only; the long-context price is known for global ones.
    base = Price(DAY, 3, 15, 1, 4, 6, geography="regional")
    listed = Price(DAY, 3, 15, 1, 4, 6)
    long = Price(DAY, 6, 22, 1, 8, 12, context_over=200_000)
    usage = Usage(input=300_000, output=1000)
    costs = {
        place: catalogue([base, listed, long]).price("m", geography=place, day=DAY, prompt_tokens=300_000).cost(usage)
        for place in ("global", "regional")
    }
    assert costs["regional"] >= costs["global"]


def test_a_new_price_holds_from_its_day_on() -> None:
    old, new = Price(DAY, 1, 1, 1, 1, 1), Price(DAY + timedelta(days=1), 2, 2, 2, 2, 2)
    both = catalogue([new, old])
    assert both.price("m", geography="global", day=DAY) is old
    assert both.price("m", geography="global", day=DAY + timedelta(days=1)) is new
    with pytest.raises(LookupError):
        both.price("m", geography="global", day=DAY - timedelta(days=1))


def test_a_catalogue_is_read() -> None:
    read = catalogues.parse('version = "1"\n' + table(), "test")
    assert read.version == "1"
    assert read.price("m", geography="regional", day=DAY).output == 5


FAULTS = {
    "no TOML": "models = [",
    "no version": table(),
    "no prices": 'version = "1"\n' + table(prices="[]"),
    "no base price": 'version = "1"\n' + table(prices=f"[{row(context_over=200_000)}]"),
    "only a batch price": 'version = "1"\n' + table(prices="[" + row(tier='"batch"') + "]"),
    "a negative rate": 'version = "1"\n' + table(prices=f"[{row(input=-1)}]"),
    "a rate with a fraction": 'version = "1"\n' + table(prices=f"[{row(input=1.5)}]"),
    "an unknown key": 'version = "1"\n' + table(discount=1),
    "an unknown key of a price": 'version = "1"\n' + table(prices=f"[{row(discount=1)}]"),
    "an unknown tier": 'version = "1"\n' + table(prices="[" + row(tier='"free"') + "]"),
    "a name for two models": 'version = "1"\n' + table() + table(name='"n"', display_name='"N"'),
    "a model twice": 'version = "1"\n' + table() + table(),
} | {f"no rate for {name}": 'version = "1"\n' + table(prices=f"[{row(**{name: None})}]") for name in CLASSES}


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_catalogue_is_refused_with_its_name(case: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        catalogues.parse(FAULTS[case], "the catalogue under test")
    assert caught.value.source == "the catalogue under test"
    assert caught.value.faults


BUILT_IN = catalogues.built_in()


@pytest.mark.parametrize("name", BUILT_IN.models)
def test_every_model_that_ships_has_sound_prices(name: str) -> None:
    model = BUILT_IN.models[name]
    assert 0 < model.max_output_tokens <= model.context_tokens
    today = max(price.effective for price in model.prices)
    for place in ("global", "regional"):
        for prompt in (0, model.context_tokens):
            price = BUILT_IN.price(name, geography=place, day=today, prompt_tokens=prompt)
            assert 0 < price.cache_read <= price.input <= price.cache_write_5m <= price.cache_write_1h
            assert price.input <= price.output
        base = BUILT_IN.price(name, geography=place, day=today)
        long = BUILT_IN.price(name, geography=place, day=today, prompt_tokens=model.context_tokens)
        assert long.input >= base.input
        assert long.output >= base.output
    regional, everywhere = (BUILT_IN.price(name, geography=place, day=today) for place in ("regional", "global"))
    assert regional.input >= everywhere.input
    assert regional.output >= everywhere.output


def test_the_ledger_can_hold_the_version_of_the_catalogue_that_ships() -> None:
    assert 0 < len(BUILT_IN.version) <= 32
    # With an operator's file, and the dearest guardrail.
    dearest = Guardrail(name="g", id="g", version="1", usd_per_thousand_units=MOST_USD).guard
    target = Target("bedrock", "m", "v.m", "global", guard=dearest)
    assert len(version_for(f"{BUILT_IN.version}+{'0' * catalogues.DIGEST}", target)) <= 32


def test_what_anthropics_own_api_costs_says_nothing_of_bedrock() -> None:
    """A model without a row for its geography is charged by the dearest row of Bedrock, never by another provider's."""
    mythos = BUILT_IN.models["claude-mythos-5"]
    assert {price.geography for price in mythos.prices} == {"regional", "direct"}
    day = date(2026, 11, 21)
    assert BUILT_IN.price("claude-mythos-5", geography="global", day=day).geography == "regional"
    assert BUILT_IN.price("claude-mythos-5", geography="direct", day=day).geography == "direct"


def test_anthropics_list_is_what_global_profiles_cost() -> None:
    """As its price page and AWS's say; a row that differs is a slip of ours, or news."""
    day = date(2026, 11, 21)
    compared = 0
    for model in BUILT_IN.models.values():
        found = {price.geography for price in BUILT_IN.in_force(model.name, day)}
        if {"global", "direct"} <= found:
            for size in {price.context_over for price in model.prices}:
                pair = [
                    BUILT_IN.price(model.name, geography=geography, day=day, prompt_tokens=size + 1).numerator(
                        Usage(1, 10, 100, 1_000, 10_000)
                    )
                    for geography in ("global", "direct")
                ]
                assert pair[0] == pair[1], model.name
                compared += 1
    assert compared > 10


@pytest.mark.parametrize(
    ("one", "other", "no_dearer"),
    [
        (("cheap", "global"), ("dear", "global"), True),
        (("dear", "global"), ("cheap", "global"), False),
        (("cheap", "global"), ("cheap", "global"), True),
        (("cheap", "regional"), ("cheap", "global"), False),  # the same model at another place
        (("mixed", "global"), ("dear", "global"), False),  # one class of tokens is enough
        (("raised", "global"), ("dear", "global"), False),  # and one day that is known
        (("long", "global"), ("short", "global"), True),  # what the other cannot be asked has no price there
        (("long", "global"), ("dear", "global"), False),
    ],
)
def test_a_model_is_no_dearer_when_nothing_of_it_ever_is(
    one: tuple[str, Geography], other: tuple[str, Geography], *, no_dearer: bool
) -> None:
    def row(rate: int, day: int = 1, over: int = 0, geography: Geography = "global", **rates: int) -> Price:
        every = dict.fromkeys(("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), rate) | rates
        return replace(Price(date(2026, 1, day), **every), geography=geography, context_over=over)  # type: ignore[arg-type]

    def model(name: str, context: int, *rows: Price) -> CatalogueModel:
        return CatalogueModel(name, name, "v", 1000, context, rows, name)

    models = [
        model("cheap", 1000, row(1), row(2, geography="regional")),
        model("dear", 1000, row(5)),
        model("mixed", 1000, row(1, cache_read=6)),
        model("raised", 1000, row(1), row(6, day=2)),
        model("long", 1000, row(1), row(9, over=500)),
        model("short", 500, row(5)),
    ]
    catalogue = Catalogue("x", {each.name: each for each in models})
    assert catalogue.no_dearer(one, other) == no_dearer
