"""The real Codex under the managed configuration that we render: whatever its user says, the gateway is asked."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from llmgw_mdm import codex, organization
from tests.lab import namespace
from tests.lab.environment import clean_environment
from tests.lab.process import run
from tests.lab.system import System

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.scripted import ScriptedBedrock

MODEL = "claude-sonnet-5-5"
CODEX = shutil.which("codex")
THEIRS = """
model_provider = "theirs"
[model_providers.theirs]
name = "theirs"
base_url = "http://127.0.0.1:9/v1"
wire_api = "responses"
[model_providers.llmgw]
name = "llmgw"
base_url = "http://127.0.0.1:9/v1"
wire_api = "responses"
"""


@pytest.mark.long
@pytest.mark.skipif(CODEX is None, reason="needs Codex (npm install -g @openai/codex@0.169.0)")
@pytest.mark.skipif(not namespace.available(), reason="needs mount namespaces (root, or user namespaces)")
@pytest.mark.parametrize("words", [(), ("-c", 'model_provider="theirs"')], ids=["file", "flag"])
def test_what_its_user_says_of_the_provider_does_not_count(
    tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock, words: tuple[str, ...]
) -> None:
    with System(tmp_path, provider=canaille, cloud=scripted, models=(MODEL,)) as system:
        system.sign_in()
        helper = tmp_path / "llmgw-token"
        helper.write_text(f"#!/bin/sh\nexec {system.agent.token_command}\n", encoding="utf-8")
        helper.chmod(0o755)
        document = {
            "organization": {"name": "Example Corp", "identifier": "example.corp"},
            "gateway": {"url": system.gateway.url},
            "rollout": {"helper": {"linux": str(helper)}, "tools": ["codex"]},
            "codex": {"model": MODEL},
        }
        faults: list[str] = []
        managed = codex.configuration(organization.parse(document, faults), "linux")
        assert faults == []
        home = tmp_path / "user"
        (home / ".codex").mkdir(parents=True)
        (home / ".codex" / "config.toml").write_text(THEIRS, encoding="utf-8")
        overlay = namespace.write(tmp_path / "etc", {codex.PATH.removeprefix("/etc/"): managed})
        command = [str(CODEX), "exec", "--skip-git-repo-check", *words, "Say it."]
        done = run(namespace.enter(overlay, command), env=clean_environment(home), folder=home, seconds=120)
        assert scripted.default.text in done.stdout, done.stderr
        assert system.gateway.audited("/openai/v1/responses")["status"] == 200
