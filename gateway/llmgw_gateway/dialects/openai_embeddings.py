"""Embeddings: `POST /openai/v1/embeddings` to the bodies of Titan and Cohere on Bedrock, and their answers back.

Titan takes one text a call, Cohere up to 96: a request of several texts becomes several calls, each with a hold and a
settlement of its own. Sources: Amazon Bedrock user guide, "Amazon Titan Embeddings Text" and "Cohere Embed models"
(v3 and v4); OpenAI's API reference, "Create embeddings".
"""

from __future__ import annotations

import array
import base64
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from llmgw_gateway.call import Call
from llmgw_gateway.dialects import openai
from llmgw_gateway.dialects.openai import Table, judge, malformed, raw, text

if TYPE_CHECKING:
    from llmgw_gateway.dialects.shapes import Vector

CARRIED: Final = frozenset({"dimensions", "encoding_format", "input", "input_type", "model"})
MOST_INPUTS: Final = 2_048
"""OpenAI's own limit."""
COHERE_BATCH: Final = 96
INPUT_TYPES: Final = ("search_document", "search_query", "classification", "clustering")
"""What Cohere wants to know about a text. OpenAI's format has no word for it: a member of that name is taken."""
ONE_SIZE: Final = frozenset({"amazon.titan-embed-text-v1", "cohere.embed-english-v3", "cohere.embed-multilingual-v3"})
"""Models whose vectors have one size."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request for embeddings, before it is known which model they are asked of."""

    model: str
    texts: tuple[str, ...]
    base64: bool
    dimensions: int
    """0: the model's own number."""
    input_type: str
    size: int


def read(body: bytes) -> Request:
    """Read a request; GatewayError(REQUEST_MALFORMED) names the member that is wrong or has no equivalent."""
    members = openai.document(body)
    judge(members, CARRIED, {})
    encoding = members.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        malformed("'encoding_format' must be float or base64.")
    dimensions = members.get("dimensions") or 0
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 0:
        malformed("'dimensions' must be a positive whole number.")
    kind = members.get("input_type") or INPUT_TYPES[0]
    if kind not in INPUT_TYPES:
        malformed(f"'input_type' must be one of {', '.join(INPUT_TYPES)}.")
    return Request(
        text(members.get("model"), "'model'"),
        _texts(members.get("input")),
        encoding == "base64",
        dimensions,
        str(kind),
        len(body),
    )


def calls(request: Request, bedrock_id: str) -> list[Call]:
    """The calls that a request comes to; GatewayError(REQUEST_MALFORMED) for what the model does not have."""
    titan = bedrock_id.startswith("amazon.")
    fixed = bedrock_id in ONE_SIZE
    if request.dimensions and fixed:
        malformed(f"'dimensions' is not available on {request.model}, whose vectors have one size: leave it out.")
    if titan:
        more = {"dimensions": request.dimensions} if request.dimensions else {}
        bodies: list[tuple[int, Table]] = [(1, {"inputText": each} | more) for each in request.texts]
    else:
        more = {"output_dimension": request.dimensions} if request.dimensions else {}
        shared: Table = {"input_type": request.input_type, "embedding_types": ["float"], "truncate": "NONE"} | more
        starts = range(0, len(request.texts), COHERE_BATCH)
        batches = [request.texts[start : start + COHERE_BATCH] for start in starts]
        bodies = [(len(batch), {"texts": batch} | shared) for batch in batches]
    return [_call(request.model, count, body) for count, body in bodies]


def _call(model: str, prompts: int, body: Table) -> Call:
    members = raw(body)
    return Call(
        dialect="openai",
        model=model,
        stream=False,
        max_tokens=0,
        size=sum(map(len, members.values())),
        body=None,
        members=members,
        least_tokens=0,
        kind="embedding",
        prompts=prompts,
    )


def whole(calls_: list[Call]) -> Call:
    """All calls of a request as one: what it takes of the limits on rates."""
    size, prompts = sum(each.size for each in calls_), sum(each.prompts for each in calls_)
    return msgspec.structs.replace(calls_[0], size=size, prompts=prompts, members=None)


def _texts(value: object) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not given:
        malformed("'input' must be a text or an array of texts.")
    if len(given) > MOST_INPUTS:
        malformed(f"'input' holds {len(given):,} texts; at most {MOST_INPUTS:,} go into one request.")
    if not all(isinstance(each, str) for each in given):
        malformed(
            "'input' must hold texts: numbers of tokens belong to OpenAI's models. In LangChain, set "
            "check_embedding_ctx_length=False."
        )
    if not all(given):
        malformed("'input' must not hold an empty text.")
    return tuple(given)


def answer(request: Request, found: list[Vector], prompt_tokens: int) -> bytes:
    """OpenAI's answer."""
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if request.base64 else vector}
        for index, vector in enumerate(found)
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": request.model, "usage": usage})


def _packed(vector: Vector) -> str:
    """Little-endian 32-bit floats in base64: what OpenAI's SDKs ask for by default."""
    packed = array.array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()
