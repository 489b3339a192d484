"""From what clients ask to what is sent: InvokeModel's envelope, or Anthropic's own. `bridge.toml` is the table.

Headers and body fields travel in pairs: a beta that Bedrock does not take goes together with the fields that need it,
because one without the other is refused with a 400. What Bedrock takes changes faster than releases come: a file of the
configuration replaces rows of the table and adds others. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers.bridging import COMPACTION, Typed, table
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_gateway.call import Call
    from llmgw_gateway.providers.bridging import Beta, Table

ENVELOPE: Final = frozenset({"model", "stream", "anthropic_version", "anthropic_beta"})
"""Members that this dialect says elsewhere: in the path and in headers. A body's own would get past the table."""
VERSION: Final = msgspec.Raw(b'"bedrock-2023-05-31"')
MOST_BETAS: Final = 64
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_TRUE: Final = msgspec.Raw(b"true")
_BETA: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What may stand in a header."""
_SAID_ELSEWHERE: Final = frozenset({"anthropic_version", "anthropic_beta"})
"""Members that Anthropic's API takes as headers."""


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
        tools = msgspec.json.decode(members.get("tools", msgspec.Raw(b"[]")), type=list[Typed] | None) or []
    except UNREADABLE:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "'tools' must be an array of objects.") from None
    for tool in tools:
        if tool.type is not None and not tool.type.startswith(tuple(known.tools)):
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"Tools of the type {tool.type[:60]!r} are not available through this gateway: the provider runs them, "
                "and they have no price here. Leave them out.",
            )
