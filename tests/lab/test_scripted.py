"""The double is itself tested: real clients must accept it, and it must refuse what AWS refuses."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, EventStreamError, ResponseStreamingError
from urllib3.exceptions import ProtocolError

from tests.lab.aws_frames import EventReader, chunk
from tests.lab.ministack import AwsKey, client
from tests.lab.scripted import DEFAULT_USAGE, Answer, ScriptedBedrock
from tests.lab.usage import Usage, UsageMeter

if TYPE_CHECKING:
    from collections.abc import Iterator

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
BODY = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": []})


@pytest.fixture
def boto(scripted: ScriptedBedrock) -> Iterator[Any]:
    runtime = client("bedrock-runtime", scripted.endpoint, scripted.key)
    yield runtime
    runtime.close()


def streamed(boto: Any) -> list[dict[str, Any]]:
    answer = boto.invoke_model_with_response_stream(modelId=SONNET, body=BODY)
    with closing(answer["body"]) as body:
        return [json.loads(event["chunk"]["bytes"]) for event in body]


def test_boto_reads_a_complete_answer(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer("hi", usage=Usage(3, 2, cache_read=7)))
    message = json.loads(boto.invoke_model(modelId=SONNET, body=BODY)["body"].read())
    assert message["content"] == [{"type": "text", "text": "hi"}]
    assert Usage.read(message["usage"]) == Usage(3, 2, cache_read=7)
    assert (scripted.calls[0].model, scripted.usages) == (SONNET, [Usage(3, 2, cache_read=7)])


def test_boto_reads_a_stream_and_its_usage(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer("one two three four", usage=Usage(11, 5, cache_write_1h=4)))
    meter = UsageMeter()
    events = streamed(boto)
    for event in events:
        meter.see(event)
    text = "".join(e["delta"].get("text", "") for e in events if e["type"] == "content_block_delta")
    assert text == "one two three four"
    assert meter.usage == Usage(11, 5, cache_write_1h=4)
    assert scripted.calls[0].finished


def test_a_tool_is_asked_for_until_its_result_arrives(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script_tool_loop("Bash", {"command": "echo 42"}, "It is 42.")
    events = streamed(boto)
    partial = "".join(e["delta"].get("partial_json", "") for e in events if e["type"] == "content_block_delta")
    assert json.loads(partial) == {"command": "echo 42"}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "42"}]}
    body = json.dumps({"messages": [result]})
    message = json.loads(boto.invoke_model(modelId=SONNET, body=body)["body"].read())
    assert message["content"][0]["text"] == "It is 42."


def test_a_wrong_secret_is_refused(scripted: ScriptedBedrock) -> None:
    impostor = client("bedrock-runtime", scripted.endpoint, AwsKey(scripted.key.access_key, "not-the-secret"))
    with pytest.raises(ClientError, match="does not match"):
        impostor.invoke_model(modelId=SONNET, body=BODY)
    impostor.close()
    assert (scripted.calls, len(scripted.refused)) == ([], 1)


def test_an_exception_frame_and_a_refusal_reach_the_client(scripted: ScriptedBedrock, boto: Any) -> None:
    refusal = Answer(status=429, error="slow down", error_type="ThrottlingException")
    scripted.script(Answer(exception_after=2), refusal)
    with pytest.raises(EventStreamError, match="Too many tokens"):
        streamed(boto)
    with pytest.raises(ClientError, match="slow down"):
        boto.invoke_model(modelId=SONNET, body=BODY)
    assert [call.usage is None for call in scripted.calls] == [False, True]


def test_a_held_stream_goes_on_when_released(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer(hold_after=1))
    events = iter(boto.invoke_model_with_response_stream(modelId=SONNET, body=BODY)["body"])
    assert b"message_start" in next(events)["chunk"]["bytes"]
    assert not scripted.calls[0].finished
    scripted.calls[0].release()
    assert b"message_stop" in list(events)[-1]["chunk"]["bytes"]


def test_a_stream_breaks_off_where_the_script_says(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer(break_after=3))
    with pytest.raises((ProtocolError, ResponseStreamingError)):
        streamed(boto)
    assert (scripted.calls[0].events_sent, scripted.calls[0].finished) == (3, False)
    assert scripted.usages == [DEFAULT_USAGE]


def test_usage_can_be_left_out(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer(usage=None))
    meter = UsageMeter()
    for event in streamed(boto):
        meter.see(event)
    assert (meter.usage, scripted.usages) == (None, [])


def test_a_client_that_hangs_up_is_noticed(scripted: ScriptedBedrock, boto: Any) -> None:
    scripted.script(Answer("long " * 200_000, hold_after=2))
    body = boto.invoke_model_with_response_stream(modelId=SONNET, body=BODY)["body"]
    assert b"message_start" in next(iter(body))["chunk"]["bytes"]
    body.close()
    call = scripted.calls[0]
    call.release()
    assert call.ended.wait(10)
    assert (call.client_gone, call.finished) == (True, False)


def test_frames_are_read_in_portions_of_any_size() -> None:
    stream = b"".join(chunk({"type": "ping", "number": number}) for number in range(3))
    reader = EventReader()
    events = [event for at in range(len(stream)) for event in reader.feed(stream[at : at + 1])]
    assert [event["number"] for event in events] == [0, 1, 2]
