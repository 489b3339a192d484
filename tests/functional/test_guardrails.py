"""Guardrails that policies require: applied by the gateway, to every call, in each dialect, whatever a client says."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import anthropic
import boto3
import httpx2
import openai
import pytest
from botocore.config import Config

from tests.functional.test_second_upstream import DIRECT, HAIKU, HOME, OPUS, SONNET, THROTTLED, Place
from tests.functional.trial import until
from tests.lab.guardrails import Guardrail
from tests.lab.process import run
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.canaille import Canaille
    from tests.lab.scripted import Call

TITAN = "titan-embed-text-v2"
COMPANY = [
    {"name": "company", "id": "gr1", "version": "1", "usd_per_thousand_units": 0.15},
    {"name": "company", "upstream": "west", "id": "gr2", "version": "3", "trace": "enabled"},
]
POLICIES = [{"name": "research", "models": [OPUS], "guardrail": "none"}, {"name": "everyone"}]
BLOCKED = "This was blocked by a rule of the company."
ALLOWED: Any = [{"role": "user", "content": "Say hello."}]
FORBIDDEN: Any = [{"role": "user", "content": "Say forbidden things."}]
DIALECTS = ("anthropic", "bedrock", "converse", "chat", "responses")


@pytest.fixture(scope="module")
def open_place(
    tmp_path_factory: pytest.TempPathFactory, canaille: Canaille, sign_in: Callable[[str], str]
) -> Iterator[Place]:
    models = [
        {"name": SONNET, "target": DIRECT},
        {"name": HAIKU, "target": HOME, "fallbacks": [f"west/{HOME}", f"anthropic/{HAIKU}-20251001"]},
        {"name": OPUS, "target": f"us.anthropic.{OPUS}"},
        {"name": TITAN},
    ]
    organisation = {"name": "Example", "time_zone": "UTC", "contact": "#llm-help", "guardrail": "company"}
    with Place(
        tmp_path_factory.mktemp("place"),
        canaille,
        sign_in,
        fallbacks={"rest_seconds": 0},
        models=models,
        organisation=organisation,
        guardrails=COMPANY,
        policies=POLICIES,
    ) as made:
        yield made


@pytest.fixture
def place(open_place: Place) -> Place:
    """The place of this file, with its guardrails, nothing in it of the tests before, and a fresh token."""
    open_place.begin()
    open_place.home.guardrails.append(Guardrail("gr1", "1", "forbidden"))
    open_place.west.guardrails.append(Guardrail("gr2", "3", "forbidden"))
    return open_place


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as plain:
        yield plain


def say(place: Place, http: httpx2.Client, dialect: str, messages: Any, *, stream: bool) -> tuple[str, str]:
    """What the model says, and why it stopped, as a real client of the dialect reads it."""
    url, token = place.ada.url, place.ada.token
    if dialect == "anthropic":
        return _anthropic(url, token, http, messages, stream=stream)
    if dialect in {"chat", "responses"}:
        client = openai.OpenAI(base_url=f"{url}/openai/v1", api_key=token, http_client=http, max_retries=0)
        return (_chat if dialect == "chat" else _responses)(client, messages, stream=stream)
    client = boto3.client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=f"{url}/bedrock",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    with closing(client):
        return (_converse if dialect == "converse" else _invoke)(client, messages, stream=stream)


def _anthropic(url: str, token: str, http: httpx2.Client, messages: Any, *, stream: bool) -> tuple[str, str]:
    client = anthropic.Anthropic(base_url=url, auth_token=token, http_client=http, max_retries=0)
    if stream:
        with client.messages.stream(model=HAIKU, max_tokens=50, messages=messages) as stream_:
            answer: anthropic.types.Message = stream_.get_final_message()
    else:
        answer = client.messages.create(model=HAIKU, max_tokens=50, messages=messages)
    (block,) = answer.content
    assert isinstance(block, anthropic.types.TextBlock)
    return block.text, str(answer.stop_reason)


def _chat(client: openai.OpenAI, messages: Any, *, stream: bool) -> tuple[str, str]:
    if not stream:
        choice = client.chat.completions.create(model=HAIKU, messages=messages).choices[0]
        return str(choice.message.content), choice.finish_reason
    said, reasons = "", []
    with client.chat.completions.create(model=HAIKU, messages=messages, stream=True) as chunks:
        for chunk in chunks:
            (one,) = chunk.choices
            said += one.delta.content or ""
            reasons += [one.finish_reason] if one.finish_reason else []
    (reason,) = reasons
    return said, reason


def _responses(client: openai.OpenAI, messages: Any, *, stream: bool) -> tuple[str, str]:
    if stream:
        with client.responses.stream(model=HAIKU, input=messages) as events:
            answer: Any = [event for event in events if event.type.startswith("response.")][-1]
            answer = answer.response
    else:
        answer = client.responses.create(model=HAIKU, input=messages)
    cut = answer.incomplete_details
    return answer.output_text, str(cut.reason) if cut is not None else answer.status


def _converse(client: Any, messages: Any, *, stream: bool) -> tuple[str, str]:
    turns = [{"role": each["role"], "content": [{"text": each["content"]}]} for each in messages]
    if not stream:
        answer = client.converse(modelId=HOME, messages=turns)
        return answer["output"]["message"]["content"][0]["text"], answer["stopReason"]
    with closing(client.converse_stream(modelId=HOME, messages=turns)["stream"]) as found:
        events = list(found)
    said = "".join(each["contentBlockDelta"]["delta"]["text"] for each in events if "contentBlockDelta" in each)
    return said, next(each["messageStop"]["stopReason"] for each in events if "messageStop" in each)


def _invoke(client: Any, messages: Any, *, stream: bool) -> tuple[str, str]:
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": messages})
    if not stream:
        answer = json.loads(client.invoke_model(modelId=HOME, body=body)["body"].read())
        return answer["content"][0]["text"], answer["stop_reason"]
    with closing(client.invoke_model_with_response_stream(modelId=HOME, body=body)["body"]) as found:
        events = [json.loads(each["chunk"]["bytes"]) for each in found]
    said = "".join(each["delta"]["text"] for each in events if each["type"] == "content_block_delta")
    return said, next(each["delta"]["stop_reason"] for each in events if each["type"] == "message_delta")


@pytest.fixture(autouse=True)
def _bearer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    # boto3 takes a bearer token from this variable and from nowhere else.
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", place.ada.token)
    for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def named(call: Call) -> tuple[str, str, str]:
    """The guardrail that a call reached the cloud with."""
    return call.guarding.id, call.guarding.version, call.guarding.trace.lower()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_call_is_made_under_it_and_what_is_allowed_is_answered(
    place: Place, http: httpx2.Client, dialect: str, *, stream: bool
) -> None:
    said, why = say(place, http, dialect, ALLOWED, stream=stream)
    assert (said, why) == (Answer().text, {"chat": "stop", "responses": "completed"}.get(dialect, "end_turn"))
    (call,) = place.home.calls
    assert named(call) == ("gr1", "1", "disabled")
    if dialect == "converse" and stream:
        assert call.body["guardrailConfig"]["streamProcessingMode"] == "sync"
    if dialect != "converse":
        signed = call.request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert {f"x-amzn-bedrock-guardrail{part}" for part in ("identifier", "version")} <= set(signed)
    assert {row.outcome for row in place.rows(1)} == {"ok"}


@pytest.mark.parametrize("says_why", [True, False])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_intervention_is_a_whole_answer_and_is_seen(
    place: Place, http: httpx2.Client, dialect: str, *, stream: bool, says_why: bool
) -> None:
    place.home.guardrails[:] = [Guardrail("gr1", "1", "forbidden", says_why=says_why)]
    said, why = say(place, http, dialect, FORBIDDEN, stream=stream)
    assert said == BLOCKED
    if dialect in {"chat", "responses"}:
        assert why == "content_filter"
    else:  # the provider's own bytes
        assert why == ("guardrail_intervened" if says_why or dialect == "converse" else "end_turn")
    assert {row.outcome for row in place.rows(1)} == {"guardrail_intervened"}
    line = audited(place)
    assert (line["guardrail"], line["outcome"], line["code"], line["status"]) == (
        "company",
        "guardrail_intervened",
        "ok",
        200,
    )


def audited(place: Place) -> dict[str, Any]:
    """The audit line of the last request, as soon as it is written."""
    operation = str(place.rows(1)[-1].operation_id)
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [line for line in place.gateway.audit_lines() if line["request_id"] == operation]
        return bool(found)

    until(there, "in the audit trail")
    return found[0]


def ask(place: Place, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    return place.ada.request("POST", path, json.dumps(body).encode(), headers)


def test_a_client_can_neither_replace_nor_remove_it(place: Place) -> None:
    own = {"x-amzn-bedrock-guardrailidentifier": "mine", "x-amzn-bedrock-guardrailversion": "9"}
    body = {"max_tokens": 50, "messages": FORBIDDEN}
    reply = ask(place, "/v1/messages", body | {"model": HAIKU}, own | {"x-amzn-bedrock-trace": "ENABLED"})
    assert (reply.status, reply.headers["x-llmgw-guardrail"]) == (200, "company")
    assert reply.json["content"][0]["text"] == BLOCKED
    (call,) = place.home.calls
    assert named(call) == ("gr1", "1", "disabled")
    assert call.request.headers.getall("x-amzn-bedrock-guardrailidentifier") == ["gr1"]  # type: ignore[attr-defined]


NARROWED = {"amazon-bedrock-guardrailConfig": {"tagSuffix": "x", "streamProcessingMode": "ASYNCHRONOUS"}}
MARKED = [{"role": "user", "content": [{"text": "forbidden"}, {"guardContent": {"text": {"text": "nice"}}}]}]


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        ("/v1/messages", {"model": HAIKU, "max_tokens": 9, "messages": FORBIDDEN} | NARROWED, "guardrailConfig"),
        (f"/bedrock/model/{HAIKU}/invoke", {"max_tokens": 9, "messages": FORBIDDEN} | NARROWED, "guardrailConfig"),
        (f"/bedrock/model/{HAIKU}/converse", {"messages": MARKED}, "guardContent"),
        (f"/bedrock/model/{HAIKU}/converse-stream", {"messages": [], "system": MARKED[0]["content"]}, "guardContent"),
        (f"/bedrock/model/{HAIKU}/converse", {"messages": [], "guardrailConfig": {}}, "guardrailConfig"),
        (f"/bedrock/model/{HAIKU}/converse", {"additionalModelRequestFields": NARROWED}, "guardrailConfig"),
    ],
)
def test_what_would_narrow_what_it_looks_at_is_refused_by_name(
    place: Place, path: str, body: dict[str, Any], what: str
) -> None:
    reply = ask(place, path, body)
    assert (reply.status, reply.error["code"]) == (400, "request_malformed")
    assert what in reply.error["message"]
    assert place.asked() == [0, 0, 0]


def test_what_cannot_apply_it_is_refused_by_name_and_is_no_fallback(place: Place) -> None:
    reply = place.ada.ask(model=SONNET)
    assert (reply.status, reply.error["code"]) == (400, "model_not_allowed")
    assert "guardrail 'company'" in reply.error["message"]
    assert DIRECT in reply.error["message"]
    reply = ask(place, "/openai/v1/embeddings", {"model": TITAN, "input": "x"})
    assert (reply.status, reply.error["code"]) == (403, "model_not_allowed")
    assert "does not look at embeddings" in reply.error["message"]
    place.home.script(THROTTLED)
    place.west.script(THROTTLED)
    assert place.ada.ask(model=HAIKU).status == 429
    assert place.asked() == [1, 1, 0]
    (call,) = place.west.calls
    assert named(call) == ("gr2", "3", "enabled")


def test_a_policy_may_say_that_none_is_needed(place: Place) -> None:
    reply = place.ada.ask(model=OPUS, messages=FORBIDDEN)
    assert (reply.status, reply.json["content"][0]["text"]) == (200, Answer().text)
    assert "x-llmgw-guardrail" not in reply.headers
    (call,) = place.home.calls
    assert named(call) == ("", "", "")


def test_what_it_costs_is_charged_and_rated_again(place: Place) -> None:
    place.home.script(Answer(usage=Usage(input=1_000_000, output=0)))
    reply = place.ada.ask(model=HAIKU)
    (row,) = place.rows(1)
    # Haiku 4.5 in a region costs 1.10 a million, and 4,000 text units 0.60.
    assert (row.cost, reply.headers["x-llmgw-cost-usd"]) == (1_700_000, "1.700000")
    assert row.price_version.endswith("~600000")
    done = run(
        [
            *place.gateway.command("ledger")[:-1],
            *("rerate", place.gateway.config, "--since", "2026-01-01", "--format", "json"),
        ],
        env=place.gateway.program.env,
        folder=place.gateway.folder,
        seconds=60,
    )
    (model,) = [each for each in json.loads(done.stdout)["models"] if each["model"] == HAIKU]
    assert model["charged"] >= 1_700_000
    assert model["difference"] == 0


def test_the_commands_know_it(place: Place) -> None:
    def command(*words: str) -> Any:
        verbs = [*place.gateway.command("policy")[:-1], words[0], place.gateway.config, *words[1:]]
        return run(verbs, env=place.gateway.program.env, folder=place.gateway.folder, seconds=60)

    told = command("explain", "ada@example.com", HAIKU).stdout
    assert "under the guardrail company" in told
    explained = json.loads(command("explain", "ada@example.com", OPUS, "--format", "json").stdout)
    assert explained["guardrail"] == ""
    warnings = command("check").stdout.splitlines()
    assert [line.partition(": ")[2].partition(", line")[0] for line in warnings[:-1]] == [
        "policies[0] (research)",
        "policies[1] (everyone)",
        "policies[1] (everyone)",
    ]
    assert "its calls need no guardrail" in warnings[0]
    assert f"refuses {SONNET}" in warnings[1]
    assert f"refuses {TITAN}" in warnings[2]
