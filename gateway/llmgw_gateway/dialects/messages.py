"""Reads a body in the Anthropic Messages format, as far as the gateway must understand it and no further.

The top level is split into undecoded members in one pass; what a member holds stays as the
client wrote it, byte for byte. What goes upstream is encoded from these members, so that what was judged is what is
sent: a body that names `max_tokens` twice cannot show one value to us and another to the provider.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.call import LEAST_TOKENS
from llmgw_gateway.dialects.shapes import Thinking
from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_TOKENS: Final = 10_000_000
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_number: Final = msgspec.json.Decoder(int)
_text: Final = msgspec.json.Decoder(str)
_flag: Final = msgspec.json.Decoder(bool | None)
_thinking: Final = msgspec.json.Decoder(Thinking | None)
_NULL: Final = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class _Member:
    """Finds a member with one of some values anywhere in a document, however the JSON is spelled.

    A string holds no bare quote, so a match is a member and never a text that talks about one. Two patterns, because
    the one that knows escapes costs several times as much and hardly any body needs it; and hardly any body needs the
    other, because the value in its quotes is not in it at all.
    """

    values: tuple[bytes, ...]
    plain: re.Pattern[bytes]
    escaped: re.Pattern[bytes]

    @classmethod
    def of(cls, name: str, *values: str) -> _Member:
        """The member `name` with one of `values`; all are ASCII letters and digits."""
        quoted = tuple(f'"{value}"'.encode() for value in values)
        return cls(quoted, *(_pattern(name, values, spell) for spell in (str, _any_spelling)))

    def stands_in(self, body: bytes, *, spelled: bool) -> bool:
        """Whether there is one; `spelled`: by `_spelled`. Linear in the length of the body."""
        if spelled:
            return self.escaped.search(body) is not None
        for value in self.values:
            if value in body:
                return self.plain.search(body) is not None
        return False


_ESCAPE: Final = b"\\u00"
_ESCAPED_WORD: Final = re.compile(rb"\\u00[3-7]")
"""How every escaped letter or digit begins (RFC 8259 section 7); not what terminals and umlauts are escaped as."""


def _pattern(name: str, values: tuple[str, ...], spell: Callable[[str], str]) -> re.Pattern[bytes]:
    choice = "|".join(spell(value) for value in values)
    return re.compile(rf'"{spell(name)}"\s*:\s*"(?:{choice})"'.encode())


def _any_spelling(word: str) -> str:
    return "".join(rf"(?:{letter}|\\u00(?i:{ord(letter):02x}))" for letter in word)


_MEDIA: Final = _Member.of("type", "image", "document")
_ONE_HOUR: Final = _Member.of("ttl", "1h")


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
        value = _number.decode(raw)
    except UNREADABLE:
        value = -1
    if not 0 < value <= MOST_TOKENS:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "'max_tokens' must be a positive whole number.")
    return value


def text_of(members: dict[str, msgspec.Raw], name: str) -> str:
    """A member that must be a text."""
    try:
        return _text.decode(members.get(name, _NULL))
    except UNREADABLE:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"{name!r} is missing or not a string.") from None


def flag_of(members: dict[str, msgspec.Raw], name: str) -> bool:
    """A member that is true or false; absent and null mean false."""
    raw = members.get(name)
    if raw is None:
        return False
    try:
        return bool(_flag.decode(raw))
    except UNREADABLE:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"{name!r} must be true or false.") from None


def wants_compaction(members: dict[str, msgspec.Raw]) -> bool:
    """Whether the provider is to compact the prompt.

    It passes over the whole context as often as it likes, and bills each time: no ceiling would hold. Clients compact
    by themselves.
    """
    edits = members.get("context_management")
    if edits is None:
        return False
    try:
        # Decoded and written again, so that no spelling of JSON hides the word.
        return b"compact" in msgspec.json.encode(msgspec.json.decode(edits))
    except UNREADABLE:
        return True


def refuse_compaction(members: dict[str, msgspec.Raw]) -> None:
    """GatewayError(REQUEST_MALFORMED) for a prompt that the provider is to compact."""
    if wants_compaction(members):
        raise GatewayError(
            ErrorCode.REQUEST_MALFORMED,
            "'context_management' with compaction is not available through this gateway: leave it out, and compact "
            "in the client.",
        )


GUARDING: Final = "amazon-bedrock-guardrailConfig"


def refuse_guarding(members: dict[str, msgspec.Raw]) -> None:
    """GatewayError(REQUEST_MALFORMED) for a body that says what of it a guardrail looks at, and when."""
    if GUARDING in members:
        raise GatewayError(
            ErrorCode.REQUEST_MALFORMED,
            f"{GUARDING!r} is not available through this gateway: guardrails belong to the company's account. "
            "Leave it out.",
        )


def wants_long_context(betas: Iterable[str]) -> bool:
    """Whether a prompt may be longer than the model's usual window."""
    return any(beta.startswith("context-1m") for beta in betas)


def betas_of(members: dict[str, msgspec.Raw]) -> tuple[str, ...]:
    """The betas that a body in Bedrock's dialect names."""
    try:
        return msgspec.json.decode(members.get("anthropic_beta", msgspec.Raw(b"[]")), type=tuple[str, ...])
    except UNREADABLE:
        return ()  # the provider will say what is wrong with it


def least_tokens_of(members: dict[str, msgspec.Raw]) -> int:
    """The smallest max_tokens that makes sense: thinking has to fit below it, and an answer after that."""
    raw = members.get("thinking")
    if raw is None:
        return LEAST_TOKENS
    try:
        thinking = _thinking.decode(raw)
    except UNREADABLE:
        return LEAST_TOKENS  # the provider will say what is wrong with it
    return LEAST_TOKENS + (max(0, thinking.budget_tokens) if thinking else 0)


def holds(body: bytes) -> tuple[bool, bool]:
    """Whether there may be a picture or a document in it; whether it asks for one-hour cache entries."""
    spelled = _spelled(body)
    return _MEDIA.stands_in(body, spelled=spelled), _ONE_HOUR.stands_in(body, spelled=spelled)


def wants_long_cache(body: bytes) -> bool:
    """Whether it asks for one-hour cache entries (they cost twice the input price to write)."""
    return _ONE_HOUR.stands_in(body, spelled=_spelled(body))


def _spelled(body: bytes) -> bool:
    """Whether letters may be escaped in it."""
    return _ESCAPE in body and _ESCAPED_WORD.search(body) is not None
