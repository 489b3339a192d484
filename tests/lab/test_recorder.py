"""Two oracles on one signature: botocore's canonicaliser in the recorder, ministack's own code behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.lab import sigv4
from tests.lab.ministack import REGION, AwsKey, Ministack, client
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.recorder import Recorder

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
PROFILE = "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/abc123"
BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "x" * 40}],
    }
)


def invoke(recorder: Recorder, key: AwsKey, model: str) -> dict[str, Any]:
    runtime = client("bedrock-runtime", recorder.url, key)
    try:
        answer: dict[str, Any] = json.loads(runtime.invoke_model(modelId=model, body=BODY)["body"].read())
    finally:
        runtime.close()
    return answer


@pytest.mark.parametrize("model", [SONNET, PROFILE])
def test_both_oracles_accept_a_true_signature(recorder: Recorder, ministack: Ministack, model: str) -> None:
    answer = invoke(recorder, ministack.key, model)
    recorder.assert_signatures()
    call = recorder.calls[0]
    assert (call.status, call.complete) == (200, True)
    assert call.usage == Usage.read(answer["usage"]) if "anthropic" in model else True
    assert "%3A" in call.request.raw_path


def test_both_oracles_refuse_a_wrong_secret(recorder: Recorder, ministack: Ministack) -> None:
    with pytest.raises(ClientError, match="signature"):
        invoke(recorder, AwsKey(ministack.key.access_key, "not-the-secret"), SONNET)
    assert recorder.calls[0].signature_fault == "the signature does not match"
    assert recorder.calls[0].status == 403


def test_a_stream_passes_unchanged_and_its_usage_is_read(recorder: Recorder, ministack: Ministack) -> None:
    runtime = client("bedrock-runtime", recorder.url, ministack.key)
    answer = runtime.invoke_model_with_response_stream(modelId=SONNET, body=BODY)
    events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    runtime.close()
    assert events[-1]["type"] == "message_stop"
    assert recorder.usages == [Usage(input=10, output=24)]


def test_what_is_changed_after_signing_is_found(recorder: Recorder, ministack: Ministack) -> None:
    invoke(recorder, ministack.key, SONNET)
    seen = recorder.calls[0].request
    unquoted = seen.raw_path.replace("%3A", ":")
    later = {**seen.headers, "X-Amz-Date": "20200101T000000Z"}
    assert not sigv4.fault(seen, ministack.key, region=REGION)
    assert sigv4.fault(replace(seen, body=seen.body + b" "), ministack.key, region=REGION)
    assert sigv4.fault(replace(seen, raw_path=unquoted), ministack.key, region=REGION)
    assert sigv4.fault(replace(seen, headers=later), ministack.key, region=REGION)
    assert sigv4.fault(seen, ministack.key, region="eu-central-1")


def test_the_key_may_invoke_models_and_nothing_else(ministack: Ministack, tmp_path: Path) -> None:
    buckets = client("s3", ministack.endpoint, ministack.key)
    with pytest.raises(ClientError, match="not authorized"):
        buckets.list_buckets()
    buckets.close()
    assert not list(tmp_path.iterdir())
