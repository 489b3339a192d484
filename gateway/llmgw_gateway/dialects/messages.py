"""Reads a body in the Anthropic Messages format, as far as the gateway must understand it and no further.

The top level is split into undecoded members in one pass; what a member holds stays as the
client wrote it, byte for byte. What goes upstream is encoded from these members, so that what was judged is what is
sent: a body that names `max_tokens` twice cannot show one value to us and another to the provider.
"""

from __future__ import annotations

import re

import msgspec

from llmgw_gateway.call import LEAST_TOKENS
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

MOST_TOKENS = 10_000_000
_MEDIA = re.compile(rb'"type"\s*:\s*"(image|document)"')
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Thinking(msgspec.Struct):
    budget_tokens: int = 0


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ONE_HOUR = (b'"ttl":"1h"', b'"ttl": "1h"')


def members_of(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members, undecoded and in order; GatewayError(REQUEST_MALFORMED) when it is no JSON object."""
    try:
        return _members.decode(body)
    except UNREADABLE as error:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"The request body is not a JSON object: {error}.") from None


def max_tokens_of(members: dict[str, msgspec.Raw]) -> int:
    """The output cap that the client asks for; 0 when it names none."""
    raw = members.get("max_tokens")
    if raw is None:
        return 0
    try:
        value = msgspec.json.decode(raw, type=int)
    except UNREADABLE:
        value = -1
    if not 0 < value <= MOST_TOKENS:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "'max_tokens' must be a positive whole number.")
    return value


def text_of(members: dict[str, msgspec.Raw], name: str) -> str:
    """A member that must be a text."""
    try:
        return msgspec.json.decode(members.get(name, msgspec.Raw(b"null")), type=str)
    except UNREADABLE:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"{name!r} is missing or not a string.") from None


def flag_of(members: dict[str, msgspec.Raw], name: str) -> bool:
    """A member that is true or false; absent and null mean false."""
    try:
        return bool(msgspec.json.decode(members.get(name, msgspec.Raw(b"null")), type=bool | None))
    except UNREADABLE:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"{name!r} must be true or false.") from None


def least_tokens_of(members: dict[str, msgspec.Raw]) -> int:
    """The smallest max_tokens that makes sense: thinking has to fit below it, and an answer after that."""
    try:
        thinking = msgspec.json.decode(members.get("thinking", msgspec.Raw(b"null")), type=_Thinking | None)
    except UNREADABLE:
        return LEAST_TOKENS  # the provider will say what is wrong with it
    return LEAST_TOKENS + (thinking.budget_tokens if thinking else 0)


def holds_media(body: bytes) -> bool:
    """Whether there may be a picture or a document in it."""
    return _MEDIA.search(body) is not None


def wants_long_cache(body: bytes) -> bool:
    """Whether one-hour cache entries are asked for (they cost twice the input price to write)."""
    return any(mark in body for mark in _ONE_HOUR)
