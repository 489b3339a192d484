"""What each upstream takes of headers and bodies: `bridge.toml`, and a configuration's rows in its place."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

import msgspec

from llmgw_gateway.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


COMPACTION = "compact-"
"""How the betas begin by which the provider compacts a prompt."""


class Beta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `anthropic-beta` value."""

    name: str
    bedrock: bool
    anthropic: bool = True
    """Whether it is sent to an upstream that speaks the Anthropic format. Values without a row are."""
    source: str = ""
    sent_as: str = ""
    """What Bedrock calls it, where that differs."""
    models: tuple[str, ...] = ()
    """Catalogue names that take it; empty: all."""
    fields: tuple[str, ...] = ()
    """Top-level body members that need it."""


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One top-level body member that Bedrock does not take, or that costs what no price here says."""

    name: str
    bedrock: bool
    anthropic: bool = True
    """The same for an upstream that speaks the Anthropic format. Members without a row are sent on."""
    source: str = ""
    on_refuse: Literal["drop", "refuse"] = "drop"


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something in a body that only some models take, as `member.member`."""

    name: str
    models: tuple[str, ...]
    """Catalogue names that take it."""
    source: str = ""


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `type` of a tool that the client itself runs, or its beginning: what it costs is tokens alone."""

    name: str
    source: str = ""


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version of the Anthropic format that is carried over to Bedrock's: one that only takes members away."""

    name: str
    removed: tuple[str, ...] = ()
    """Top-level members that this version refuses."""
    source: str = ""


class Typed(msgspec.Struct):
    """The `type` of a tool in a body."""

    type: str | None = None


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    betas: tuple[Beta, ...] = ()
    fields: tuple[Field, ...] = ()
    features: tuple[Feature, ...] = ()
    tools: tuple[Tool, ...] = ()
    versions: tuple[Version, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The table, by name."""

    betas: dict[str, Beta]
    fields: dict[str, Field]
    features: dict[str, Feature]
    tools: dict[str, Tool]
    versions: dict[str, Version]


@cache
def table() -> Table:
    """The table that ships with the gateway."""
    text = resources.files("llmgw_gateway.providers").joinpath("bridge.toml").read_text(encoding="utf-8")
    return extended(Table({}, {}, {}, {}, {}), text, "the built-in bridging table", None)


def extended(shipped: Table, text: str, source: str, models: Collection[str] | None) -> Table:
    """A table with the rows of `text` in it: one replaces the row of its name, or joins the others.

    ConfigurationError tells what is wrong with it. Rows may name these `models` of the catalogue; None: any.
    """
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise ConfigurationError(source, [f"is no bridging table: {error}"]) from None
    faults = []
    for kind in ("betas", "fields", "features", "tools", "versions"):
        rows: tuple[Beta | Field | Feature | Tool | Version, ...] = getattr(document, kind)
        names = [row.name for row in rows]
        faults += [f"{kind}: {name!r} stands there twice" for name in sorted({n for n in names if names.count(n) > 1})]
        faults += [
            f"{kind}.{row.name}.models: {name!r} is not in the price catalogue"
            for row in rows
            if models is not None and isinstance(row, Beta | Feature)
            for name in row.models
            if name not in models
        ]
    faults += [
        f"betas.{beta.name}.bedrock: must stay false: each pass over the context is billed, and no ceiling holds"
        for beta in document.betas
        if beta.bedrock and beta.name.startswith(COMPACTION)
    ]
    if faults:
        raise ConfigurationError(source, faults)
    return Table(
        shipped.betas | {each.name: each for each in document.betas},
        shipped.fields | {each.name: each for each in document.fields},
        shipped.features | {each.name: each for each in document.features},
        shipped.tools | {each.name: each for each in document.tools},
        shipped.versions | {each.name: each for each in document.versions},
    )


def load(file: Path | None, models: Collection[str]) -> Table:
    """The table that ships, with the operator's file in it; ConfigurationError tells what is wrong with the file."""
    if file is None:
        return table()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigurationError(str(file), [f"cannot be read: {why}"]) from None
    return extended(table(), text, str(file), models)
