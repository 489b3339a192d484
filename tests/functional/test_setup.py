"""`llmgw setup`: a tool whose configuration it wrote reaches the model, and knows no other credential."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest

from tests.lab import node
from tests.lab.claude import Claude, Mode
from tests.lab.process import run
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from tests.lab.system import System

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`")
@pytest.mark.parametrize("mode", ["bedrock", "anthropic"])
def test_claude_code(system: System, scripted: ScriptedBedrock, mode: Mode) -> None:
    scripted.default = Answer("Set up.")
    claude = Claude(system.folder / f"claude-{mode}", LLMGW_HOME=str(system.agent.home), ANTHROPIC_AUTH_TOKEN="stale")
    settings = Path(claude.environment["CLAUDE_CONFIG_DIR"]) / "settings.json"
    before = settings.read_bytes()
    system.agent.env["CLAUDE_CONFIG_DIR"] = str(settings.parent)
    done = system.agent.command("setup", "claude", "--dialect", mode)
    assert (done.exit_code, done.stderr) == (0, "")
    assert claude.ask("How are you?").text == "Set up."
    assert system.agent.command("setup", "claude", "--undo").exit_code == 0
    assert settings.read_bytes() == before


def test_an_aws_sdk_by_its_profile(system: System, scripted: ScriptedBedrock) -> None:
    """boto3 signs as it does with any profile; the forwarder knows it by the session token."""
    scripted.default = Answer("By the profile.")
    done = system.agent.command("setup", "aws-sdk", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "llmgw-local" not in done.stdout
    code = (
        "import boto3, json; client = boto3.Session(profile_name='llmgw').client('bedrock-runtime'); "
        "body = {'anthropic_version': 'bedrock-2023-05-31', 'max_tokens': 9, 'messages': "
        f"[{{'role': 'user', 'content': 'hi'}}]}}; answer = client.invoke_model(modelId='{MODEL}', "
        "body=json.dumps(body)); print(json.load(answer['body'])['content'][0]['text'])"
    )
    finished = run([sys.executable, "-c", code], env=system.agent.env, folder=system.folder, seconds=30)
    assert (finished.exit_code, finished.stdout) == (0, "By the profile.\n"), finished.stderr
    assert scripted.refused == []


def test_tools_whose_files_name_models_and_address(system: System) -> None:
    for tool in ("opencode", "continue", "cursor"):
        done = system.agent.command("setup", tool)
        assert (done.exit_code, done.stderr) == (0, ""), tool
    home = Path(system.agent.env["HOME"])
    provider = json.loads((home / ".config/opencode/opencode.json").read_text())["provider"]["llmgw"]
    forwarder = json.loads(system.agent.command("forward", "--json").stdout)["forward"]
    models = json.loads(system.agent.command("whoami", "--json").stdout)["me"]["models"]
    assert provider["options"] == {"baseURL": f"{forwarder['url']}/v1", "apiKey": forwarder["secret"]}
    assert list(provider["models"]) == models
    listed = json.loads(system.agent.command("setup", "--list", "--json").stdout)["tools"]
    assert {tool["name"] for tool in listed if tool["set_up"]} == {"opencode", "continue", "cursor"}


def test_an_openai_sdk_in_a_new_shell(system: System, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer("By the shell's file.")
    done = system.agent.command("setup", "openai-sdk")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "llmgw-local" not in Path(system.agent.env["HOME"], ".profile").read_text()
    code = (
        "import openai; answer = openai.OpenAI().chat.completions.create(model='claude-sonnet-4-5', max_tokens=9, "
        "messages=[{'role': 'user', 'content': 'hi'}]); print(answer.choices[0].message.content)"
    )
    script = f'. "$HOME/.profile"; {sys.executable} -c "{code}"'
    finished = run(["/bin/sh", "-c", script], env=system.agent.env, folder=system.folder, seconds=60)
    assert (finished.exit_code, finished.stdout) == (0, "By the shell's file.\n"), finished.stderr


def test_codex_s_provider_is_the_gateway_and_its_command_gives_a_token(
    system: System, scripted: ScriptedBedrock
) -> None:
    """The same request as Codex's, with what stands in its file."""
    scripted.default = Answer("By the file.")
    assert system.agent.command("setup", "codex").exit_code == 0
    document = tomllib.loads(Path(system.agent.env["HOME"], ".codex", "config.toml").read_text())
    provider = document["model_providers"][document["model_provider"]]
    token = run([provider["auth"]["command"]], env=system.agent.env, folder=system.folder, seconds=30).stdout.strip()
    client = openai.OpenAI(base_url=provider["base_url"], api_key=token, max_retries=0)
    answer = client.responses.create(model="claude-sonnet-4-5", max_output_tokens=9, input="hi")
    assert answer.output_text == "By the file."
