"""The price catalogue: data with effective dates, and what a call costs by it. Pure.

A model without a price is refused at start-up; a usage class without a price does not exist (every class is required),
so nothing can be free by omission. Rows of the ledger keep token classes and the catalogue's version.
`catalogues.py` reads them from files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date  # noqa: TC003 -- msgspec reads the annotation
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from llmgw_gateway.call import MICRO, Geography

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmgw_gateway.call import Usage
    from llmgw_gateway.money.amounts import Amounts

Rate = Annotated[int, Meta(ge=0, le=10**12)]
Count = Annotated[int, Meta(ge=0, le=10**9)]
Tier = Literal["standard", "batch", "flex", "priority"]
Kind = Literal["text", "embedding"]


class Price(Struct, frozen=True, forbid_unknown_fields=True, rename={"effective": "from"}):
    """Micro-USD for a million tokens of each class, from a day on, for one geography, tier and context size."""

    effective: date
    input: Rate
    output: Rate
    cache_read: Rate
    cache_write_5m: Rate
    cache_write_1h: Rate
    geography: Geography = "global"
    tier: Tier = "standard"
    context_over: Count = 0

    @property
    def key(self) -> tuple[date, Geography, Tier, int]:
        """What no two rows of a model share."""
        return (self.effective, self.geography, self.tier, self.context_over)

    @property
    def chain(self) -> tuple[Tier, Geography, int]:
        """What the row is a price for; the newest of a chain counts."""
        return (self.tier, self.geography, self.context_over)

    def cost(self, usage: Usage) -> int:
        """Micro-USD, rounded up: the sum of all classes, so that rounding happens once."""
        return -(-self.numerator(usage) // MICRO)

    def numerator(self, usage: Usage) -> int:
        """The cost in millionths of a micro-USD: not rounded."""
        return (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write_5m * self.cache_write_5m
            + usage.cache_write_1h * self.cache_write_1h
        )

    def dearer_by(self, rate: int) -> Price:
        """The same with a rate added to every class, such as that of a guardrail which looks at every token."""
        classes = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
        return msgspec.structs.replace(self, **{name: getattr(self, name) + rate for name in classes})

    def within(self, other: Price) -> bool:
        """Whether no class of tokens costs more than by another price."""
        classes = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
        return all(getattr(self, name) <= getattr(other, name) for name in classes)

    def weight(self, amount: int) -> int:
        """How many millionths of an input token cost as much as `amount`, rounded up; where input is free, none."""
        return -(-amount * MICRO // self.input) if self.input else 0

    @property
    def output_rate(self) -> Amounts:
        """Millionths of each unit for a token of output."""
        return (self.output, MICRO, self.weight(self.output))

    @property
    def dearest_prompt(self) -> int:
        """The highest rate that a prompt token can be billed at."""
        return max(self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h)


class CatalogueModel(Struct, frozen=True, forbid_unknown_fields=True):
    """One model: its names at every place, its caps, its prices."""

    name: str
    display_name: str
    vendor: str
    max_output_tokens: Count
    context_tokens: Annotated[int, Meta(ge=1, le=10**9)]
    prices: tuple[Price, ...]
    bedrock_id: str = ""
    """Empty: Bedrock does not have it."""
    profiles: tuple[str, ...] = ()
    """Prefixes of its cross-region inference profiles: us, eu, apac, global, ..."""
    aliases: tuple[str, ...] = ()
    kind: Kind = "text"
    """An embedding model has no output and no cache."""
    output_burndown: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Tokens of the provider's quota that one output token takes."""

    @property
    def geographies(self) -> tuple[Geography, ...]:
        """Where calls of it can be billed: a model without a global profile has no global price."""
        if not self.bedrock_id:
            return ("direct",)
        return ("global", "regional") if "global" in self.profiles else ("regional",)

    def names(self) -> tuple[str, ...]:
        """Every name under which a client may ask for it."""
        if not self.bedrock_id:
            return (self.name, *self.aliases)
        profiled = tuple(f"{prefix}.{self.bedrock_id}" for prefix in self.profiles)
        return (self.name, *self.aliases, self.bedrock_id, *profiled)


@dataclass(frozen=True, slots=True)
class Dearest:
    """The highest rates of a tariff: micro-USD, and millionths of an input token, for a million tokens or one."""

    prompt: int
    prompt_weight: int
    output: Amounts
    """Millionths of each unit for a token."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """The prices of one model in one geography on one day."""

    steps: tuple[tuple[int, Price, Amounts], ...]
    """By prompt size, largest first: the price for prompts of more tokens than the number, and its rate of output."""
    dearest: Dearest

    @classmethod
    def of(cls, steps: Iterable[tuple[int, Price]]) -> Tariff:
        """Join the prices for prompts of more tokens than each number."""
        ordered = tuple((over, price, price.output_rate) for over, price in sorted(steps, key=lambda step: -step[0]))
        prices = [price for _, price, _ in ordered]
        money, tokens, weighted = zip(*(rate for _, _, rate in ordered), strict=True)
        return cls(
            ordered,
            Dearest(
                prompt=max(price.dearest_prompt for price in prices),
                prompt_weight=max(price.weight(price.dearest_prompt) for price in prices),
                output=(max(money), max(tokens), max(weighted)),
            ),
        )

    def dearer_by(self, rate: int) -> Tariff:
        """The same with a rate added to every price."""
        return Tariff.of((over, price.dearer_by(rate)) for over, price, _ in self.steps)

    def price(self, prompt_tokens: int) -> Price:
        """The price for a prompt of that size."""
        return self.step(prompt_tokens)[1]

    def step(self, prompt_tokens: int) -> tuple[int, Price, Amounts]:
        """The one of `steps` that counts for a prompt of that size."""
        for step in self.steps:
            if prompt_tokens > step[0]:
                return step
        return self.steps[-1]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models that can be priced."""

    version: str
    models: dict[str, CatalogueModel]
    own: frozenset[tuple[str, Price]] = frozenset()
    """The rows that come from the operator's file, each with the name of its model."""

    def source(self, model: str, price: Price) -> str:
        """The version of the file that a row comes from: a date, or the digest of the operator's file."""
        shipped, _, digest = self.version.partition("+")
        return digest if (model, price) in self.own else shipped

    def named(self, name: str) -> CatalogueModel | None:
        """The model that has this name or alias."""
        return next((model for model in self.models.values() if name in model.names()), None)

    def in_force(self, model: str, day: date) -> list[Price]:
        """The rows that count on `day`: of each tier, geography and context size the newest."""
        newest: dict[tuple[Tier, Geography, int], Price] = {}
        for price in sorted(self.models[model].prices, key=lambda price: (price.effective, price.dearest_prompt)):
            if price.effective <= day:
                newest[price.chain] = price
        return sorted(
            newest.values(), key=lambda price: (price.tier != "standard", price.geography == "direct", *price.chain)
        )

    def price(self, model: str, *, geography: Geography, day: date, prompt_tokens: int = 0) -> Price:
        """The price that holds on `day` for a prompt of that size.

        A model without a row for the geography is charged by the dearest row it has: a gap never makes a call cheap;
        but what Anthropic's own API costs says nothing of Bedrock. LookupError when no price is in force yet.
        """
        in_force = [
            price
            for price in self.models[model].prices
            if price.tier == "standard"
            and (price.geography != "direct" or geography == "direct")
            and price.effective <= day
            and (prompt_tokens > price.context_over or not price.context_over)
        ]
        if not in_force:
            raise LookupError(f"no price of {model!r} is in force on {day}")
        tier = max(price.context_over for price in in_force)
        fitting = [price for price in in_force if price.context_over == tier]
        candidates = [price for price in fitting if price.geography == geography] or fitting
        return max(candidates, key=lambda price: (price.effective, price.dearest_prompt))

    def tariff(self, model: str, *, geography: Geography, day: date) -> Tariff:
        """The prices that hold on `day`, for prompts of any size; LookupError as for `price`."""
        sizes = {price.context_over for price in self.models[model].prices}
        return Tariff.of(
            (size, self.price(model, geography=geography, day=day, prompt_tokens=size + 1)) for size in sizes | {0}
        )

    def no_dearer(self, one: tuple[str, Geography], other: tuple[str, Geography]) -> bool:
        """Whether a model costs no more than another in any class of tokens, on any day with prices.

        Each is a model and the geography that it is asked in. Of prompts those count that the other one takes.
        """
        days = {price.effective for name, _ in (one, other) for price in self.models[name].prices}
        compared = False
        for day in days:
            try:
                mine, its = (self.tariff(name, geography=geography, day=day) for name, geography in (one, other))
            except LookupError:
                continue  # one of them cannot be had that day
            sizes = {step[0] + 1 for tariff in (mine, its) for step in tariff.steps}
            asked = [size for size in sizes if size <= self.models[other[0]].context_tokens]
            if not all(mine.price(size).within(its.price(size)) for size in asked):
                return False
            compared = True
        return compared


def describe(price: Price) -> str:
    """Which price a row is: "regional prompts over 200,000 tokens from 2026-10-07"."""
    tier = "" if price.tier == "standard" else f"{price.tier} "
    size = f" over {price.context_over:,} tokens" if price.context_over else ""
    return f"{tier}{price.geography} prompts{size} from {price.effective}"
