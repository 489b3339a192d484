"""OpenAI's dialect through a running gateway: its own SDK and LangChain, streaming and not; the ledger agrees."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.functional.device import Device
from tests.lab.gateway import Gateway
from tests.lab.scripted import Answer, vector_of
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.functional.shop import Shop
    from tests.lab.canaille import Canaille
    from tests.lab.scripted import ScriptedBedrock

MODEL = "claude-sonnet-4-5"
SAY: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
CACHED = Usage(input=30, output=9, cache_read=1_000, cache_write_5m=200)


@pytest.fixture
def scripted(shop: Shop) -> ScriptedBedrock:
    return shop.cloud


@pytest.fixture
def ada(shop: Shop) -> Device:
    return shop.ada


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as plain:
        yield plain


@pytest.fixture
def sdk(ada: Device, http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{ada.url}/openai/v1", api_key=ada.token, max_retries=0, http_client=http)


@pytest.fixture
def chat(ada: Device, http: httpx2.Client) -> Callable[..., ChatOpenAI]:
    def build(**more: Any) -> ChatOpenAI:
        return ChatOpenAI(
            model=MODEL,
            base_url=f"{ada.url}/openai/v1",
            api_key=SecretStr(ada.token),
            max_retries=0,
            http_client=http,
            **more,
        )

    return build


def test_the_sdk_gets_a_whole_answer(shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    scripted.script(Answer("Hello!", usage=CACHED))
    raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=SAY, temperature=0.5, stop="END", seed=7)
    whole = raw.parse()
    assert whole.choices[0].message.content == "Hello!"
    assert (whole.choices[0].finish_reason, whole.model, whole.object) == ("stop", MODEL, "chat.completion")
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (CACHED.input + 1_200, CACHED.output)
    assert whole.usage.prompt_tokens_details is not None
    assert whole.usage.prompt_tokens_details.cached_tokens == 1_000
    assert float(raw.headers["x-llmgw-cost-usd"]) > 0
    (call,) = scripted.calls
    assert call.body == {
        "anthropic_version": "bedrock-2023-05-31",
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}],
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "max_tokens": 32_000,
    }
    shop.entries(1)
    line = shop.gateway.audited("/openai/v1/chat/completions", request_id=raw.headers["request-id"])
    assert (line["dialect"], line["model"], line["tokens"]["cache_read"]) == ("openai", MODEL, 1_000)


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_sdk_reads_a_stream(
    shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI, *, include_usage: bool
) -> None:
    scripted.script(Answer('one "two"\nthree ü', usage=CACHED))
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(sdk.chat.completions.create(model=MODEL, messages=SAY, stream=True, **options))
    said = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert said == 'one "two"\nthree ü'
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [each.choices[0].finish_reason for each in chunks if each.choices][-1] == "stop"
    assert len({(each.id, each.model, each.created) for each in chunks}) == 1
    told = [each.usage for each in chunks if each.usage is not None]
    assert [each.prompt_tokens + each.completion_tokens for each in told] == ([1_239] if include_usage else [])
    shop.entries(1)


@pytest.mark.parametrize("stream", [False, True])
def test_the_sdk_goes_round_the_loop_of_a_tool(
    shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI, *, stream: bool
) -> None:
    scripted.script_tool_loop("weather", {"city": "Ulm"}, "It rains in Ulm.")
    said: Any = list(SAY)
    for _ in range(2):
        if stream:
            with sdk.chat.completions.stream(model=MODEL, messages=said, tools=[WEATHER]) as events:
                for _event in events:
                    pass
                message: Any = events.get_final_completion().choices[0].message
        else:
            whole = sdk.chat.completions.create(
                model=MODEL, messages=said, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
            )
            message = whole.choices[0].message
        if not message.tool_calls:
            break
        (asked,) = message.tool_calls
        assert json.loads(asked.function.arguments) == {"city": "Ulm"}
        said += [
            {"role": "assistant", "content": message.content, "tool_calls": [asked.model_dump(include=WANTED)]},
            {"role": "tool", "tool_call_id": asked.id, "content": "rain"},
        ]
    assert message.content == "It rains in Ulm."
    assert scripted.calls[1].body["messages"][-1]["content"][0]["content"] == [{"type": "text", "text": "rain"}]
    choice = None if stream else {"type": "any", "disable_parallel_tool_use": True}
    assert scripted.calls[0].body.get("tool_choice") == choice
    shop.entries(2)


WANTED: Any = {"id": True, "type": True, "function": {"name": True, "arguments": True}}


class City(BaseModel):
    name: str
    people: int


def test_the_sdk_parses_an_answer_by_a_schema(scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    scripted.script(Answer('{"name": "Ulm", "people": 130000}'))
    parsed = sdk.chat.completions.parse(model=MODEL, messages=SAY, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Ulm", people=130_000)
    wanted = scripted.calls[0].body["output_config"]["format"]
    assert (wanted["type"], set(wanted["schema"]["properties"])) == ("json_schema", {"name", "people"})


def test_a_picture_reaches_the_model(scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    content: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
    ]
    sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert scripted.calls[0].body["messages"][0]["content"][1] == {"type": "image", "source": source}


def test_the_models_are_listed(sdk: openai.OpenAI) -> None:
    listed = {each.id: each.owned_by for each in sdk.models.list()}
    assert (listed[MODEL], listed["titan-embed-text-v2"]) == ("anthropic", "amazon")
    assert sdk.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="gpt-5"):
        sdk.models.retrieve("gpt-5")


def test_the_sdk_raises_what_fits_each_refusal(scripted: ScriptedBedrock, ada: Device, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="claude-sonnet-4-5"):
        sdk.chat.completions.create(model="gpt-5", messages=SAY)
    with pytest.raises(openai.BadRequestError, match="'logit_bias'") as caught:
        sdk.chat.completions.create(model=MODEL, messages=SAY, logit_bias={"50256": -100})
    assert (caught.value.code, caught.value.type) == ("request_malformed", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="'reasoning_effort' is not available on claude-sonnet-4-5"):
        sdk.chat.completions.create(model=MODEL, messages=SAY, reasoning_effort="high")
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="stale").chat.completions.create(model=MODEL, messages=SAY)
    assert scripted.calls == []
    scripted.script(Answer(status=429, error="Too many tokens.", error_type="ThrottlingException"))
    with pytest.raises(openai.RateLimitError, match="Too many tokens"):
        sdk.chat.completions.create(model=MODEL, messages=SAY)
    scripted.script(Answer(exception_after=0))
    with pytest.raises(openai.RateLimitError, match="Too many tokens"):
        list(sdk.chat.completions.create(model=MODEL, messages=SAY, stream=True))
    scripted.script(Answer(exception_after=3))
    with pytest.raises(openai.APIError, match="Too many tokens"):
        list(sdk.chat.completions.create(model=MODEL, messages=SAY, stream=True))
    assert ada.ask().status == 200


def test_effort_reaches_a_model_that_takes_it(scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    sdk.chat.completions.create(model="claude-opus-4-5", messages=SAY, reasoning_effort="minimal", max_tokens=2_000)
    body = scripted.calls[0].body
    assert (body["output_config"], body["max_tokens"]) == ({"effort": "low"}, 2_000)
    assert body["anthropic_beta"] == ["effort-2025-11-24"]


def test_an_operator_s_row_lets_a_model_have_what_the_release_does_not_know(
    tmp_path: Path, canaille: Canaille, shop: Shop, sign_in: Callable[[str], str], http: httpx2.Client
) -> None:
    row = f'[[features]]\nname = "output_config.effort"\nmodels = ["{MODEL}"]\n'
    (tmp_path / "bridge.toml").write_text(row, encoding="utf-8")
    gateway = Gateway(
        tmp_path / "gateway",
        issuers=[canaille.issuer_section()],
        endpoint=shop.cloud.endpoint,
        region=shop.cloud.region,
        credentials=shop.cloud.key.environment(),
        models=(MODEL,),
    )
    gateway.document["bedrock"]["bridge_file"] = "../bridge.toml"
    with gateway:
        device = Device(gateway.url)
        key = device.exchange(sign_in("ada"))
        sdk = openai.OpenAI(base_url=f"{gateway.url}/openai/v1", api_key=key, max_retries=0, http_client=http)
        sdk.chat.completions.create(model=MODEL, messages=SAY, reasoning_effort="high")
    assert shop.cloud.calls[0].body["output_config"] == {"effort": "high"}


@pytest.mark.parametrize(
    ("model", "attempts"), [("titan-embed-text-v2", 3), ("cohere-embed-v4", 1), ("cohere-embed-english-v3", 1)]
)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_sdk_gets_embeddings(shop: Shop, sdk: openai.OpenAI, model: str, attempts: int, encoding: Any) -> None:
    texts = ["one", "and two", "three of them"]
    answer = sdk.embeddings.create(model=model, input=texts, encoding_format=encoding)
    found = [each.embedding for each in answer.data]
    if encoding == "base64":
        plain: Any = sdk.embeddings.create(model=model, input=texts)
        assert [each.embedding for each in plain.data] == [vector_of(text, 8) for text in texts]
        attempts *= 2
    else:
        assert found == [vector_of(text, 8) for text in texts]
    assert answer.usage.prompt_tokens == 6
    shop.entries(attempts)
    line = shop.gateway.audited("/openai/v1/embeddings", model=model)
    assert (line["model"], line["tokens"]["input"], line["outcome"]) == (model, 6, "ok")
    assert line["cost_micro_usd"] > 0


def test_more_texts_than_fit_into_a_call_are_several(shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    texts = [f"text {number}" for number in range(200)]
    answer = sdk.embeddings.create(model="cohere-embed-v4", input=texts, dimensions=256, extra_body=QUERY)
    assert [each.embedding for each in answer.data] == [vector_of(text, 256) for text in texts]
    assert sorted(len(call.body["texts"]) for call in scripted.calls) == [8, 96, 96]
    assert {call.body["input_type"] for call in scripted.calls} == {"search_query"}
    shop.entries(3)


QUERY = {"input_type": "search_query"}


def test_embeddings_that_cannot_be_had_are_refused(scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="gives no embeddings"):
        sdk.embeddings.create(model=MODEL, input="x")
    with pytest.raises(openai.PermissionDeniedError, match="gives embeddings"):
        sdk.chat.completions.create(model="titan-embed-text-v2", messages=SAY)
    with pytest.raises(openai.BadRequestError, match="'dimensions'"):
        sdk.embeddings.create(model="titan-embed-text-v1", input="x", dimensions=256)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        sdk.embeddings.create(model="titan-embed-text-v2", input=[1, 2, 3])
    assert scripted.calls == []


def test_a_refused_attempt_costs_nothing_and_those_beside_it_are_paid(
    shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI
) -> None:
    scripted.script(Answer(), Answer(status=429, error="slow down", error_type="ThrottlingException"))
    with pytest.raises(openai.RateLimitError, match="slow down"):
        sdk.embeddings.create(model="titan-embed-text-v2", input=["a b c", "d e f"])
    rows = shop.entries(2)
    assert sorted(row.input_tokens for row in rows) == [0, 3]
    assert sum(row.estimated for row in rows) == 0


def test_langchain_asks_streams_and_calls_tools(
    shop: Shop, scripted: ScriptedBedrock, chat: Callable[..., ChatOpenAI]
) -> None:
    scripted.script(Answer("Hello!"), Answer("one two three four"))
    assert chat().invoke("Say hello.").content == "Hello!"
    parts = list(chat(stream_usage=True).stream("Count."))
    assert "".join(str(part.content) for part in parts) == "one two three four"
    assert sum(part.usage_metadata["total_tokens"] for part in parts if part.usage_metadata) == 37
    scripted.script_tool_loop("weather", {"city": "Ulm"}, "It rains in Ulm.")
    bound = chat().bind_tools([weather])
    said: list[Any] = [HumanMessage("The weather in Ulm?")]
    said.append(bound.invoke(said))
    (asked,) = said[-1].tool_calls
    said.append(ToolMessage(weather.invoke(asked["args"]), tool_call_id=asked["id"]))
    assert bound.invoke(said).content == "It rains in Ulm."
    shop.entries(4)


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


def test_langchain_parses_by_a_schema(scripted: ScriptedBedrock, chat: Callable[..., ChatOpenAI]) -> None:
    scripted.script(Answer('{"name": "Ulm", "people": 130000}'))
    assert chat().with_structured_output(City).invoke("Ulm?") == City(name="Ulm", people=130_000)


def test_langchain_embeds(shop: Shop, ada: Device, http: httpx2.Client) -> None:
    embeddings = OpenAIEmbeddings(
        model="cohere-embed-v4",
        base_url=f"{ada.url}/openai/v1",
        api_key=SecretStr(ada.token),
        check_embedding_ctx_length=False,
        http_client=http,
    )
    assert embeddings.embed_documents(["a", "bb"]) == [vector_of("a", 8), vector_of("bb", 8)]
    shop.entries(1)
