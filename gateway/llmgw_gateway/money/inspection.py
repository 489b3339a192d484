"""What is odd about prices: gaps, rows that never count, numbers that look like slips. Pure; each finding a sentence.

None of these stops the gateway: a gap is charged by the dearest row there is, and a strange price may be a true one.
What cannot be used at all (a model without a price, two rows for the same thing) is refused when the file is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_gateway.call import MICRO
from llmgw_gateway.money.prices import describe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date

    from llmgw_gateway.money.prices import Catalogue, CatalogueModel, Price

CLASSES = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
JUMP = 10
"""A price that moves by this factor at once is more often a slip of the decimal point than a price."""
LEAST = MICRO // 1000
"""USD 0.001 for a million tokens: below this, somebody wrote dollars where micro-USD belong."""


def inspect(catalogue: Catalogue, shipped: Catalogue, served: Collection[str], day: date) -> list[str]:
    """Findings for the models that are served or that the operator's file speaks of."""
    names = {name for name, _ in catalogue.own} | set(served)
    findings: list[str] = []
    for name, model in catalogue.models.items():
        if name in names:
            findings += (f"{name}: {finding}" for finding in _findings(catalogue, shipped, model, day))
    return findings


def _findings(catalogue: Catalogue, shipped: Catalogue, model: CatalogueModel, day: date) -> Iterator[str]:
    yield from _gaps(model, day)
    former = shipped.models[model.name].prices if model.name in shipped.models else ()
    replaced = {price.key: price for price in former}
    for price in sorted(model.prices, key=lambda price: (price.chain, price.effective)):
        mine = (model.name, price) in catalogue.own
        yield from _slips(model, price)
        yield from _long_context(model, price)
        before = replaced.get(price.key) if mine else None
        yield from _jump(price, before or _predecessor(model, price))
        if mine:
            yield from _eclipsed(catalogue, model, price, day)


def _gaps(model: CatalogueModel, day: date) -> Iterator[str]:
    """Days, geographies and context sizes that no row of their own is for."""
    standard = [price for price in model.prices if price.tier == "standard"]
    first = min(price.effective for price in standard if not price.context_over)
    if first > day:
        yield f"has no price before {first}"
    sizes = sorted({price.context_over for price in standard})
    for geography in model.geographies:
        own = {size: [p for p in standard if p.geography == geography and p.context_over == size] for size in sizes}
        if not own[0]:
            yield f"has no price for {geography} prompts: they are charged by the dearest price of elsewhere"
            continue
        for size in sizes:
            what = f"{geography} prompts" + (f" over {size:,} tokens" if size else "")
            begins = min((price.effective for price in standard if price.context_over == size), default=first)
            if not own[size]:
                yield f"has no price for {what}: they are charged by the dearest price of elsewhere"
            elif (start := min(price.effective for price in own[size])) > begins:
                yield f"has no price for {what} from {begins} until {start}"


def _slips(model: CatalogueModel, price: Price) -> Iterator[str]:
    """Numbers that are not impossible, but that no provider has asked so far."""
    what = describe(price)
    if not any(getattr(price, name) for name in CLASSES):
        yield f"{what} cost nothing"
        return
    if 0 < max(getattr(price, name) for name in CLASSES) < LEAST:
        yield f"{what} cost less than USD 0.001 for a million tokens: amounts are micro-USD, so USD 3 is 3_000_000"
    if price.cache_read > price.input:
        yield f"{what}: a cache read is dearer than input"
    if model.kind == "text" and price.output < price.input:
        yield f"{what}: output is cheaper than input"


def _long_context(model: CatalogueModel, price: Price) -> Iterator[str]:
    """A long prompt that costs less than a short one is a way around the price."""
    if not price.context_over:
        return
    base = [
        other
        for other in model.prices
        if other.chain == (price.tier, price.geography, 0) and other.effective <= price.effective
    ]
    short = max(base, key=lambda other: other.effective, default=None)
    if short is not None and (price.input < short.input or price.output < short.output):
        yield f"{describe(price)} are cheaper than shorter ones"


def _predecessor(model: CatalogueModel, price: Price) -> Price | None:
    earlier = [other for other in model.prices if other.chain == price.chain and other.effective < price.effective]
    return max(earlier, key=lambda other: other.effective, default=None)


def _jump(price: Price, before: Price | None) -> Iterator[str]:
    if before is None:
        return
    for name in CLASSES:
        old, new = getattr(before, name), getattr(price, name)
        if old != new and max(old, new) >= JUMP * min(old, new):
            yield f"{describe(price)}: {name} jumps from USD {usd(old)} to USD {usd(new)} for a million tokens"


def _eclipsed(catalogue: Catalogue, model: CatalogueModel, price: Price, day: date) -> Iterator[str]:
    """A row of the operator that a newer row which ships has overtaken: an upgrade may have brought it."""
    current = next((each for each in catalogue.in_force(model.name, day) if each.chain == price.chain), None)
    if current is not None and current.effective > price.effective and (model.name, current) not in catalogue.own:
        yield f"{describe(price)}: your price no longer counts, because one that ships began on {current.effective}"


def usd(rate: int) -> str:
    """Micro-USD as exact dollars with at least two decimals."""
    text = f"{rate // MICRO:,}.{rate % MICRO:06d}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"
