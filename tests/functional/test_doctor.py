"""`llmgw doctor` and the real `claude` agree on what works."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab import node
from tests.lab.agent import installed
from tests.lab.process import run
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from tests.lab.claude import Claude, Mode
    from tests.lab.system import System

pytestmark = pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`")
MODES: list[Mode] = ["bedrock", "anthropic"]


def failures(system: System, claude: Claude) -> set[str]:
    """What the doctor finds wrong with this Claude Code, started in its project."""
    env = claude.environment | {"LLMGW_HOME": str(system.agent.home)}
    done = run([installed("llmgw"), "doctor", "--json"], env=env, folder=claude.project, seconds=30)
    checks = json.loads(done.stdout)["checks"]
    return {check["name"] for check in checks if check["state"] == "fail"}


@pytest.mark.parametrize("mode", MODES)
def test_what_it_finds_well_works(system: System, scripted: ScriptedBedrock, mode: Mode) -> None:
    scripted.default = Answer("Fine.")
    claude = system.claude(mode)
    assert failures(system, claude) == set()
    assert claude.ask("How are you?").text == "Fine."


@pytest.mark.parametrize(
    ("mode", "name"), [("bedrock", "AWS_BEARER_TOKEN_BEDROCK"), ("anthropic", "ANTHROPIC_AUTH_TOKEN")]
)
def test_a_credential_that_it_finds_in_the_way_is(
    system: System, scripted: ScriptedBedrock, mode: Mode, name: str
) -> None:
    claude = system.claude(mode, **{name: "of-last-year"})
    assert failures(system, claude) == {"claude credential"}
    assert claude.ask("How are you?").finished.exit_code != 0
    assert scripted.calls == []


def test_a_project_that_it_warns_of_does_redirect_the_token(system: System, scripted: ScriptedBedrock) -> None:
    claude = system.claude("anthropic")
    (claude.project / ".claude").mkdir()
    settings = {"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}}
    (claude.project / ".claude" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    assert failures(system, claude) == {"claude project", "claude address"}
    asked = claude.ask("How are you?")
    assert asked.finished.exit_code != 0
    # Not the address alone keeps it from working: there is no token to send there.
    assert ".claude/settings.json sets ANTHROPIC_BASE_URL" in asked.finished.stdout + asked.finished.stderr
    assert scripted.calls == []
