"""OpenAI's Responses through a running gateway: its SDK and LangChain, streaming and not; the ledger agrees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.functional.shop import Shop

MODEL = "claude-sonnet-4-5"
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CACHED = Usage(input=30, output=9, cache_read=1_000, cache_write_5m=200)


@pytest.fixture
def scripted(shop: Shop) -> ScriptedBedrock:
    return shop.cloud


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as plain:
        yield plain


@pytest.fixture
def sdk(shop: Shop, http: httpx2.Client) -> openai.OpenAI:
    url = f"{shop.ada.url}/openai/v1"
    return openai.OpenAI(base_url=url, api_key=shop.ada.token, max_retries=0, http_client=http)


def test_the_sdk_gets_a_whole_answer(shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    scripted.script(Answer("Hello!", usage=CACHED))
    answer = sdk.responses.create(model=MODEL, instructions="Be brief.", input="Say hello.", max_output_tokens=50)
    assert (answer.output_text, answer.status, answer.model) == ("Hello!", "completed", MODEL)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (1_230, 9)
    assert answer.usage.input_tokens_details.cached_tokens == 1_000
    assert scripted.calls[0].body == {
        "anthropic_version": "bedrock-2023-05-31",
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}],
        "max_tokens": 50,
    }
    shop.entries(1)


@pytest.mark.parametrize("stream", [False, True])
def test_the_sdk_goes_round_the_loop_of_a_tool(
    shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI, *, stream: bool
) -> None:
    scripted.script_tool_loop("weather", {"city": "Ulm"}, 'It "rains" in Ülm.\n')
    said: list[Any] = [{"role": "user", "content": "The weather in Ulm?"}]
    for _ in range(2):
        if stream:
            with sdk.responses.stream(model=MODEL, input=said, tools=[WEATHER]) as events:
                kinds = [event.type for event in events]
                answer: Any = events.get_final_response()
            assert (kinds[:2], kinds[-1]) == (["response.created", "response.in_progress"], "response.completed")
        else:
            answer = sdk.responses.create(model=MODEL, input=said, tools=[WEATHER])
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            break
        assert json.loads(calls[0].arguments) == {"city": "Ulm"}
        said += [item.model_dump(exclude_none=True) for item in answer.output]
        said.append({"type": "function_call_output", "call_id": calls[0].call_id, "output": "rain"})
    assert answer.output_text == 'It "rains" in Ülm.\n'
    assert scripted.calls[1].body["messages"][-1]["content"][0]["content"] == [{"type": "text", "text": "rain"}]
    shop.entries(2)


class City(BaseModel):
    name: str
    people: int


def test_the_sdk_parses_an_answer_by_a_schema(scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    scripted.script(Answer('{"name": "Ulm", "people": 130000}'))
    assert sdk.responses.parse(model=MODEL, input="Ulm?", text_format=City).output_parsed == City(
        name="Ulm", people=130_000
    )
    assert scripted.calls[0].body["output_config"]["format"]["type"] == "json_schema"


def test_the_sdk_raises_what_fits_each_refusal(shop: Shop, scripted: ScriptedBedrock, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="'previous_response_id'"):
        sdk.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    with pytest.raises(openai.PermissionDeniedError, match="gpt-5"):
        sdk.responses.create(model="gpt-5", input="x")
    assert scripted.calls == []
    scripted.script(Answer(exception_after=0), Answer(exception_after=3), Answer(break_after=3))
    with pytest.raises(openai.RateLimitError, match="Too many tokens"):
        list(sdk.responses.create(model=MODEL, input="x", stream=True))
    with pytest.raises(openai.APIError, match="Too many tokens"):
        list(sdk.responses.create(model=MODEL, input="x", stream=True))
    with pytest.raises(openai.APIError, match="broke"):
        list(sdk.responses.create(model=MODEL, input="x", stream=True))
    assert [row.estimated for row in shop.entries_as_they_are(3)] == [False, True, True]


def test_langchain_uses_it(shop: Shop, scripted: ScriptedBedrock, http: httpx2.Client) -> None:
    chat = ChatOpenAI(
        model=MODEL,
        base_url=f"{shop.ada.url}/openai/v1",
        api_key=SecretStr(shop.ada.token),
        max_retries=0,
        http_client=http,
        use_responses_api=True,
    )
    scripted.script(Answer("Hello!"), Answer("one two three four"))
    assert chat.invoke("Say hello.").text == "Hello!"
    parts = list(chat.stream("Count."))
    assert "".join(part.text for part in parts) == "one two three four"
    assert sum(part.usage_metadata["total_tokens"] for part in parts if part.usage_metadata) == 37
    shop.entries(2)
