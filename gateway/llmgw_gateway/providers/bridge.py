"""From the Anthropic dialect to Bedrock's InvokeModel: same format, other envelope. `bridge.toml` is the table.

Headers and body fields travel in pairs: a beta that Bedrock does not take goes together with the fields that need it,
because one without the other is refused with a 400. Pure.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_gateway.call import Call

ENVELOPE = frozenset({"model", "stream", "anthropic_version", "anthropic_beta"})
"""Members that this dialect says elsewhere: in the path and in headers. A body's own would get past the table."""
VERSION = msgspec.Raw(b'"bedrock-2023-05-31"')


class Beta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `anthropic-beta` value."""

    name: str
    bedrock: bool
    source: str
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
    source: str
    on_refuse: str = "drop"


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something in a body that only some models take, as `member.member`."""

    name: str
    models: tuple[str, ...]
    """Catalogue names that take it."""
    source: str


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    betas: tuple[Beta, ...]
    fields: tuple[Field, ...]
    features: tuple[Feature, ...]


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
    document = msgspec.convert(tomllib.loads(text), _Document)
    return Table(
        {beta.name: beta for beta in document.betas},
        {each.name: each for each in document.fields},
        {each.name: each for each in document.features},
    )


def invoke_body(call: Call, model: str) -> bytes:
    """The body of InvokeModel for a call of a catalogue's `model`.

    GatewayError(REQUEST_MALFORMED) names what cannot be carried over.
    """
    members = dict(call.members or {})
    if call.dialect != "bedrock" and call.kind != "embedding":
        _demand(call.features, model)
        members = _bridge(members, call.betas, model)
    return msgspec.json.encode(members)


def _demand(features: Mapping[str, str], model: str) -> None:
    """Refuse what a client asks of a model that does not have it, in the client's own words."""
    for name, called in features.items():
        having = table().features[name].models
        if model not in having:
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"{called!r} is not available on {model}: leave it out, or ask for one of {', '.join(having)}.",
            )


def _bridge(members: dict[str, msgspec.Raw], betas: tuple[str, ...], model: str) -> dict[str, msgspec.Raw]:
    known = table()
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
