"""What Anthropic's events and answers say of their usage, and of a guardrail: the members that are decoded."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=100_000_000)]
"""Beyond it is no number of tokens: such a usage is unknown."""


class CacheCreation(Struct):
    """What was written to the cache, by how long it stays there."""

    ephemeral_5m_input_tokens: Count = 0
    ephemeral_1h_input_tokens: Count = 0


class Iteration(Struct):
    """One pass over the context: where there are several, the top level counts only the last."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count = 0
    cache_creation_input_tokens: Count = 0


class Usage(Struct):
    """Tokens, as an event or an answer counts them."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: CacheCreation | None = None
    iterations: tuple[Iteration, ...] | None = None

    def whole(self) -> Usage:
        """All passes together, where the provider lists several."""
        passes = self.iterations or ()
        if len(passes) < 2 and not any((each.input_tokens or 0) > (self.input_tokens or 0) for each in passes):  # noqa: PLR2004
            return self
        return Usage(
            input_tokens=_sum([each.input_tokens for each in passes]),
            output_tokens=_sum([each.output_tokens for each in passes]),
            cache_read_input_tokens=sum(each.cache_read_input_tokens for each in passes),
            cache_creation_input_tokens=sum(each.cache_creation_input_tokens for each in passes),
        )


def _sum(counts: list[int | None]) -> int | None:
    """All together; where one is unknown, so is the sum."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


class Message(Struct):
    """`message_start` holds one."""

    usage: Usage | None = None


class Event(Struct):
    """One event, as far as it tells a usage or its end."""

    type: str = ""
    message: Message | None = None
    usage: Usage | None = None
    delta: object = None

    @property
    def last(self) -> bool:
        """Whether it says why the answer ended: what it counts is the whole answer."""
        return isinstance(self.delta, dict) and self.delta.get("stop_reason") is not None


INTERVENED = "guardrail_intervened"
"""The reason for which an answer ended (Amazon Bedrock API reference, StopReason)."""
ACTED = frozenset({"INTERVENED", "GUARDRAIL_INTERVENED"})


class Delta(Struct):
    """What `message_delta` changes."""

    stop_reason: str | None = None


class Guarded(Struct):
    """What an answer or an event says of a guardrail (Amazon Bedrock API reference, InvokeModel, examples)."""

    action: str = msgspec.field(default="", name="amazon-bedrock-guardrailAction")
    stop_reason: str | None = None
    delta: Delta | None = None


class Written(Struct, rename="camel"):
    """What was written to the cache for one time."""

    ttl: str = ""
    input_tokens: Count = 0


class ConverseUsage(Struct, rename="camel"):
    """Tokens, as Converse counts them."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_write_input_tokens: Count | None = None
    cache_details: tuple[Written, ...] = ()


class ConverseAnswer(Struct, rename="camel"):
    """A whole answer, the `metadata` event, or `messageStop`."""

    usage: ConverseUsage | None = None
    stop_reason: str | None = None
