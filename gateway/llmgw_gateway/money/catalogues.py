"""Reads price catalogues: those that ship, and an operator's file that extends them.

An operator's file is read in the same format, its rows replace or join those of a known model, and its digest becomes
a part of the version: a ledger row always tells by which prices it was made.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.money.prices import Catalogue, CatalogueModel, Price, describe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DIGEST = 12
"""Hexadecimal digits of an operator's file in a version: few enough for the ledger's column."""


Table = dict[str, Any]


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    models: tuple[Table, ...]


class _Extension(Struct, frozen=True, forbid_unknown_fields=True):
    models: tuple[Table, ...]
    version: str = ""
    """Allowed, so that a copy of the shipped catalogue can be a start; what counts is the file's digest."""


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
