"""Bedrock's Converse, its lists and its counting of tokens, with boto3 and LangChain through a running gateway."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from langchain_aws import BedrockEmbeddings, ChatBedrock, ChatBedrockConverse
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

from tests.lab.scripted import Answer, ScriptedBedrock, vector_of
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.functional.shop import Shop

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
MODEL = f"us.{SONNET}"
SAY: Any = [{"role": "user", "content": [{"text": "Say hello."}]}]
CACHED = Usage(input=30, output=9, cache_read=1_000, cache_write_5m=200, cache_write_1h=70)


@pytest.fixture
def scripted(shop: Shop) -> ScriptedBedrock:
    return shop.cloud


@pytest.fixture
def client(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """boto3 as a user of the gateway has it: a bearer token and another endpoint, nothing else."""
    # The only patch: boto3 takes a bearer token from this variable and from nowhere else.
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", shop.ada.token)
    for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    config = Config(retries={"total_max_attempts": 1})
    url = f"{shop.ada.url}/bedrock"
    with ExitStack() as stack:

        def build(service: str) -> Any:
            made = boto3.client(service, region_name="us-east-1", endpoint_url=url, config=config)
            stack.callback(made.close)
            return made

        yield build


@pytest.fixture
def boto(client: Callable[[str], Any]) -> Any:
    return client("bedrock-runtime")


def streamed(boto: Any) -> list[dict[str, Any]]:
    with closing(boto.converse_stream(modelId=MODEL, messages=SAY)["stream"]) as stream:
        return list(stream)


def test_boto3_converses(shop: Shop, scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer("Hello!", usage=CACHED))
    answer = boto.converse(
        modelId=MODEL, messages=SAY, system=[{"text": "Be brief."}], inferenceConfig={"maxTokens": 50}
    )
    assert answer["output"]["message"]["content"] == [{"text": "Hello!"}]
    assert answer["usage"]["cacheReadInputTokens"] == 1_000
    assert float(answer["ResponseMetadata"]["HTTPHeaders"]["x-llmgw-cost-usd"]) > 0
    (call,) = scripted.calls
    assert (call.model, call.request.raw_path.rpartition("/")[2]) == (MODEL, "converse")
    assert call.body == {
        "messages": SAY,
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"maxTokens": 50},
    }
    shop.entries(1)


def test_boto3_reads_a_stream_of_converse(shop: Shop, scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer("one two three four", usage=CACHED))
    stream = streamed(boto)
    said = "".join(each["contentBlockDelta"]["delta"]["text"] for each in stream if "contentBlockDelta" in each)
    assert said == "one two three four"
    assert stream[-1]["metadata"]["usage"]["outputTokens"] == CACHED.output
    shop.entries(1)


def test_boto3_is_told_of_failures_before_and_in_a_stream(shop: Shop, scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer(exception_after=0), Answer(exception_after=2))
    with pytest.raises(ClientError, match="Too many tokens") as caught:
        streamed(boto)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    with pytest.raises(EventStreamError, match="Too many tokens"):
        streamed(boto)
    first, second = shop.entries_as_they_are(2)
    assert (first.cost, first.estimated) == (0, False)
    assert second.estimated


def test_a_stream_without_its_end_is_ended_with_an_exception(shop: Shop, scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer(break_after=3))
    with pytest.raises(EventStreamError, match="broke"):
        streamed(boto)
    (row,) = shop.entries_as_they_are(1)
    assert row.estimated


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}}, "guardrailConfig"),
        ({"serviceTier": {"type": "priority"}}, "serviceTier"),
        ({"performanceConfig": {"latency": "optimized"}}, "performanceConfig"),
        ({"additionalModelRequestFields": {"max_tokens": 10**6}}, "additionalModelRequestFields.max_tokens"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k"}}}}],
                    }
                ]
            },
            "s3Location",
        ),
    ],
)
def test_what_would_cost_more_or_reach_into_the_account_is_refused(
    scripted: ScriptedBedrock, boto: Any, members: Any, named: str
) -> None:
    with pytest.raises(ClientError, match=named) as caught:
        boto.converse(**({"modelId": MODEL, "messages": SAY} | members))
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert scripted.calls == []


@pytest.mark.parametrize(
    ("asked", "invoked"),
    [
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{MODEL}", MODEL),
        (f"arn:aws:bedrock:us-east-1::inference-profile/global.{SONNET}", f"global.{SONNET}"),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}", SONNET),
        (MODEL, MODEL),
        (SONNET, SONNET),
    ],
)
def test_profiles_and_arns_name_models(scripted: ScriptedBedrock, boto: Any, asked: str, invoked: str) -> None:
    boto.converse(modelId=asked, messages=SAY)
    assert scripted.calls[0].model == invoked


@pytest.mark.parametrize(
    "asked",
    [
        f"arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.{SONNET}",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0",
    ],
)
def test_other_arns_are_not_served(scripted: ScriptedBedrock, boto: Any, asked: str) -> None:
    with pytest.raises(ClientError, match="is not served here") as caught:
        boto.converse(modelId=asked, messages=SAY)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    assert scripted.calls == []


def test_boto3_counts_tokens(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.counting = (200, b'{"inputTokens": 17}')
    prompt = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 5, "messages": []}
    invoke = {"invokeModel": {"body": json.dumps(prompt).encode()}}
    assert boto.count_tokens(modelId=MODEL, input=invoke)["inputTokens"] == 17
    assert boto.count_tokens(modelId=SONNET, input={"converse": {"messages": SAY}})["inputTokens"] == 17
    assert [json.loads(each.body)["input"].keys() for each in scripted.counted] == [{"invokeModel"}, {"converse"}]
    # CountTokens takes no profiles: the model behind it is named.
    assert all("anthropic.claude-sonnet-4-5" in each.raw_path for each in scripted.counted)
    assert not any("us.anthropic" in each.raw_path for each in scripted.counted)


def test_boto3_lists_what_is_served(shop: Shop, client: Callable[[str], Any]) -> None:
    bedrock = client("bedrock")
    models = {each["modelId"]: each for each in bedrock.list_foundation_models()["modelSummaries"]}
    assert models[SONNET]["inferenceTypesSupported"] == ["INFERENCE_PROFILE"]
    assert models["amazon.titan-embed-text-v2:0"]["outputModalities"] == ["EMBEDDING"]
    amazon = bedrock.list_foundation_models(byProvider="Amazon", byOutputModality="EMBEDDING")["modelSummaries"]
    assert {each["providerName"] for each in amazon} == {"Amazon"}
    assert bedrock.get_foundation_model(modelIdentifier=SONNET)["modelDetails"]["modelId"] == SONNET
    profiles = bedrock.list_inference_profiles(typeEquals="SYSTEM_DEFINED")["inferenceProfileSummaries"]
    ids = {each["inferenceProfileId"] for each in profiles}
    assert {MODEL, f"global.{SONNET}"} <= ids
    assert f"eu.{SONNET}" not in ids
    assert bedrock.list_inference_profiles(typeEquals="APPLICATION")["inferenceProfileSummaries"] == []
    (mine,) = [each for each in profiles if each["inferenceProfileId"] == MODEL]
    for name in (MODEL, mine["inferenceProfileArn"]):
        shown = bedrock.get_inference_profile(inferenceProfileIdentifier=name)
        assert (shown["inferenceProfileId"], shown["status"]) == (MODEL, "ACTIVE")
    with pytest.raises(ClientError, match="is not served here"):
        bedrock.get_inference_profile(inferenceProfileIdentifier="us.amazon.nova-pro-v1:0")
    for path in ("/bedrock/inference-profiles?type=SYSTEM_DEFINED", f"/bedrock/inference-profiles/{MODEL}"):
        assert shop.ada.request("GET", path, token="").status == 404
    assert shop.ada.request("POST", f"/bedrock/model/{SONNET}/count-tokens", b"{}", token="").status == 404
    assert shop.ada.request("DELETE", "/bedrock/inference-profiles").status == 405


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def test_langchain_converses_streams_and_calls_tools(shop: Shop, scripted: ScriptedBedrock, boto: Any) -> None:
    chat = ChatBedrockConverse(model=MODEL, client=boto, bedrock_client=boto)
    scripted.script(Answer("Hello!"), Answer("one two three four"))
    assert chat.invoke("Say hello.").content == "Hello!"
    parts = list(chat.stream("Count."))
    assert "".join(part.text for part in parts) == "one two three four"
    assert sum(part.usage_metadata["total_tokens"] for part in parts if part.usage_metadata) == 37
    scripted.script_tool_loop("weather", {"city": "Ulm"}, "It rains in Ulm.")
    bound = chat.bind_tools([weather])
    said: list[Any] = [HumanMessage("The weather in Ulm?")]
    said.append(bound.invoke(said))
    (asked,) = said[-1].tool_calls
    said.append(ToolMessage(weather.invoke(asked["args"]), tool_call_id=asked["id"]))
    assert bound.invoke(said).content == "It rains in Ulm."
    shop.entries(4)


def test_langchain_invokes_and_embeds(shop: Shop, scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer("Hello!"))
    chat = ChatBedrock(model=MODEL, client=boto, bedrock_client=boto, beta_use_converse_api=False)
    assert chat.invoke("Say hello.").content == "Hello!"
    for model in ("amazon.titan-embed-text-v2:0", "cohere.embed-english-v3"):
        embeddings = BedrockEmbeddings(model_id=model, client=boto)
        assert embeddings.embed_query("and two")[0] == vector_of("and two", 8)[0]
    assert [row.model for row in shop.entries(3)[1:]] == ["titan-embed-text-v2", "cohere-embed-english-v3"]
