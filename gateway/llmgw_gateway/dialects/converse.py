"""Bedrock's Converse: `POST /bedrock/model/{id}/converse[-stream]`. The upstream is asked in the same format.

What is read of a request is what money needs: the output cap, pictures and files, the cache, what goes to the model
past Converse. Refused by name is what costs more than the catalogue knows, or reaches into the company's account:
service tiers, guardrails, files in S3. Source: Amazon Bedrock API reference, Converse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from llmgw_gateway.call import LEAST_TOKENS, Call
from llmgw_gateway.dialects import messages
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE: Final = Raw(b"null")
T = TypeVar("T")
REFUSED: Final = {
    "guardrailConfig": "guardrails belong to the company's account",
    "promptVariables": "stored prompts belong to the company's account",
}


class _Inference(Struct, rename="camel"):
    max_tokens: int | None = None


class _Tier(Struct):
    type: str = "default"


class _Performance(Struct):
    latency: str = "standard"


class _Source(Struct, rename="camel"):
    s3_location: Raw = NONE


class _Media(Struct):
    source: _Source | None = None


class _CachePoint(Struct):
    ttl: str = ""


class _Block(Struct, rename="camel"):
    """A part of a message or of the system prompt, as far as it matters here."""

    guard_content: Raw = NONE

    image: _Media | None = None
    document: _Media | None = None
    video: _Media | None = None
    audio: _Media | None = None
    cache_point: _CachePoint | None = None
    tool_result: _Result | None = None

    @property
    def media(self) -> tuple[_Media, ...]:
        """The picture or file in it, or those in the result of a tool."""
        own = (self.image, self.document, self.video, self.audio)
        inner = self.tool_result.content if self.tool_result is not None else ()
        return (*(each for each in own if each is not None), *(media for block in inner for media in block.media))


class _Result(Struct):
    content: tuple[_Block, ...] = ()


class _Message(Struct):
    content: tuple[_Block, ...] = ()


class _Thinking(Struct):
    budget_tokens: int = 0


class _Further(Struct):
    """`additionalModelRequestFields`: what goes to the model as it is."""

    anthropic_beta: tuple[str, ...] = ()
    thinking: _Thinking | None = None
    max_tokens: Raw = NONE


def read(body: bytes, model: str, *, stream: bool) -> Call:
    """Read a request; the model stands in the path, already percent-decoded.

    GatewayError(REQUEST_MALFORMED) names what cannot be had, or is not in Converse's format.
    """
    members = messages.members_of(body)
    for name, why in REFUSED.items():
        if members.get(name, NONE) != NONE:
            raise _refusal(f"{name!r} is not available through this gateway: {why}. Leave it out.")
    if _member(members, "serviceTier", _Tier, _Tier()).type != "default":
        raise _refusal("'serviceTier' is available through this gateway only as default: leave it out.")
    if _member(members, "performanceConfig", _Performance, _Performance()).latency != "standard":
        raise _refusal("'performanceConfig' is available through this gateway only as standard: leave it out.")
    blocks = [block for message in _member(members, "messages", tuple[_Message, ...], ()) for block in message.content]
    media = tuple(found for block in blocks for found in block.media)
    if any(block.guard_content != NONE for block in (*blocks, *_member(members, "system", tuple[_Block, ...], ()))):
        # A guardrail would look at what is marked so, and at nothing else.
        raise _refusal("'guardContent' is not available through this gateway: send it as text.")
    if any(each.source is not None and each.source.s3_location != NONE for each in media):
        raise _refusal("'s3Location' is not available through this gateway: send the content itself, as bytes.")
    further = _further(members)
    _member(members, "inferenceConfig", dict[str, Raw], {})  # what a cap is written into later has to be readable
    cap = _member(members, "inferenceConfig", _Inference, _Inference()).max_tokens
    return Call(
        dialect="bedrock",
        model=model,
        stream=stream,
        max_tokens=_cap(cap),
        size=len(body),
        body=body,
        members=members,
        media=bool(media),
        long_cache=messages.wants_long_cache(body),
        least_tokens=LEAST_TOKENS + (max(0, further.thinking.budget_tokens) if further.thinking else 0),
        long_context=messages.wants_long_context(further.anthropic_beta),
        operation="converse",
        with_cap=_with_cap,
    )


def _further(members: Mapping[str, Raw]) -> _Further:
    name = "additionalModelRequestFields"
    raw = members.get(name, NONE)
    if raw == NONE:
        return _Further()
    outer = _member(members, name, dict[str, Raw], {})
    messages.refuse_compaction(outer)
    messages.refuse_guarding(outer)
    further = _member(members, name, _Further, _Further())
    if further.max_tokens != NONE:
        raise _refusal(f"{name}.max_tokens would go past the cap that a budget knows: say inferenceConfig.maxTokens.")
    return further


def _member(members: Mapping[str, Raw], name: str, kind: type[T], absent: T) -> T:
    """A member in the form that Converse gives it; `absent` when it is not there or null."""
    raw = members.get(name, NONE)
    if raw == NONE:
        return absent
    try:
        return msgspec.json.decode(raw, type=kind)
    except messages.UNREADABLE as error:
        raise _refusal(f"{name!r} is not in the format of Bedrock's Converse: {error}.") from None


def _cap(asked: int | None) -> int:
    if asked is None:
        return 0
    if not 0 < asked <= messages.MOST_TOKENS:
        raise _refusal("'inferenceConfig.maxTokens' must be a positive whole number.")
    return asked


def _with_cap(members: Mapping[str, Raw], most: int) -> dict[str, Raw]:
    raw = members.get("inferenceConfig", NONE)
    config: dict[str, Raw] = {} if raw == NONE else msgspec.json.decode(raw, type=dict[str, Raw])
    config["maxTokens"] = Raw(str(most).encode())
    return {**members, "inferenceConfig": Raw(msgspec.json.encode(config))}


def _refusal(text: str) -> GatewayError:
    return GatewayError(ErrorCode.REQUEST_MALFORMED, text)
