"""Real clients through the forwarder, with no credential but the local secret, against the real gateway."""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from tests.lab import node
from tests.lab.agent import installed
from tests.lab.claude import Claude
from tests.lab.process import run
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.claude import Mode
    from tests.lab.system import System

MODEL = "claude-sonnet-5-5"
MESSAGES: Any = [{"role": "user", "content": "Say hello."}]
STREAMS = 200


def forward(system: System) -> dict[str, Any]:
    finished = system.agent.command("forward", "--json")
    assert (finished.exit_code, finished.stderr) == (0, "")
    document: dict[str, Any] = json.loads(finished.stdout)["forward"]
    return document


def sdk(url: str, credential: str) -> anthropic.Anthropic:
    """The SDK as a user has it: nothing of the test's own environment is looked at."""
    client = httpx2.Client(trust_env=False, limits=httpx2.Limits(max_connections=STREAMS))
    return anthropic.Anthropic(base_url=url, auth_token=credential, http_client=client, max_retries=0)


@pytest.fixture
def client(system: System) -> Iterator[anthropic.Anthropic]:
    """It, with the forwarder's address and secret."""
    door = forward(system)
    with sdk(door["url"], door["secret"]) as made:
        yield made


@pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`")
@pytest.mark.parametrize(
    ("mode", "more"),
    [("anthropic", {}), ("bedrock", {"CLAUDE_CODE_USE_BEDROCK": "1", "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1"})],
)
def test_claude_without_a_helper(system: System, scripted: ScriptedBedrock, mode: Mode, more: dict[str, str]) -> None:
    scripted.default = Answer("Through the forwarder.")
    variables = forward(system)["variables"] | more | {"AWS_REGION": "us-east-1"}
    claude = Claude(system.folder / f"claude-{mode}", **variables)
    answered = claude.ask("How are you?")
    assert answered.text == "Through the forwarder."
    assert scripted.refused == []


def test_boto3_as_a_command_that_knows_nothing_of_us(system: System, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer("Through the forwarder.")
    code = (
        "import boto3, json; client = boto3.client('bedrock-runtime', region_name='us-east-1'); "
        "body = {'anthropic_version': 'bedrock-2023-05-31', 'max_tokens': 9, 'messages': "
        "[{'role': 'user', 'content': 'hi'}]}; model = 'us.anthropic.claude-sonnet-4-5-20250929-v1:0'; "
        "stream = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body)); "
        "print(''.join(json.loads(e['chunk']['bytes']).get('delta', {}).get('text', '') for e in stream['body']))"
    )
    finished = system.agent.command("run", "--", sys.executable, "-c", code)
    assert (finished.exit_code, finished.stdout) == (0, "Through the forwarder.\n"), finished.stderr


def test_curl_by_the_shell_variables_and_by_the_socket(system: System, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer("Through the forwarder.")
    body = json.dumps({"model": MODEL, "max_tokens": 9, "messages": MESSAGES})
    ask = f"-d '{body}' -H 'content-type: application/json'"
    by_variables = (
        f'eval "$({installed("llmgw")} forward)"; curl -sS {ask} -H "x-api-key: $ANTHROPIC_AUTH_TOKEN" '
        "$ANTHROPIC_BASE_URL/v1/messages"
    )
    by_socket = f"curl -sS {ask} --unix-socket '{forward(system)['socket']}' http://localhost/v1/messages"
    for way in (by_variables, by_socket):
        finished = run(["/bin/sh", "-c", way], env=system.agent.env, folder=system.folder, seconds=30)
        assert json.loads(finished.stdout)["content"][0]["text"] == "Through the forwarder.", finished


def test_many_streams_at_once(system: System, scripted: ScriptedBedrock, client: anthropic.Anthropic) -> None:
    """All of them are open together: the cloud holds each until the last has begun."""
    scripted.default = Answer("Together.", hold_after=1)

    def stream(_number: int) -> str:
        with client.messages.stream(model=MODEL, max_tokens=9, messages=MESSAGES) as answer:
            return answer.get_final_text()

    with ThreadPoolExecutor(STREAMS) as pool:
        answers = [pool.submit(stream, number) for number in range(STREAMS)]
        system.gateway.program.wait_until(lambda: len(scripted.calls) == STREAMS, "asked by all", seconds=120)
        scripted.release_all()
        assert {answer.result() for answer in answers} == {"Together."}
    exchanges = [line for line in system.gateway.audit_lines() if line["path"] == "/oauth/token"]
    assert len(exchanges) == 2, "that of the sign-in, and one for the forwarder's own token, which all of them share"


def test_a_gateway_that_is_killed_ends_the_stream_with_an_error(
    system: System, scripted: ScriptedBedrock, client: anthropic.Anthropic
) -> None:
    scripted.default = Answer("Half an answer.", hold_after=3)
    with client.messages.stream(model=MODEL, max_tokens=9, messages=MESSAGES) as answer:
        events = iter(answer)
        next(events)
        system.gateway.program.send_signal(signal.SIGKILL)
        with pytest.raises((anthropic.APIError, httpx2.HTTPError)):
            list(events)
    scripted.release_all()


def test_the_secret_is_no_gateway_token_and_the_token_is_no_secret(system: System) -> None:
    door = forward(system)
    token = system.agent.token().stdout.strip()
    for base, credential in ((system.gateway.url, door["secret"]), (door["url"], token)):
        with sdk(base, credential) as client, pytest.raises(anthropic.AuthenticationError):
            client.messages.create(model=MODEL, max_tokens=9, messages=MESSAGES)


def test_a_command_ends_as_it_ends(system: System) -> None:
    assert system.agent.command("run", "--", "sh", "-c", "exit 41").exit_code == 41
    missing = system.agent.command("run", "--", "no-such-command", "--flag")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr.startswith("llmgw: no-such-command cannot be run (No such file or directory)")


def test_the_door_survives_a_restart_of_the_agent(system: System) -> None:
    door = forward(system)
    system.agent.restart()
    again = json.loads(system.agent.command("status", "--json").stdout)["forwarder"]
    assert again == {"url": door["url"], "socket": door["socket"]}
    assert forward(system)["secret"] == door["secret"]


def test_the_port_stays_closed_until_it_is_asked_for(system: System) -> None:
    assert json.loads(system.agent.command("status", "--json").stdout)["forwarder"]["url"] is None
    assert not (system.agent.home / "forward.json").exists()
