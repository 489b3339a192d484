"""Reads token usage from Anthropic events and answers. Bytes in, numbers out; no I/O.

Only two kinds of events carry usage (`message_start` the prompt, `message_delta` the output so far), so only these are
decoded as JSON. Three outcomes, and settlement depends on them: nothing known, partly known, complete.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec
from msgspec.structs import replace

from llmgw_gateway.call import Completeness, Usage
from llmgw_gateway.streams import usages

LONGEST_NAME: Final = 64
"""Bytes of the longest type of an event; what is longer is none that anybody knows."""
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_event: Final = msgspec.json.Decoder(usages.Event)
_message: Final = msgspec.json.Decoder(usages.Message)
_guarded: Final = msgspec.json.Decoder(usages.Guarded)


class Meter:
    """Follows one answer. `usage` and `completeness` are valid at any moment.

    `long_cache`: the request asks for one-hour cache entries. Where the provider does not say which writes were such,
    all are taken for them: the dearer class.
    """

    def __init__(self, *, long_cache: bool = False) -> None:
        self.long_cache = long_cache
        self.usage = Usage()
        self.completeness: Completeness = "none"
        self.started = False
        """Whether a `message_start` was seen: the provider has accepted the prompt."""
        self.stopped = False
        """Whether a `message_stop` was seen: anything that breaks after it is no failure."""
        self.pieces = 0
        """Pieces of output so far (`content_block_delta`): each is a token or more."""
        self.guarded = False
        """Whether a guardrail looks at the answer: then what it did is followed, too."""
        self.intervened = False
        """Whether it has put its own words in the place of some or all of the answer."""
        self._input_known = False
        self._output_known = False

    def event(self, data: bytes) -> str:
        """Take one event's JSON and return its type ("" for none). Malformed JSON is ignored: it carries no usage."""
        kind = event_type(data)
        if self.guarded and kind != "content_block_delta":
            self._look(data)
        if kind == "content_block_delta":
            self.pieces += 1
        elif kind in {"message_start", "message_delta"}:
            self.started = True
            try:
                event = _event.decode(data)
            except UNREADABLE:
                return kind
            self._take(event.usage or (event.message.usage if event.message else None), final=kind == "message_delta")
            if event.last:
                self._whole()
        elif kind == "message_stop":
            self.stopped = True
            self._whole()
        return kind

    def answer(self, body: bytes) -> bool:
        """Take a whole, unstreamed answer; False when it is no JSON object, for which a client could do nothing."""
        try:
            body.decode()  # RFC 8259 section 8.1; the decoder looks only at the strings that it keeps
            message = _message.decode(body)
        except msgspec.ValidationError:
            return _is_object(body)  # with a usage that is none, at least
        except UNREADABLE:
            return False
        self._take(message.usage, final=True)
        self._whole()
        if self.guarded:
            self._look(body)
        return True

    def _look(self, data: bytes) -> None:
        """Take what an event or an answer says of a guardrail: by a member of its own, or as the reason to stop.

        InvokeModel documents the member; of the models, some say `end_turn` all the same.
        """
        if b"guardrail" not in data:
            return
        try:
            said = _guarded.decode(data)
        except UNREADABLE:
            return
        reasons = (said.stop_reason, said.delta.stop_reason if said.delta is not None else None)
        self.intervened = self.intervened or said.action in usages.ACTED or usages.INTERVENED in reasons

    def _whole(self) -> None:
        """The answer is at its end: the usage is complete, if all of it was told."""
        if self._input_known and self._output_known:
            self.completeness = "complete"

    def _take(self, seen: usages.Usage | None, *, final: bool) -> None:
        """Merge what an event says: a member that is absent leaves what is known, an explicit zero is a zero."""
        if seen is None:
            return
        seen = seen.whole()
        usage = self.usage
        if seen.input_tokens is not None:
            usage = replace(usage, input=seen.input_tokens)
            self._input_known = True
        if seen.cache_read_input_tokens is not None:
            usage = replace(usage, cache_read=seen.cache_read_input_tokens)
        if seen.cache_creation is not None:
            hour, five = seen.cache_creation.ephemeral_1h_input_tokens, seen.cache_creation.ephemeral_5m_input_tokens
            total = seen.cache_creation_input_tokens if seen.cache_creation_input_tokens is not None else five + hour
            usage = replace(usage, cache_write_1h=hour, cache_write_5m=max(total - hour, five))
        elif seen.cache_creation_input_tokens is not None:
            # A later event repeats the total without the split: what an hour's share is already known stays.
            total = seen.cache_creation_input_tokens
            known = usage.cache_write_5m + usage.cache_write_1h > 0
            hour = min(usage.cache_write_1h, total) if known or not self.long_cache else total
            usage = replace(usage, cache_write_1h=hour, cache_write_5m=total - hour)
        if seen.output_tokens is not None:
            usage = replace(usage, output=seen.output_tokens)
            self._output_known = self._output_known or final
        self.usage = usage
        if self.completeness == "none":
            self.completeness = "partial"


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except UNREADABLE:
        return False


def event_type(data: bytes) -> str:
    """The `type` of an event without decoding it, where it stands first (every known upstream writes it there).

    "" for one that is no name: it is written into a line of its own, and must not make another.
    """
    if data.startswith(b'{"type":"'):
        end = data.find(b'"', 9, 9 + LONGEST_NAME)
        if end > 0:
            return _name(data[9:end])
    try:
        kind = _event.decode(data).type
    except UNREADABLE:
        return ""
    return kind if kind.isidentifier() and len(kind) < LONGEST_NAME else ""


@lru_cache(maxsize=64)
def _name(written: bytes) -> str:
    """A type as text, remembered: there are a dozen of them."""
    kind = written.decode("ascii", "replace")
    return kind if kind.isidentifier() else ""
