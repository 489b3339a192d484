"""Reads token usage from Bedrock's Converse format. Bytes in, numbers out; no I/O.

A stream tells its usage once, in the `metadata` event after `messageStop`. `inputTokens` are those that were neither
read from the cache nor written to it. Source: Amazon Bedrock API reference, TokenUsage and ConverseStreamMetadataEvent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.call import Usage
from llmgw_gateway.streams import usages
from llmgw_gateway.streams.meter import UNREADABLE, Meter
from llmgw_gateway.streams.usages import INTERVENED

if TYPE_CHECKING:
    from llmgw_gateway.streams.frames import Frame


_answer: Final = msgspec.json.Decoder(usages.ConverseAnswer)


def inner_event(frame: Frame) -> bytes | None:
    """A frame's event as the meter takes it: its type, then its payload, because the payload does not say the type."""
    return frame.headers.get(":event-type", "").encode() + frame.payload


class ConverseMeter(Meter):
    """Follows one answer of Converse or ConverseStream; what it knows is read as with its parent."""

    def event(self, data: bytes) -> str:
        """Take one event and return its type. Malformed JSON is ignored: it carries no usage."""
        kind = data[: data.find(b"{")].decode("ascii", "replace")
        if kind == "contentBlockDelta":
            self.pieces += 1
        elif kind == "messageStart":
            self.started = True
        elif kind == "messageStop":
            self.stopped = True
            self._read(data[len(kind) :])
        elif kind == "metadata":
            self._read(data[len(kind) :])
        return kind

    def answer(self, body: bytes) -> bool:
        """Take a whole, unstreamed answer; False when it is no JSON object."""
        try:
            self._understand(_answer.decode(body))
        except msgspec.ValidationError:
            return body.lstrip().startswith(b"{")  # well-formed, with a usage that is none
        except UNREADABLE:
            return False
        return True

    def _read(self, payload: bytes) -> None:
        try:
            self._understand(_answer.decode(payload))
        except UNREADABLE:
            return

    def _understand(self, said: usages.ConverseAnswer) -> None:
        self._count(said.usage)
        self.intervened = self.intervened or said.stop_reason == INTERVENED

    def _count(self, seen: usages.ConverseUsage | None) -> None:
        if seen is None:
            return
        written = seen.cache_write_input_tokens or 0
        hour = sum(each.input_tokens for each in seen.cache_details if each.ttl == "1h")
        five = sum(each.input_tokens for each in seen.cache_details if each.ttl != "1h")
        if not seen.cache_details and self.long_cache:
            hour = written  # nobody says which writes were such: all are taken for the dearer class
        self.usage = Usage(
            input=seen.input_tokens or 0,
            output=seen.output_tokens or 0,
            cache_read=seen.cache_read_input_tokens or 0,
            cache_write_5m=max(written - hour, five),
            cache_write_1h=hour,
        )
        known = seen.input_tokens is not None and seen.output_tokens is not None
        self.completeness = "complete" if known else "partial"
