"""From what clients ask to what is sent: InvokeModel's envelope, or Anthropic's own. `bridge.toml` is the table.

Headers and body fields travel in pairs: a beta that Bedrock does not take goes together with the fields that need it,
because one without the other is refused with a 400. What Bedrock takes changes faster than releases come: a file of the
configuration replaces rows of the table and adds others. Pure.
"""

from __future__ import annotations

import re
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
MOST_BETAS = 64
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TRUE = msgspec.Raw(b"true")
_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What may stand in a header."""
_SAID_ELSEWHERE = frozenset({"anthropic_version", "anthropic_beta"})
"""Members that Anthropic's API takes as headers."""


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


def invoke_body(
    call: Call, model: str, known: Table | None = None, further: Mapping[str, msgspec.Raw] | None = None
) -> bytes:
    """The body of InvokeModel for a call of a catalogue's `model`, by the table `known` or the one that ships.

    `further` are members of the gateway's own, which replace a client's.
    GatewayError(REQUEST_MALFORMED) names what cannot be carried over.
    """
    known = known or table()
    members = dict(call.members or {})
    if call.dialect != "bedrock" and call.kind != "embedding":
        _demand(call.features, model, known)
        _check_version(call.version, members, known)
        members = _bridge(members, call.betas, model, known)
    if further:
        members.update(further)
    return msgspec.json.encode(members)


def _check_version(version: str, members: Mapping[str, msgspec.Raw], known: Table) -> None:
    """Refuse what Anthropic would refuse under the client's version: Bedrock is asked under its own, which takes it.

    A version that nobody has looked at may give a member another meaning, and its answers another form.
    """
    if not version:
        return
    row = known.versions.get(version)
    if row is None:
        raise GatewayError(
            ErrorCode.REQUEST_MALFORMED,
            f"anthropic-version: {version[:40]!r} is not available on AWS Bedrock, which serves this gateway's models: "
            f"send {' or '.join(known.versions)}.",
        )
    for name in row.removed:
        if name in members and bytes(members[name]) != b"null":
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED, f"{name!r} was removed in anthropic-version {version}: leave it out."
            )


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
    result: dict[str, msgspec.Raw] = {"anthropic_version": VERSION}
    if taken:
        sent = dict.fromkeys(beta.sent_as or beta.name for beta in taken)
        result["anthropic_beta"] = msgspec.Raw(msgspec.json.encode(list(sent)))
    lost = _lost(asked, taken)
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


def _lost(asked: list[Beta], taken: list[Beta]) -> set[str]:
    """The members that go with the betas which are left out. One stays when any that is sent brings it."""
    kept = {field for beta in taken for field in beta.fields}
    return {field for beta in asked if beta not in taken for field in beta.fields} - kept


def message(call: Call, model: str, named: str, known: Table | None = None) -> tuple[bytes, str]:
    """The body for an upstream that speaks the Anthropic format, and its header `anthropic-beta` ("" for none).

    `model` is the catalogue's name, `named` what the upstream calls it. Members stay as the client wrote them, byte for
    byte and in their order; only what costs more than its tokens is left out, or refused by name with
    GatewayError(REQUEST_MALFORMED).
    """
    known = known or table()
    members = dict(call.members or {})
    betas = call.betas
    if call.dialect == "bedrock":
        betas = _betas_of(members)
    _demand(call.features, model, known)
    _check_costs(call, members, known)
    name = msgspec.Raw(msgspec.json.encode(named))
    result = {} if "model" in members else {"model": name}
    asked = [known.betas[beta] for beta in betas if beta in known.betas]
    lost = _lost(asked, [beta for beta in asked if beta.anthropic])
    for member, value in members.items():
        field = known.fields.get(member)
        if member in lost or member in _SAID_ELSEWHERE or (field is not None and not field.anthropic):
            continue
        result[member] = value
    result["model"] = name
    if call.stream:
        result["stream"] = _TRUE
    else:
        result.pop("stream", None)
    sent = [beta for beta in dict.fromkeys(betas) if _BETA.fullmatch(beta) and _passes(beta, known)]
    return msgspec.json.encode(result), ",".join(sent[:MOST_BETAS])


def _passes(beta: str, known: Table) -> bool:
    row = known.betas.get(beta)
    return not beta.startswith(COMPACTION) and (row is None or row.anthropic)


def _betas_of(members: Mapping[str, msgspec.Raw]) -> tuple[str, ...]:
    """What a body in Bedrock's dialect says that is a header elsewhere."""
    try:
        return msgspec.json.decode(members.get("anthropic_beta", msgspec.Raw(b"[]")), type=tuple[str, ...])
    except UNREADABLE:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "'anthropic_beta' must be an array of strings.") from None


class _Typed(msgspec.Struct):
    type: str | None = None


def _check_costs(call: Call, members: Mapping[str, msgspec.Raw], known: Table) -> None:
    """GatewayError(REQUEST_MALFORMED) for what the provider would bill besides tokens, or without a bound."""
    for name, value in members.items():
        field = known.fields.get(name)
        if field is not None and not field.anthropic and field.on_refuse == "refuse" and bytes(value) != b"null":
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"{name!r} is not available through this gateway: it has no price here. Leave it out.",
            )
    if call.compaction:
        raise GatewayError(
            ErrorCode.REQUEST_MALFORMED,
            "'context_management' with compaction is not available through this gateway: leave it out, and compact "
            "in the client.",
        )
    try:
        tools = msgspec.json.decode(members.get("tools", msgspec.Raw(b"[]")), type=list[_Typed] | None) or []
    except UNREADABLE:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "'tools' must be an array of objects.") from None
    for tool in tools:
        if tool.type is not None and not tool.type.startswith(tuple(known.tools)):
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"Tools of the type {tool.type[:60]!r} are not available through this gateway: the provider runs them, "
                "and they have no price here. Leave them out.",
            )
