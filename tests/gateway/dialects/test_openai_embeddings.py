"""Embeddings: OpenAI's request as calls of Titan and Cohere, and their answers back."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from llmgw_gateway.call import Usage
from llmgw_gateway.dialects import openai_embeddings as embeddings
from llmgw_gateway.dialects.embeddings import EmbeddingMeter, vectors
from llmgw_gateway.errors import GatewayError

TITAN, COHERE = "amazon.titan-embed-text-v2:0", "cohere.embed-v4:0"


def request(**members: Any) -> embeddings.Request:
    return embeddings.read(json.dumps({"model": "m", "input": "x"} | members).encode())


def bodies(bedrock_id: str, **members: Any) -> list[dict[str, Any]]:
    calls = embeddings.calls(request(**members), bedrock_id)
    return [{name: json.loads(bytes(value)) for name, value in (call.members or {}).items()} for call in calls]


def test_titan_takes_one_text_a_call() -> None:
    assert bodies(TITAN, input=["a", "b"], dimensions=256) == [
        {"inputText": "a", "dimensions": 256},
        {"inputText": "b", "dimensions": 256},
    ]


def test_cohere_takes_several_and_counts_as_many_prompts() -> None:
    calls = embeddings.calls(request(input=["a"] * 97), COHERE)
    assert [call.prompts for call in calls] == [96, 1]
    assert embeddings.whole(calls).prompts == 97
    assert bodies(COHERE, input_type="clustering") == [
        {"texts": ["x"], "input_type": "clustering", "embedding_types": ["float"], "truncate": "NONE"}
    ]


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"input": []}, "'input'"),
        ({"input": 5}, "'input'"),
        ({"input": ["a", ""]}, "'input'"),
        ({"input": [[1, 2]]}, "'input'"),
        ({"input": ["a"] * 2_049}, "2,049"),
        ({"encoding_format": "hex"}, "'encoding_format'"),
        ({"dimensions": "8"}, "'dimensions'"),
        ({"input_type": "image"}, "'input_type'"),
        ({"truncate": "END"}, "'truncate'"),
        ({"model": None}, "'model'"),
    ],
)
def test_what_is_wrong_is_named(members: dict[str, Any], named: str) -> None:
    with pytest.raises(GatewayError, match=named):
        request(**members)


@pytest.mark.parametrize(
    ("body", "counted", "usage"),
    [
        (b'{"embedding":[1],"inputTextTokenCount":7}', "", Usage(input=7)),
        (b'{"embedding":[1],"inputTextTokenCount":7}', "8", Usage(input=8)),
        (b'{"embeddings":[[1]]}', "0", Usage(input=0)),
        (b'{"embeddings":[[1]]}', "", None),
        (b'{"embeddings":[[1]]}', "many", None),
        (b'{"embeddings":[[1]]}', "9" * 10, None),
        (b'{"embedding":[1],"inputTextTokenCount":-7}', "", None),
        (b"<html>", "", None),
    ],
)
def test_usage_that_is_not_told_is_unknown_and_never_zero(body: bytes, counted: str, usage: Usage | None) -> None:
    meter = EmbeddingMeter(counted)
    assert meter.answer(body) == (b"-7" not in body and b"<" not in body)
    assert (meter.usage, meter.completeness) == ((usage, "complete") if usage else (Usage(), "none"))


def test_vectors_of_either_form() -> None:
    assert vectors(b'{"embedding":[1,2.5]}') == ([1, 2.5],)
    assert vectors(b'{"embeddings":[[1],[2]]}') == ([1], [2])
    assert vectors(b'{"embeddings":{"float":[[1],[2]]}}') == ([1], [2])
    for body in (b"{}", b"<html>", b'{"embedding":"x"}'):
        with pytest.raises(GatewayError, match="no embeddings"):
            vectors(body)


def test_base64_is_what_openai_s_sdk_reads() -> None:
    document = json.loads(embeddings.answer(request(encoding_format="base64"), [[1.0, -2.5]], 3))
    packed = base64.b64decode(document["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (1.0, -2.5)
    assert document["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
