"""What is rendered for tools beside Claude Code: Codex, VS Code, CI jobs."""

from __future__ import annotations

import base64
import json
import plistlib
import shutil
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest
import yaml

from llmgw_agent.checks import State
from llmgw_mdm import render
from llmgw_mdm.lint import lint
from tests.lab import namespace
from tests.lab.process import run
from tests.mdm.test_render import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_mdm.organization import Organization
    from tests.lab.process import Finished

CODEX = "linux/codex/managed_config.toml"
MANAGED = "codex/managed_config.toml"
JOBS: dict[str, list[str | int]] = {
    "ci/github-actions.yml": ["jobs", "ask", "steps", 1, "run"],
    "ci/gitlab-ci.yml": [".claude-code"],
}


@pytest.fixture
def found(org_with: Callable[..., Organization]) -> dict[str, bytes]:
    return {each.path: each.content for each in render.artefacts(org_with(**EVERYTHING))}


def test_no_tool_is_managed_that_was_not_named(org_with: Callable[..., Organization]) -> None:
    platforms = {"platforms": ["linux", "macos", "windows"]}
    paths = [each.path for each in render.artefacts(org_with(rollout=platforms))]
    assert not [path for path in paths if "codex" in path or path.startswith(("vscode/", "ci/"))]


def test_codex_has_one_provider_and_its_token_from_the_helper(found: dict[str, bytes]) -> None:
    document = tomllib.loads(found[CODEX].decode())
    provider = document["model_providers"][document["model_provider"]]
    assert (document["model"], provider["wire_api"]) == ("gpt-oss-120b", "responses")
    assert provider["base_url"] == "https://llm.corp.example/openai/v1"
    assert provider["auth"]["command"] == "/opt/llmgw/bin/llmgw-token"
    assert provider["auth"]["refresh_interval_ms"] == 240_000


def test_a_mac_gets_the_same_for_codex_in_its_domain(found: dict[str, bytes]) -> None:
    preferences = plistlib.loads(found["macos/com.openai.codex.plist"])
    assert base64.b64decode(preferences["config_toml_base64"]) == found[CODEX]


@pytest.mark.parametrize("name", [CODEX, "macos/com.openai.codex.plist", "macos/com.openai.codex.mobileconfig"])
def test_what_is_rendered_for_codex_is_without_a_fault(found: dict[str, bytes], tmp_path: Path, name: str) -> None:
    path = tmp_path / name.rpartition("/")[2]
    path.write_bytes(found[name])
    path.chmod(0o644)
    assert {check.state for check in lint(path)} == {State.OK}
    assert any("https://llm.corp.example/openai/v1" in check.found for check in lint(path))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('model_provider = "llmgw"', 'model_provider = "openai"', "is 'openai', which is not described"),
        ("https://", "http://", "base_url must begin with https://"),
        ("/opt/llmgw/bin/", "", "is started without a shell"),
        ("240000", "3600000", "tokens that have ended are sent"),
    ],
)
def test_what_harms_codex_is_found(found: dict[str, bytes], tmp_path: Path, old: str, new: str, says: str) -> None:
    path = tmp_path / "managed_config.toml"
    text = found[CODEX].decode()
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    path.chmod(0o644)
    (fault,) = [check.found for check in lint(path) if check.state is State.FAIL]
    assert says in fault


@pytest.mark.skipif(not namespace.available(), reason="needs mount namespaces (root, or user namespaces)")
class TestScripts:
    """Codex reads one file, which may be somebody's: theirs stays."""

    @staticmethod
    def run(found: dict[str, bytes], folder: Path, script: str, there: bytes | None) -> Finished:
        for name in ("install", "remove"):
            (folder / name).write_bytes(found[f"linux/codex/{name}.sh"])
        overlay = folder / "etc"
        overlay.mkdir()
        if there is not None:
            namespace.write(overlay, {MANAGED: there})
        words = namespace.enter(overlay, ["sh", "-c", script.replace("@", str(folder))])
        return run(words, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, folder=folder, seconds=30)

    def test_they_put_it_there_and_take_it_away(self, found: dict[str, bytes], tmp_path: Path) -> None:
        script = (
            f"sh @/install && sh @/install && cat /etc/{MANAGED} && sh @/remove && sh @/remove && ! test -e /etc/codex"
        )
        done = self.run(found, tmp_path, script, None)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.encode() == found[CODEX]

    @pytest.mark.parametrize("name", ["install", "remove"])
    def test_they_leave_somebody_else_s_alone(self, found: dict[str, bytes], tmp_path: Path, name: str) -> None:
        done = self.run(found, tmp_path, f"sh @/{name}; echo $?; cat /etc/{MANAGED}", b'model = "theirs"\n')
        assert done.stdout == '1\nmodel = "theirs"\n'
        assert "is somebody else's" in done.stderr


def test_vs_code_is_told_not_to_ask_for_an_account(found: dict[str, bytes]) -> None:
    assert json.loads(found["vscode/settings.json"]) == {"claudeCode.disableLoginPrompt": True}


def lines_of(content: bytes, path: list[str | int]) -> list[str]:
    """The commands of a job."""
    part = yaml.safe_load(content)
    for step in path:
        part = part[step]
    lines: list[str] = part.splitlines() if isinstance(part, str) else part["before_script"]
    return lines


def test_every_job_is_looked_at(found: dict[str, bytes]) -> None:
    assert {path for path in found if path.startswith("ci/")} == JOBS.keys()


@pytest.mark.parametrize("name", JOBS)
def test_a_job_installs_what_the_organisation_publishes(found: dict[str, bytes], name: str) -> None:
    lines = lines_of(found[name], JOBS[name])
    assert any(line.endswith(" https://pkg.corp.example/llmgw.sources") for line in lines)
    assert any(line.endswith("apt-get install --yes llmgw-org-example-corp") for line in lines)
    assert any(line.endswith("@anthropic-ai/claude-code@2.1.329") for line in lines)
    done = subprocess.run(["sh", "-n"], input="\n".join(lines).encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
@pytest.mark.parametrize("name", JOBS)
def test_a_job_s_commands_have_nothing_that_a_linter_knows(found: dict[str, bytes], name: str) -> None:
    text = "\n".join(lines_of(found[name], JOBS[name]))
    done = subprocess.run(["shellcheck", "--shell=sh", "-"], input=text.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_job_may_get_its_own_identity_and_nothing_more(found: dict[str, bytes]) -> None:
    workflow = yaml.safe_load(found["ci/github-actions.yml"])
    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    job = yaml.safe_load(found["ci/gitlab-ci.yml"])[".claude-code"]
    assert job["id_tokens"] == {"LLMGW_ID_TOKEN": {"aud": "https://llm.corp.example"}}
