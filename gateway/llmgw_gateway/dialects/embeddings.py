"""Answers of embedding models on Bedrock: their vectors, and what they were billed for.

Titan says the tokens in its answer, Cohere only in the head (`x-amzn-bedrock-input-token-count`). Sources: Amazon
Bedrock user guide, "Amazon Titan Embeddings Text" and "Cohere Embed models".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.call import Usage
from llmgw_gateway.dialects.shapes import ByType, Embedded, Vector
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.meter import UNREADABLE, Meter
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from llmgw_gateway.call import Call

_answer: Final = msgspec.json.Decoder(Embedded)


def vectors(body: bytes) -> tuple[Vector, ...]:
    """The vectors of an answer of the provider; GatewayError(UPSTREAM_INVALID) when there are none."""
    try:
        found = _answer.decode(body)
    except UNREADABLE:
        found = Embedded()
    if found.embedding is not None:
        return (found.embedding,)
    if found.embeddings is None:
        raise GatewayError(ErrorCode.UPSTREAM_INVALID, "The provider's answer holds no embeddings.")
    return found.embeddings.floats if isinstance(found.embeddings, ByType) else found.embeddings


def prepare(call: Call) -> None:
    """Say of a call in the model's own format what money has to know; GatewayError(REQUEST_MALFORMED) for pictures.

    They cost more than texts, and the catalogue does not know how much.
    """
    members = call.members or {}
    for name in ("images", "inputs", "inputImage"):
        if name in members:
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"{name!r} is not available through this gateway, which gives embeddings of texts only: leave it out.",
            )
    try:
        texts = msgspec.json.decode(members.get("texts", msgspec.Raw(b"[0]")), type=list[msgspec.Raw])
    except UNREADABLE:
        texts = []  # the provider will say what is wrong with it
    call.kind, call.least_tokens, call.prompts = "embedding", 0, max(1, len(texts))


class EmbeddingMeter(Meter):
    """Follows the answer of an embedding model; `counted` is what the head says about the tokens."""

    def __init__(self, counted: str) -> None:
        super().__init__()
        self._counted = counted

    def answer(self, body: bytes) -> bool:
        """Take a whole answer; False when it cannot be read. Usage that nobody told stays unknown."""
        try:
            said = _answer.decode(body).token_count
        except UNREADABLE:
            return False
        if self._counted.isascii() and self._counted.isdecimal() and len(self._counted) <= MOST_DIGITS:
            said = int(self._counted)
        if said is not None:
            self.usage, self.completeness = Usage(input=said), "complete"
        return True


MOST_DIGITS: Final = 9
"""A longer one is no number of tokens."""
