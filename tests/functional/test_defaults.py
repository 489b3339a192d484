"""What counts for a team where its people's requests say nothing, in each dialect, through the real gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional.device import Device
from tests.lab.gateway import Gateway
from tests.lab.process import run
from tests.lab.scripted import ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.functional.device import Reply
    from tests.lab.canaille import Canaille
    from tests.lab.scripted import Call

OPUS, SONNET, HAIKU, CHEAP = "claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5", "claude-haiku-5-5"
PROFILE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SAY: list[dict[str, Any]] = [{"role": "user", "content": "Say hello."}]
TURN: list[dict[str, Any]] = [{"role": "user", "content": [{"text": "Say hello."}]}]
DEFAULTS = [
    {"name": "others", "groups": ["nobody"], "model": HAIKU},
    {"name": "analysts", "groups": ["analysts"], "model": SONNET, "substitute": True, "max_tokens": 9000,
     "thinking_tokens": 4000},
]  # fmt: skip
POLICIES = [{"name": "most", "models": [SONNET, "titan-embed-text-v2"]}]


class Team:
    """A gateway whose analysts have defaults, the cloud behind it, and Ada, who is one."""

    def __init__(self, gateway: Gateway, cloud: ScriptedBedrock, ada: Device) -> None:
        self.gateway, self.cloud, self.ada = gateway, cloud, ada

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        return self.ada.request("POST", path, json.dumps(body).encode())

    @property
    def call(self) -> Call:
        """The only one that has reached the cloud."""
        (call,) = self.cloud.calls
        return call

    def policy(self, *words: str) -> Any:
        verbs = [*self.gateway.command("policy")[:-1], words[0], self.gateway.config, *words[1:]]
        return run(verbs, env=self.gateway.program.env, folder=self.gateway.folder, seconds=60)


@pytest.fixture(scope="module")
def open_team(
    tmp_path_factory: pytest.TempPathFactory, canaille: Canaille, sign_in: Callable[[str], str]
) -> Iterator[Team]:
    with ScriptedBedrock() as cloud:
        gateway = Gateway(
            tmp_path_factory.mktemp("team") / "gateway",
            issuers=[canaille.issuer_section()],
            endpoint=cloud.endpoint,
            region=cloud.region,
            credentials=cloud.key.environment(),
            models=(OPUS, SONNET, HAIKU, CHEAP, "titan-embed-text-v2"),
            changes={"defaults": DEFAULTS, "policies": POLICIES},
        )
        with gateway:
            ada = Device(gateway.url)
            ada.exchange(sign_in("ada"))
            yield Team(gateway, cloud, ada)


@pytest.fixture
def team(open_team: Team, sign_in: Callable[[str], str]) -> Team:
    open_team.cloud.reset()
    open_team.ada.exchange(sign_in("ada"))
    return open_team


def asking(model: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """One request for a model in each dialect that says nothing but its prompt."""
    return {
        "anthropic": ("/v1/messages", {"model": model, "messages": SAY}),
        "invoke": (f"/bedrock/model/{model}/invoke", {"anthropic_version": "bedrock-2023-05-31", "messages": SAY}),
        "converse": (f"/bedrock/model/{model}/converse", {"messages": TURN}),
        "chat": ("/openai/v1/chat/completions", {"model": model, "messages": SAY}),
        "responses": ("/openai/v1/responses", {"model": model, "input": "Say hello."}),
    }


def sent(call: Call) -> tuple[int, Any]:
    """Output cap and thinking with which a call reached the cloud."""
    if call.converse:
        return call.body["inferenceConfig"]["maxTokens"], call.body["additionalModelRequestFields"]["thinking"]
    return call.body["max_tokens"], call.body["thinking"]


@pytest.mark.parametrize("dialect", list(asking("")))
@pytest.mark.parametrize("named", ["default", OPUS])
def test_default_and_what_is_not_allowed_are_answered_by_the_default_model(
    team: Team, dialect: str, named: str
) -> None:
    reply = team.post(*asking(named)[dialect])
    assert (reply.status, reply.headers["x-llmgw-model"]) == (200, SONNET)
    assert team.call.model == PROFILE
    assert sent(team.call) == (9000, {"type": "enabled", "budget_tokens": 4000})
    assert (reply.headers["x-llmgw-max-tokens"], reply.headers["x-llmgw-thinking-tokens"]) == ("9000", "4000")
    line = team.gateway.audited(asking(named)[dialect][0], request_id=reply.headers["request-id"])
    assert (line["asked"], line["model"], line["policy"]) == (named, SONNET, "policies[0] (most)")


def test_a_stream_is_told_of_it_too(team: Team) -> None:
    reply = team.post("/v1/messages", {"model": "default", "messages": SAY, "stream": True})
    assert (reply.status, reply.headers["x-llmgw-model"]) == (200, SONNET)
    assert b"event: message_stop" in reply.body


def test_what_is_dearer_never_answers_in_the_place_of_what_is_cheaper(team: Team) -> None:
    for model in (HAIKU, CHEAP):
        reply = team.post("/v1/messages", {"model": model, "max_tokens": 9, "messages": SAY})
        assert (reply.status, reply.error["code"]) == (400, "model_not_allowed")
        assert f"Your default, {SONNET}, would be dearer" in reply.error["message"]
    assert team.cloud.calls == []


def test_what_a_request_says_is_as_it_says(team: Team) -> None:
    body = {"model": SONNET, "max_tokens": 77, "temperature": 0.5, "messages": SAY}
    reply = team.post("/v1/messages", body)
    assert reply.status == 200
    assert team.call.body == {"anthropic_version": "bedrock-2023-05-31"} | {k: body[k] for k in body if k != "model"}
    assert not {"x-llmgw-model", "x-llmgw-max-tokens", "x-llmgw-thinking-tokens"} & set(reply.headers)


SHORT = {"max_tokens": 2047}
QUIET: dict[str, dict[str, Any]] = {
    "no room": SHORT,
    "turned off": {"thinking": {"type": "disabled"}},
    "sampling": {"top_p": 0.9},
    "a forced tool": {"tool_choice": {"type": "any"}},
    "the answer begun": {"messages": [*SAY, {"role": "assistant", "content": "Well,"}]},
    "in a turn": {
        "messages": [
            *SAY,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]},
        ]
    },
    "an effort": {"output_config": {"effort": "low"}},
}


@pytest.mark.parametrize("case", list(QUIET))
def test_nothing_is_added_that_the_provider_would_refuse(team: Team, case: str) -> None:
    reply = team.post("/v1/messages", {"model": SONNET, "messages": SAY} | QUIET[case])
    assert reply.status == 200
    assert team.call.body.get("thinking") == QUIET[case].get("thinking")


CONVERSED: dict[str, dict[str, Any]] = {
    "sampling": {"inferenceConfig": {"temperature": 0.1}},
    "a forced tool": {"toolConfig": {"tools": [], "toolChoice": {"any": {}}}},
    "in a turn": {"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": []}}]}]},
    "thinking": {"additionalModelRequestFields": {"reasoning_config": {"type": "disabled"}}},
}


@pytest.mark.parametrize("case", list(CONVERSED))
def test_nor_in_converse(team: Team, case: str) -> None:
    reply = team.post(f"/bedrock/model/{SONNET}/converse", {"messages": TURN} | CONVERSED[case])
    assert reply.status == 200
    assert "thinking" not in team.call.body.get("additionalModelRequestFields", {})


def test_embeddings_have_no_defaults(team: Team) -> None:
    reply = team.post("/openai/v1/embeddings", {"model": "default", "input": "x"})
    assert (reply.status, reply.error["code"]) == (403, "model_not_allowed")
    assert team.post("/openai/v1/embeddings", {"model": "titan-embed-text-v2", "input": "x"}).status == 200


def test_the_command_says_what_counts(team: Team) -> None:
    done = team.policy("explain", "ada@example.com", OPUS)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{OPUS} is refused" in done.stdout
    assert f"{SONNET} answers in its place, by defaults[1] (analysts)" in done.stdout
    assert "where a request names no max_tokens: 9,000, by defaults[1] (analysts)" in done.stdout
    told = json.loads(team.policy("explain", "ada@example.com", "default", "--format", "json").stdout)
    assert (told["model"], told["answers"], told["defaults"]["number"]) == (SONNET, SONNET, 1)
    refused = team.policy("explain", "ada@example.com", HAIKU)
    assert (refused.exit_code, "answers in its place" in refused.stdout) == (1, False)
