"""From the Anthropic dialect to Bedrock's InvokeModel: same format, other envelope. `bridge.toml` is the table.

Headers and body fields travel in pairs: a beta that Bedrock does not take goes together with the fields that need it,
because one without the other is refused with a 400. What Bedrock takes changes faster than releases come: a file of the
configuration replaces rows of the table and adds others. Pure.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Literal

import msgspec

from llmgw_gateway.errors import ConfigurationError, GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from llmgw_gateway.call import Call

ENVELOPE = frozenset({"model", "stream", "anthropic_version", "anthropic_beta"})
"""Members that this dialect says elsewhere: in the path and in headers. A body's own would get past the table."""
COMPACTION = "compact-"
"""How the betas begin by which the provider compacts a prompt."""
VERSION = msgspec.Raw(b'"bedrock-2023-05-31"')


class Beta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `anthropic-beta` value."""

    name: str
    bedrock: bool
    source: str = ""
    sent_as: str = ""
    """What Bedrock calls it, where that differs."""
    models: tuple[str, ...] = ()
    """Catalogue names that take it; empty: all."""
    fields: tuple[str, ...] = ()
    """Top-level body members that need it."""


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One top-level body member that Bedrock does not take."""

    name: str
    bedrock: bool
    source: str = ""
    on_refuse: Literal["drop", "refuse"] = "drop"


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something in a body that only some models take, as `member.member`."""

    name: str
    models: tuple[str, ...]
    """Catalogue names that take it."""
    source: str = ""


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    betas: tuple[Beta, ...] = ()
    fields: tuple[Field, ...] = ()
    features: tuple[Feature, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """The table, by name."""

    betas: dict[str, Beta]
    fields: dict[str, Field]
    features: dict[str, Feature]


@cache
def table() -> Table:
    """The table that ships with the gateway."""
    text = resources.files("llmgw_gateway.providers").joinpath("bridge.toml").read_text(encoding="utf-8")
    return extended(Table({}, {}, {}), text, "the built-in bridging table", None)


def extended(shipped: Table, text: str, source: str, models: Collection[str] | None) -> Table:
    """A table with the rows of `text` in it: one replaces the row of its name, or joins the others.

    ConfigurationError tells what is wrong with it. Rows may name these `models` of the catalogue; None: any.
    """
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise ConfigurationError(source, [f"is no bridging table: {error}"]) from None
    faults = []
    for kind in ("betas", "fields", "features"):
        rows: tuple[Beta | Field | Feature, ...] = getattr(document, kind)
        names = [row.name for row in rows]
        faults += [f"{kind}: {name!r} stands there twice" for name in sorted({n for n in names if names.count(n) > 1})]
        faults += [
            f"{kind}.{row.name}.models: {name!r} is not in the price catalogue"
            for row in rows
            if models is not None and not isinstance(row, Field)
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


def invoke_body(call: Call, model: str, known: Table | None = None) -> bytes:
    """The body of InvokeModel for a call of a catalogue's `model`, by the table `known` or the one that ships.

    GatewayError(REQUEST_MALFORMED) names what cannot be carried over.
    """
    known = known or table()
    members = dict(call.members or {})
    if call.dialect != "bedrock" and call.kind != "embedding":
        _demand(call.features, model, known)
        members = _bridge(members, call.betas, model, known)
    return msgspec.json.encode(members)


def _demand(features: Mapping[str, str], model: str, known: Table) -> None:
    """Refuse what a client asks of a model that does not have it, in the client's own words."""
    for name, called in features.items():
        having = known.features[name].models
        if model not in having:
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"{called!r} is not available on {model}: leave it out, or ask for one of {', '.join(having)}.",
            )


def _bridge(
    members: dict[str, msgspec.Raw], betas: tuple[str, ...], model: str, known: Table
) -> dict[str, msgspec.Raw]:
    asked = [known.betas[name] for name in betas if name in known.betas]
    taken = [beta for beta in asked if beta.bedrock and (not beta.models or model in beta.models)]
    # A field stays when any accepted beta of this request brings it.
    kept = {field for beta in taken for field in beta.fields}
    lost = {field for beta in asked if beta not in taken for field in beta.fields} - kept
    result: dict[str, msgspec.Raw] = {"anthropic_version": VERSION}
    if taken:
        sent = dict.fromkeys(beta.sent_as or beta.name for beta in taken)
        result["anthropic_beta"] = msgspec.Raw(msgspec.json.encode(list(sent)))
    for name, value in members.items():
        if name in ENVELOPE or name in lost:
            continue
        field = known.fields.get(name)
        if field is not None and not field.bedrock:
            if field.on_refuse == "refuse":
                raise GatewayError(
                    ErrorCode.REQUEST_MALFORMED,
                    f"{name!r} is not available on AWS Bedrock, which serves this gateway's models: leave it out.",
                )
            continue
        result[name] = value
    return result
