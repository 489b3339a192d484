"""The price catalogue: data with effective dates, and what a call costs by it. Pure.

A model without a price is refused at start-up; a usage class without a price does not exist (every class is required),
so nothing can be free by omission. Rows of the ledger keep token classes and the catalogue's version.

An operator's file extends the catalogue that ships: it is read in the same format, its rows replace or join those of a
known model, and its digest becomes a part of the version: a ledger row always tells by which prices it was made.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from dataclasses import dataclass
from datetime import date  # noqa: TC003 -- msgspec reads the annotation
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from llmgw_gateway.call import MICRO, Geography
from llmgw_gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from llmgw_gateway.call import Usage
    from llmgw_gateway.money.amounts import Amounts

Rate = Annotated[int, Meta(ge=0, le=10**12)]
Count = Annotated[int, Meta(ge=0, le=10**9)]
Tier = Literal["standard", "batch", "flex", "priority"]
Kind = Literal["text", "embedding"]
Table = dict[str, Any]
DIGEST = 12
"""Hexadecimal digits of an operator's file in a version: few enough for the ledger's column."""


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
    bedrock_id: str
    max_output_tokens: Count
    context_tokens: Annotated[int, Meta(ge=1, le=10**9)]
    prices: tuple[Price, ...]
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
        return ("global", "regional") if "global" in self.profiles else ("regional",)

    def names(self) -> tuple[str, ...]:
        """Every name under which a client may ask for it."""
        profiled = tuple(f"{prefix}.{self.bedrock_id}" for prefix in self.profiles)
        return (self.name, *self.aliases, self.bedrock_id, *profiled)


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    models: tuple[Table, ...]


class _Extension(Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[Table, ...]
    version: str = ""
    """Allowed, so that a copy of the shipped catalogue can be a start; what counts is the file's digest."""


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


def built_in(*, embeddings: bool = False) -> Catalogue:
    """The catalogue that ships with the gateway: the models that answer prompts; with `embeddings` also those."""
    source = "the built-in price catalogue"
    bedrock = parse(_shipped("bedrock.toml"), source)
    models, _ = _merged(bedrock.models, _shipped("anthropic.toml"), source)
    texts = Catalogue(bedrock.version, models)
    if not embeddings:
        return texts
    others = parse(_shipped("embeddings.toml"), "the built-in prices of embedding models")
    return Catalogue(texts.version, texts.models | others.models)


def load(file: Path | None) -> Catalogue:
    """All that ships, with the operator's file merged into it. ConfigurationError tells what is wrong with the file."""
    shipped = built_in(embeddings=True)
    if file is None:
        return shipped
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(str(file), [f"cannot be read: {error.strerror}"]) from None
    return extended(shipped, content, str(file))


def parse(text: str, source: str) -> Catalogue:
    """Read a catalogue; ConfigurationError tells what is wrong with it."""
    document = _document(text, source, _Document)
    faults: list[str] = []
    read = [_model(table, number, {}, faults) for number, table in enumerate(document.models)]
    models = [model for model, _ in filter(None, read)]
    faults += _faults(models)
    if faults:
        raise ConfigurationError(source, faults)
    return Catalogue(document.version, {model.name: model for model in models})


def extended(shipped: Catalogue, content: bytes, source: str) -> Catalogue:
    """Merge an operator's file into a catalogue; ConfigurationError tells what is wrong with the file.

    A row with the same day, geography, tier and context size replaces the shipped one, any other is added. Of a model
    that is known only the name has to be repeated; other keys that stand there replace what ships.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(source, ["is not UTF-8 text"]) from None
    models, own = _merged(shipped.models, text, source)
    version = f"{shipped.version}+{hashlib.sha256(content).hexdigest()[:DIGEST]}"
    return Catalogue(version, models, own)


def _merged(
    known: dict[str, CatalogueModel], text: str, source: str
) -> tuple[dict[str, CatalogueModel], frozenset[tuple[str, Price]]]:
    """Models with those of a text in them, and the rows that it brought; ConfigurationError as for `extended`."""
    document = _document(text, source, _Extension)
    faults: list[str] = []
    read = [_model(table, number, known, faults) for number, table in enumerate(document.models)]
    given = [entry for entry in read if entry is not None]
    faults += _doubles(model.name for model, _ in given)
    for model, own in given:
        faults += _double_rows(model.name, own)
    models = known | {model.name: model for model, _ in given}
    faults += [fault for fault in _faults(models.values()) if fault not in faults]
    if faults:
        raise ConfigurationError(source, faults)
    return models, frozenset((model.name, price) for model, own in given for price in own)


def _shipped(name: str) -> str:
    return resources.files("llmgw_gateway.money").joinpath("catalogue", name).read_text(encoding="utf-8")


def _document(text: str, source: str, kind: type[Any]) -> Any:  # noqa: ANN401 -- an instance of `kind`
    try:
        return msgspec.convert(tomllib.loads(text), kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(source, [_located("", error)]) from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:  # ValueError: a number of 5,000 digits
        raise ConfigurationError(source, [f"is not valid TOML: {error}"]) from None


def _model(
    table: Table, number: int, known: dict[str, CatalogueModel], faults: list[str]
) -> tuple[CatalogueModel, tuple[Price, ...]] | None:
    """One model of a file and the rows that the file itself has for it; None, and a fault, when it cannot be read."""
    name = table.get("name")
    place = name if isinstance(name, str) and name else f"models[{number}]"
    base = known.get(place)
    given = (msgspec.structs.asdict(base) if base else {}) | table
    rows = table.get("prices", [])
    if given.get("kind") == "embedding":
        given.setdefault("max_output_tokens", 0)
        rows = [_input_only(row) for row in rows] if isinstance(rows, list) else rows
    try:
        own = msgspec.convert(rows, tuple[Price, ...])
    except msgspec.ValidationError as error:
        faults.append(_located(f"{place}.prices", error))
        return None
    try:
        model = msgspec.convert(given | {"prices": ()}, CatalogueModel)
    except msgspec.ValidationError as error:
        faults.append(_located(place, error))
        return None
    replaced = {price.key for price in own}
    kept = tuple(price for price in base.prices if price.key not in replaced) if base else ()
    return msgspec.structs.replace(model, prices=kept + own), own


def _input_only(row: object) -> object:
    """The price of an embedding model, completed: what it does not have costs what its input costs."""
    if not isinstance(row, dict) or "input" not in row:
        return row
    return dict.fromkeys(("output", "cache_read", "cache_write_5m", "cache_write_1h"), row["input"]) | row


def _located(place: str, error: msgspec.ValidationError) -> str:
    """Name the key before the complaint: `claude-x.prices[0].input: Expected ...`."""
    what, _, path = str(error).partition(" - at `$")
    where = (place + path.rstrip("`")).lstrip(".")
    return f"{where}: {what}" if where else what


def _faults(models: Iterable[CatalogueModel]) -> list[str]:
    """What makes a catalogue unusable: a price that is missing or could be either of two, a name that means two."""
    models = list(models)
    faults = _doubles(model.name for model in models)
    owners: dict[str, str] = {}
    for model in models:
        if not model.prices:
            faults.append(f"{model.name}: has no price")
        elif not any(price.tier == "standard" and price.context_over == 0 for price in model.prices):
            faults.append(f"{model.name}: has no standard price for every prompt (context_over = 0)")
        if model.kind == "text" and not model.max_output_tokens:
            faults.append(f"{model.name}.max_output_tokens: must be at least 1")
        faults += _double_rows(model.name, model.prices)
        for name in sorted(set(model.names())):
            if owners.setdefault(name, model.name) != model.name:
                faults.append(f"{name}: names both {owners[name]} and {model.name}")
    return faults


def _doubles(names: Iterable[str]) -> list[str]:
    return [f"{name}: stands there twice" for name, count in Counter(names).items() if count > 1]


def _double_rows(name: str, prices: Sequence[Price]) -> list[str]:
    """Two rows for the same thing from the same day on: nobody could say which of them is the price."""
    counts = Counter(price.key for price in prices)
    return [
        f"{name}.prices: two rows for {describe(price)}"
        for price in {price.key: price for price in prices}.values()
        if counts[price.key] > 1
    ]


def describe(price: Price) -> str:
    """Which price a row is: "regional prompts over 200,000 tokens from 2026-10-07"."""
    tier = "" if price.tier == "standard" else f"{price.tier} "
    size = f" over {price.context_over:,} tokens" if price.context_over else ""
    return f"{tier}{price.geography} prompts{size} from {price.effective}"
