"""Members of bodies and events that the gateway decodes, each with the little of it that decides something."""

from __future__ import annotations

from typing import Annotated

import msgspec

Vector = list[float]


class Thinking(msgspec.Struct):
    """`thinking` of a question in the Anthropic format."""

    budget_tokens: int = 0


class Chunk(msgspec.Struct):
    """The payload of a `chunk` frame."""

    event: bytes = msgspec.field(name="bytes")
    """Base64 in JSON: decoded while parsing."""


class ByType(msgspec.Struct):
    """Embeddings by their type (Cohere)."""

    floats: tuple[Vector, ...] = msgspec.field(name="float")


class Embedded(msgspec.Struct):
    """Titan's answer and Cohere's: the members of one are absent in the other."""

    embedding: Vector | None = None
    embeddings: ByType | tuple[Vector, ...] | None = None
    token_count: Annotated[int, msgspec.Meta(ge=0, le=100_000_000)] | None = msgspec.field(
        default=None, name="inputTextTokenCount"
    )
