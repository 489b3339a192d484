"""Real clients against gateway and emulator: boto3 and the Anthropic SDK, streaming and not, and two SigV4 oracles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import boto3
import httpx2
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.functional import ledger
from tests.functional.device import BEDROCK, Device
from tests.lab.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.recorder import Recorder

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def recorded(tmp_path: Path, canaille: Canaille, recorder: Recorder) -> Iterator[Gateway]:
    """A gateway before the recording proxy before the AWS emulator."""
    with Gateway(
        tmp_path / "gateway",
        issuers=[canaille.issuer_section()],
        endpoint=recorder.endpoint,
        region=recorder.region,
        credentials=recorder.key.environment(),
    ) as running:
        yield running


@pytest.fixture
def laptop(recorded: Gateway, sign_in: Callable[[str], str]) -> Device:
    device = Device(recorded.url)
    device.exchange(sign_in("ada"))
    return device


@pytest.fixture
def boto(laptop: Device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """boto3 as a user of the gateway has it: a bearer token and another endpoint, nothing else."""
    # The only patch: boto3 takes a bearer token from this variable and from nowhere else.
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", laptop.token)
    for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    config = Config(retries={"total_max_attempts": 1})
    url = f"{laptop.url}/bedrock"
    return boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=url, config=config)


@pytest.fixture
def sdk(laptop: Device) -> Iterator[anthropic.Anthropic]:
    with (
        httpx2.Client(trust_env=False) as plain,
        anthropic.Anthropic(base_url=laptop.url, auth_token=laptop.token, max_retries=0, http_client=plain) as client,
    ):
        yield client


def test_boto3_invokes_and_streams(recorded: Gateway, recorder: Recorder, boto: Any) -> None:
    whole = boto.invoke_model(modelId=MODEL, body=json.dumps(BEDROCK))
    assert json.loads(whole["body"].read())["content"]
    stream = boto.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(BEDROCK))
    events = [json.loads(event["chunk"]["bytes"]) for event in stream["body"]]
    assert events[0]["type"] == "message_start"
    assert events[-1]["type"] == "message_stop"
    rows = ledger.settled(recorded.db, 2)
    assert [ledger.usage_of(row) for row in rows] == recorder.usages


def test_boto3_raises_the_right_exception_with_our_text(boto: Any) -> None:
    with pytest.raises(ClientError) as caught:
        boto.invoke_model(modelId="anthropic.unknown", body=json.dumps(BEDROCK))
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_the_anthropic_sdk_asks_and_streams(recorded: Gateway, recorder: Recorder, sdk: anthropic.Anthropic) -> None:
    whole = sdk.messages.create(model="claude-sonnet-5-5", max_tokens=50, messages=MESSAGES)
    assert whole.content
    with sdk.messages.stream(model="claude-sonnet-5-5", max_tokens=50, messages=MESSAGES) as stream:
        assert "".join(stream.text_stream)
        final = stream.get_final_message()
    rows = ledger.settled(recorded.db, 2)
    assert [ledger.usage_of(row) for row in rows] == recorder.usages
    assert final.usage.output_tokens == rows[1].output_tokens
    assert [model.id for model in sdk.models.list()]


def test_the_anthropic_sdk_s_own_version_is_kept_to(
    recorded: Gateway, recorder: Recorder, sdk: anthropic.Anthropic
) -> None:
    """It sends 2026-10-21, which has taken members away; Bedrock, which is asked under its own, would take them."""

    def ask(**headers: str) -> anthropic.types.Message:
        return sdk.messages.create(
            model="claude-sonnet-5-5",
            max_tokens=50,
            messages=MESSAGES,
            extra_body={"temperature": 0.2},
            extra_headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    with pytest.raises(anthropic.BadRequestError, match="'temperature' was removed in anthropic-version 2026-10-21"):
        ask()
    assert ask(anthropic_version="2023-06-01").content
    with pytest.raises(anthropic.BadRequestError, match="anthropic-version: '2027-01-01' is not available"):
        ask(anthropic_version="2027-01-01")
    rows = ledger.settled(recorded.db, 3)
    assert sorted(row.cost > 0 for row in rows) == [False, False, True], "what was refused here was not sent"
    assert len(recorder.calls) == 1


def test_the_anthropic_sdk_maps_our_refusals(sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="claude-sonnet-4-5"):
        sdk.messages.create(model="gpt-4", max_tokens=50, messages=MESSAGES)


@pytest.mark.parametrize(
    "model",
    [MODEL, MODEL.removeprefix("us."), MODEL.replace("us.", "global."), "claude-sonnet-4-5"],
)
def test_two_oracles_agree_with_our_signatures(recorder: Recorder, laptop: Device, model: str) -> None:
    """Oracle A re-signs the received request with botocore; oracle B is the emulator's own code, which answers 403."""
    quoted = model.replace(":", "%3A")
    for stream in (False, True):
        assert laptop.ask_bedrock(model=quoted, stream=stream).status == 200
        assert laptop.ask(model=model, stream=stream).status == 200
    recorder.assert_signatures()
    assert [call.status for call in recorder.calls] == [200] * 4
    assert all("%3A" in call.request.raw_path for call in recorder.calls)


def test_the_oracles_would_see_a_wrong_secret(recorded: Gateway, recorder: Recorder, laptop: Device) -> None:
    recorded.program.env["AWS_SECRET_ACCESS_KEY"] = "x" * 40
    recorded.restart()
    assert laptop.ask().status == 400
    assert recorder.calls[0].signature_fault
    assert recorder.calls[0].status == 403
