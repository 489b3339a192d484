"""The real `claude` CLI through agent and gateway, in both of its modes, with `llmgw-token` as its helper."""

from __future__ import annotations

import json
import shlex
import stat
import time
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.money.catalogues import built_in
from tests.functional import ledger
from tests.functional.device import Device
from tests.lab import node
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lab.claude import Mode
    from tests.lab.system import System

pytestmark = pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`")
MODES: list[Mode] = ["bedrock", "anthropic"]


@pytest.mark.parametrize("mode", MODES)
def test_a_prompt_is_answered_and_accounted_for(system: System, scripted: ScriptedBedrock, mode: Mode) -> None:
    scripted.default = Answer("Forty-two.", usage=Usage(input=900, output=11, cache_write_5m=12_000))
    answered = system.claude(mode).ask("What is the answer?")
    assert answered.text == "Forty-two."
    assert answered.finished.exit_code == 0
    rows = ledger.settled(system.gateway.db, len(scripted.calls))
    assert [ledger.usage_of(row) for row in rows] == scripted.usages
    assert scripted.refused == []


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_loop_completes(system: System, scripted: ScriptedBedrock, mode: Mode) -> None:
    scripted.script_tool_loop(
        "Bash", {"command": "echo from-the-tool", "description": "Say it"}, "The tool has spoken."
    )
    answered = system.claude(mode).ask("Use the tool.", tools=("Bash(echo:*)",))
    assert answered.text == "The tool has spoken."
    last = json.dumps(scripted.calls[-1].body["messages"])
    assert "from-the-tool" in last, "the tool's output went back to the model"
    rows = ledger.settled(system.gateway.db, len(scripted.calls))
    assert len(rows) >= 2
    assert [ledger.usage_of(row) for row in rows] == scripted.usages


@pytest.mark.parametrize("mode", MODES)
def test_the_non_streaming_fallback_works_and_both_attempts_are_charged(
    system: System, scripted: ScriptedBedrock, mode: Mode
) -> None:
    scripted.script(Answer(break_after=4))
    scripted.default = Answer("Recovered.")
    answered = system.claude(mode).ask("Say it.")
    assert answered.text == "Recovered."
    rows = ledger.settled(system.gateway.db, len(scripted.calls))
    assert rows[0].estimated
    assert rows[0].cost > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_person_over_budget_reads_which_how_much_and_when_it_resets(
    system: System, scripted: ScriptedBedrock, mode: Mode
) -> None:
    system.gateway.document["budgets"] = [{"level": "user", "limit_usd": 0, "overshoot_usd": 100}]
    system.gateway.restart()
    answered = system.claude(mode).ask("Say it.")
    assert answered.finished.exit_code == 1
    for part in ("402", "monthly budget", "of USD 0.00", "It resets at 20", "#llm-help"):
        assert part in answered.text
    assert scripted.calls == []


@pytest.mark.parametrize("mode", MODES)
def test_a_model_that_is_not_served_is_one_refusal_that_names_those_that_are(
    system: System, scripted: ScriptedBedrock, mode: Mode
) -> None:
    answered = system.claude(mode).ask("Say it.", model="my-own-model")
    assert "is not served here" in answered.text
    assert "claude-sonnet-4-5" in answered.text
    attempts = [line for line in system.gateway.audit_lines() if line["code"] == "model_not_allowed"]
    assert len(attempts) == 1, "the client must not try again with less"
    assert scripted.calls == []


@pytest.mark.parametrize("mode", MODES)
def test_the_client_recovers_from_an_expired_token_by_calling_the_helper_again(
    system: System, scripted: ScriptedBedrock, sign_in: Callable[[str], str], tmp_path: Path, mode: Mode
) -> None:
    stale, helper = tmp_path / "stale", tmp_path / "helper"
    stale.write_text(_expired(system, sign_in))
    # The first call prints what a client's cache would still hold after a night; all others get the real token.
    fresh = f"exec {system.agent.token_command}"
    helper.write_text(f"#!/bin/sh\nif [ -f {stale} ]; then cat {stale}; rm {stale}; else {fresh}; fi\n")
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    claude = system.claude(mode)
    claude.write_settings({"apiKeyHelper": shlex.quote(str(helper))})
    answered = claude.ask("Say it.")
    assert answered.text == scripted.default.text
    assert not stale.exists()
    codes = [line["code"] for line in system.gateway.audit_lines() if line["dialect"] == mode]
    assert codes.index("token_expired") < codes.index("ok", codes.index("token_expired"))


def _expired(system: System, sign_in: Callable[[str], str]) -> str:
    """A genuine token of this gateway whose life is over."""
    system.gateway.document["tokens"]["life_seconds"] = 2
    system.gateway.restart()
    device = Device(system.gateway.url)
    device.exchange(sign_in("ada"))
    while device.request("GET", "/v1/me").status == 200:
        time.sleep(0.2)
    system.gateway.document["tokens"]["life_seconds"] = 600
    system.gateway.restart()
    return device.token


def test_a_person_who_is_not_signed_in_is_told_what_to_type(system: System, scripted: ScriptedBedrock) -> None:
    assert system.agent.command("logout").exit_code == 0
    token = system.agent.token()
    assert (token.exit_code, token.stdout) == (4, "")
    assert token.stderr.count("\n") == 1
    assert "llmgw login" in token.stderr
    answered = system.claude("bedrock").ask("Say it.")
    assert "llmgw login" in answered.text + answered.finished.stderr
    assert scripted.calls == []


def test_claude_discovers_the_models(system: System) -> None:
    """It asks at its start, waits three seconds for the answer, and keeps it for its menu of models."""
    claude = system.claude("anthropic")
    answered = claude.ask(
        "Say it.", CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=""
    )
    assert not answered.result["is_error"]
    kept = json.loads((claude.home / ".claude" / "cache" / "gateway-models.json").read_text(encoding="utf-8"))
    assert [model["id"] for model in kept["models"]] == list(built_in().models)
