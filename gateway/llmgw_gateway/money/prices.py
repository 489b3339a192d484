"""The price catalogue: data with effective dates, and what a call costs by it. Pure.

A model without a price is refused at start-up; a usage class without a price does not exist (every class is required),
so nothing can be free by omission. Rows of the ledger keep token classes and the catalogue's version.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass
from datetime import date  # noqa: TC003 -- msgspec reads the annotation
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from llmgw_gateway.call import MICRO
from llmgw_gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from llmgw_gateway.call import Usage

Rate = Annotated[int, Meta(ge=0)]
Geography = Literal["global", "regional"]
Tier = Literal["standard", "batch", "flex", "priority"]


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
    context_over: Annotated[int, Meta(ge=0)] = 0

    def cost(self, usage: Usage) -> int:
        """Micro-USD, rounded up: the sum of all classes, so that rounding happens once."""
        total = (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write_5m * self.cache_write_5m
            + usage.cache_write_1h * self.cache_write_1h
        )
        return -(-total // MICRO)

    @property
    def dearest_prompt(self) -> int:
        """The highest rate that a prompt token can be billed at."""
        return max(self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h)


class CatalogueModel(Struct, frozen=True, forbid_unknown_fields=True):
    """One model: its names at every place, its caps, its prices."""

    name: str
    display_name: str
    vendor: str
    bedrock_id: str
    max_output_tokens: int
    context_tokens: int
    prices: tuple[Price, ...]
    profiles: tuple[str, ...] = ()
    """Prefixes of its cross-region inference profiles: us, eu, apac, global, ..."""
    aliases: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Every name under which a client may ask for it."""
        profiled = tuple(f"{prefix}.{self.bedrock_id}" for prefix in self.profiles)
        return (self.name, *self.aliases, self.bedrock_id, *profiled)


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    models: tuple[CatalogueModel, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models that can be priced."""

    version: str
    models: dict[str, CatalogueModel]

    def price(self, model: str, *, geography: Geography, day: date, prompt_tokens: int = 0) -> Price:
        """The price that holds on `day` for a prompt of that size.

        A model without a row for the geography is charged by the dearest row it has: a gap never makes a call cheap.
        LookupError when no price is in force yet.
        """
        in_force = [
            price
            for price in self.models[model].prices
            if price.tier == "standard"
            and price.effective <= day
            and (prompt_tokens > price.context_over or not price.context_over)
        ]
        if not in_force:
            raise LookupError(f"no price of {model!r} is in force on {day}")
        tier = max(price.context_over for price in in_force)
        fitting = [price for price in in_force if price.context_over == tier]
        candidates = [price for price in fitting if price.geography == geography] or fitting
        return max(candidates, key=lambda price: (price.effective, price.dearest_prompt))


def built_in() -> Catalogue:
    """The catalogue that ships with the gateway."""
    folder = resources.files("llmgw_gateway.money").joinpath("catalogue")
    return parse(folder.joinpath("bedrock.toml").read_text(encoding="utf-8"), "the built-in price catalogue")


def parse(text: str, source: str) -> Catalogue:
    """Read a catalogue; ConfigurationError tells what is wrong with it."""
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(source, [str(error)]) from None
    faults = [f"{model.name}: has no price" for model in document.models if not model.prices]
    faults += [
        f"{model.name}: has no standard price for every prompt (context_over = 0)"
        for model in document.models
        if model.prices and not any(price.tier == "standard" and price.context_over == 0 for price in model.prices)
    ]
    counts = Counter(model.name for model in document.models)
    faults += [f"{name}: stands there twice" for name, count in counts.items() if count > 1]
    owners: dict[str, str] = {}
    for model in document.models:
        for name in set(model.names()):
            if owners.setdefault(name, model.name) != model.name:
                faults.append(f"{name}: names both {owners[name]} and {model.name}")
    if faults:
        raise ConfigurationError(source, faults)
    return Catalogue(document.version, {model.name: model for model in document.models})
