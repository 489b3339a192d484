"""The double is itself tested: the `anthropic` SDK accepts what it says, and it refuses what the real one refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from tests.fakes.anthropic import BODIES, HEADS, FaultyAnthropic
from tests.fakes.bedrock import InBody, Place, Script
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "claude-sonnet-5-5"
SAY: Any = [{"role": "user", "content": "Say hello."}]
COUNTED = Usage(input=11, output=5, cache_read=7, cache_write_5m=3, cache_write_1h=4)


@pytest.fixture
def upstream() -> Iterator[FaultyAnthropic]:
    with FaultyAnthropic() as server:
        yield server


@pytest.fixture
def sdk(upstream: FaultyAnthropic) -> Iterator[anthropic.Anthropic]:
    with (
        httpx2.Client(trust_env=False) as plain,
        anthropic.Anthropic(api_key=upstream.api_key, base_url=upstream.url, max_retries=0, http_client=plain) as made,
    ):
        yield made


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in HEADS}) == len(HEADS)
    assert len({fault.name for fault in BODIES}) == len(BODIES)


def test_the_sdk_reads_an_answer_a_stream_and_a_count(upstream: FaultyAnthropic, sdk: anthropic.Anthropic) -> None:
    upstream.default = Answer("one two three four", usage=COUNTED)
    whole = sdk.messages.create(model=MODEL, max_tokens=9, messages=SAY)
    with sdk.messages.stream(model=MODEL, max_tokens=9, messages=SAY) as stream:
        assert "".join(stream.text_stream) == "one two three four"
        final = stream.get_final_message()
    for each in (whole, final):
        assert Usage.read(each.usage.model_dump()) == COUNTED
    assert sdk.messages.count_tokens(model=MODEL, messages=SAY).input_tokens > 0
    assert upstream.usages == [COUNTED, COUNTED]


def test_a_tool_is_asked_for_until_its_result_arrives(upstream: FaultyAnthropic, sdk: anthropic.Anthropic) -> None:
    upstream.script_tool_loop("weather", {"city": "Oslo"}, "It rains.")
    tools: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
    asked = sdk.messages.create(model=MODEL, max_tokens=9, messages=SAY, tools=tools)
    used = asked.content[-1]
    assert used.type == "tool_use"
    result: Any = [{"type": "tool_result", "tool_use_id": used.id, "content": "rain"}]
    said: Any = [*SAY, {"role": "assistant", "content": asked.content}, {"role": "user", "content": result}]
    final = sdk.messages.create(model=MODEL, max_tokens=9, messages=said, tools=tools).content[0]
    assert final.type == "text"
    assert final.text == "It rains."


@pytest.mark.parametrize("fault", [each for each in HEADS if each.answered >= 400], ids=lambda fault: fault.name)
def test_the_sdk_raises_by_the_status_of_a_refusal(
    upstream: FaultyAnthropic, sdk: anthropic.Anthropic, fault: Any
) -> None:
    upstream.always = Script(fault)
    with pytest.raises(anthropic.APIStatusError) as caught:
        sdk.messages.create(model=MODEL, max_tokens=9, messages=SAY)
    assert caught.value.status_code == fault.answered


WHOLE = [
    each for each in BODIES if each.name.endswith("_event") and each.name not in {"truncated_event", "giant_event"}
]


@pytest.mark.parametrize("fault", WHOLE, ids=lambda fault: fault.name)
def test_the_sdk_reads_an_error_or_a_large_event(
    upstream: FaultyAnthropic, sdk: anthropic.Anthropic, fault: InBody
) -> None:
    upstream.always = Script(fault, Place.START)
    events = sdk.messages.create(model=MODEL, max_tokens=9, messages=SAY, stream=True)
    if fault.harmless:
        assert [event.type for event in events][-1] == "message_stop"
    else:
        with pytest.raises(anthropic.APIStatusError, match="in the stream"):
            list(events)


@pytest.mark.parametrize(
    "wrong",
    [
        {"extra_headers": {"authorization": "Bearer another"}},
        {"extra_headers": {"anthropic-version": "2022-01-01"}},
        {"extra_body": {"anthropic_version": "bedrock-2023-05-31"}},
        {"extra_body": {"context_management": {"edits": []}}},
    ],
    ids=["key", "version", "Bedrock's member", "a member without its beta"],
)
def test_it_refuses_what_the_real_one_refuses(sdk: anthropic.Anthropic, wrong: dict[str, Any]) -> None:
    with pytest.raises((anthropic.AuthenticationError, anthropic.BadRequestError)):
        sdk.messages.create(model=MODEL, max_tokens=9, messages=SAY, **wrong)
