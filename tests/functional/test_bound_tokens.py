"""Tokens bound to the device, from exchange to model: the forwarder proves each request, a copy is worth nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.functional.device import Device
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.canaille import Canaille

BODY = '{"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}'
ASK = (
    f"curl -sS --fail-with-body -H 'content-type: application/json' -d '{BODY}' "
    '-H "x-api-key: $ANTHROPIC_AUTH_TOKEN" $ANTHROPIC_BASE_URL/v1/messages'
)


@pytest.fixture
def strict(tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock) -> Iterator[System]:
    """A company that has no tokens but bound ones."""
    scripted.default = Answer("Hello.")
    whole = System(tmp_path, provider=canaille, cloud=scripted)
    whole.gateway.document["tokens"]["require_pop"] = True
    with whole:
        whole.sign_in()
        yield whole


def test_no_tool_holds_a_token_and_the_forwarder_works(strict: System) -> None:
    told = strict.agent.token()
    assert (told.exit_code, told.stdout) == (5, "")
    assert "bound to this device, which no tool can hold. Run: llmgw run -- COMMAND" in told.stderr
    for _ in range(2):
        answer = strict.agent.command("run", "--", "sh", "-c", ASK)
        assert json.loads(answer.stdout)["content"][0]["text"] == "Hello.", answer
    status = json.loads(strict.agent.command("status", "--json").stdout)
    assert status["ok"], status["error"]
    assert status["budgets"]
    assert strict.agent.command("usage").exit_code == 0
    out = strict.agent.command("logout")
    assert f"Revoked at {strict.gateway.url}." in out.stdout


def test_the_gateway_gives_nobody_another_token(strict: System) -> None:
    device = Device(strict.gateway.url)
    refused = device.try_exchange("whatever it is", subject_token_type="")
    assert (refused.status, refused.json["error"]) == (400, "invalid_target")
    assert "llmgw run -- COMMAND" in refused.json["error_description"]


def test_beside_tokens_for_tools_the_forwarder_has_its_own(system: System, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer("Hello.")
    assert system.agent.token().exit_code == 0
    answer = system.agent.command("run", "--", "sh", "-c", ASK)
    assert json.loads(answer.stdout)["content"][0]["text"] == "Hello.", answer
    log = (system.agent.home / "agent.log").read_text()
    assert log.count("new gateway token") == 2
