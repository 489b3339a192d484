"""What setup does to files: only what it has to, with a way back that touches nothing of anybody else."""

from __future__ import annotations

import json
import stat
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from llmgw_agent.errors import ConfigurationError, RefusedError
from llmgw_agent.setup import files
from llmgw_agent.setup.edits import Block, Member, RootKey
from llmgw_agent.setup.tools import TOOLS, Facts

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_agent.setup.files import Change, Receipts, Target

DOOR = {
    "url": "http://127.0.0.1:4711",
    "secret": "llmgw-local-abcdefgh",
    "dialects": ["anthropic", "bedrock", "openai"],
    "socket": "/s",
}


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    environ = {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    models = ("claude-sonnet-5-5", "claude-haiku-4-5")
    return Facts(
        environ, "https://llm.corp.example", ("/opt/x/llmgw-token",), ("/opt/x/llmgw",), "bedrock", DOOR, models
    )


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    return files.Receipts(tmp_path / "llmgw" / "setup.json")


def set_up(receipts: Receipts, tool: str, targets: list[Target]) -> list[Change]:
    changes = [files.plan(target) for target in targets]
    wanted = [change for change in changes if change.before != change.after]
    receipts.keep(tool, wanted)
    for change in wanted:
        files.carry_out(change)
    return changes


def undo(receipts: Receipts, tool: str) -> list[str]:
    """What was left."""
    changes = receipts.undo(tool)
    for change in changes:
        if change.before != change.after:
            files.carry_out(change)
    receipts.forget(tool)
    return [name for change in changes for name in change.left]


def existing(facts: Facts, tool: str) -> list[tuple[Path, str]]:
    """What each tool's user has already."""
    texts: dict[str, str] = {
        "claude": '{\n    "model": "opus",\n    "env": {"FOO": "1", "ANTHROPIC_API_KEY": "sk-ant-of-mine"}\n}\n',
        "codex": '# mine\nmodel = "gpt-5"\nmodel_provider = "openai" # chosen\n\n[projects."/x"]\ntrusted = true\n',
        "continue": "name: mine\nmodels:\n  # the first\n  - name: a\n    provider: ollama\ncontext: []\n",
        "cursor": '{\n  // mine\n  "editor.fontSize": 14,\n}\n',
        "opencode": '{"theme": "x", "provider": {"openai": {}}}',
        "aws-sdk": "[default]\nregion = eu-west-1",
        "openai-sdk": "alias ll='ls -l'\n",
    }
    target = TOOLS[tool].targets(facts)[-1]
    return [(target.path, texts[tool])]


def parsed(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        return tomllib.loads(text)
    return yaml.safe_load(text) if path.suffix == ".yaml" else text


@pytest.mark.parametrize("tool", list(TOOLS))
def test_there_and_back_without_and_with_a_file_of_the_user(facts: Facts, receipts: Receipts, tool: str) -> None:
    made = set_up(receipts, tool, TOOLS[tool].targets(facts))
    assert {change.state for change in made} == {"created"}
    assert all(stat.S_IMODE(change.path.stat().st_mode) == 0o600 for change in made)
    assert {change.state for change in set_up(receipts, tool, TOOLS[tool].targets(facts))} == {"unchanged"}
    assert undo(receipts, tool) == []
    assert not any(change.path.exists() for change in made)

    for path, text in existing(facts, tool):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)
    targets = TOOLS[tool].targets(facts)
    set_up(receipts, tool, targets)
    for target in targets:
        if target.is_private:
            assert stat.S_IMODE(target.path.stat().st_mode) == 0o600
    assert undo(receipts, tool) == []
    for path, text in existing(facts, tool):
        assert path.read_text(encoding="utf-8") == text
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert [each.name for each in path.parent.glob("*before-llmgw")] == []


@pytest.mark.parametrize("tool", list(TOOLS))
def test_what_the_user_wrote_since_stays(facts: Facts, receipts: Receipts, tool: str) -> None:
    for path, text in existing(facts, tool):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        set_up(receipts, tool, TOOLS[tool].targets(facts))
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            path.write_text(content.replace("{", '{"since": 1, ', 1))
        else:
            path.write_text("# since\n" + content)
        # A second time, with another address: our lines change, the way back stays.
        set_up(receipts, tool, TOOLS[tool].targets(facts))
        assert undo(receipts, tool) == []
        left = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            assert left == text.replace("{", '{"since": 1, ', 1)
        else:
            assert left.rstrip() == ("# since\n" + text).rstrip()


def test_a_value_that_the_user_changed_since_is_left(facts: Facts, receipts: Receipts) -> None:
    target = TOOLS["claude"].targets(facts)[0]
    set_up(receipts, "claude", [target])
    document = json.loads(target.path.read_text())
    document["apiKeyHelper"] = "my-own"
    target.path.write_text(json.dumps(document))
    assert undo(receipts, "claude") == ["apiKeyHelper"]
    assert json.loads(target.path.read_text()) == {"apiKeyHelper": "my-own"}


def test_lines_between_the_marks_that_were_changed_are_left(facts: Facts, receipts: Receipts) -> None:
    target = TOOLS["aws-sdk"].targets(facts)[0]
    set_up(receipts, "aws-sdk", [target])
    text = target.path.read_text().replace("us-east-1", "eu-west-1")
    target.path.write_text(text)
    assert undo(receipts, "aws-sdk") == ["the lines of aws-sdk"]
    assert target.path.read_text() == text


def test_the_root_key_of_a_toml_file(facts: Facts) -> None:
    target = TOOLS["codex"].targets(facts)[0]
    target.path.parent.mkdir()
    target.path.write_text('# mine\nmodel_provider = "openai"\n[model_providers.x]\nmodel_provider = "no"\n')
    document = tomllib.loads((files.plan(target).after or b"").decode())
    assert document["model_provider"] == "llmgw"
    assert document["model_providers"]["x"] == {"model_provider": "no"}
    assert document["model_providers"]["llmgw"]["auth"]["command"] == "/opt/x/llmgw-token"
    target.path.write_text('[model_providers.llmgw]\nname = "of mine"\n')
    with pytest.raises(ConfigurationError, match="is not changed"):
        files.plan(target)
    target.path.write_text('model_provider = """a\nb"""\n')
    with pytest.raises(ConfigurationError, match="is not changed"):
        files.plan(target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name: x\nmodels:\n- name: a\n",
        "models: # list\n    - name: a\n",
        "models:\n\n  # note\n  - name: a\nother: 1\n",
    ],
)
def test_a_yaml_list_gets_our_items_first(facts: Facts, text: str) -> None:
    target = TOOLS["continue"].targets(facts)[0]
    target.path.parent.mkdir()
    target.path.write_text(text)
    document = yaml.safe_load(files.plan(target).after or b"")
    assert [model["model"] for model in document["models"] if "model" in model] == list(facts.models)
    assert document["models"][0]["apiBase"] == "http://127.0.0.1:4711/v1/"
    others = (yaml.safe_load(text) or {}).get("models", [])
    assert document["models"][len(facts.models) :] == others


@pytest.mark.parametrize("text", ["models: []\n", "models: [{name: a}]\n", "models:\nother: 1\n"])
def test_a_yaml_list_in_another_manner_is_not_touched(facts: Facts, text: str) -> None:
    target = TOOLS["continue"].targets(facts)[0]
    target.path.parent.mkdir()
    target.path.write_text(text)
    with pytest.raises(ConfigurationError, match="not written as one item a line"):
        files.plan(target)


def test_a_file_that_is_broken_or_none_or_changing_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"a": ')
    with pytest.raises(ConfigurationError, match="line 1 is not JSON"):
        files.plan(files.Target(path, (Member(("b",), 1),)))
    assert path.read_text() == '{"a": '
    path.write_text("{}")
    change = files.plan(files.Target(path, (Member(("b",), 1),)))
    path.write_text('{"c": 2}')
    with pytest.raises(ConfigurationError, match="in this moment"):
        files.carry_out(change)
    folder = tmp_path / "folder.json"
    folder.mkdir()
    with pytest.raises(ConfigurationError, match=r"no ordinary file|cannot be read"):
        files.plan(files.Target(folder, (Member(("b",), 1),)))


def test_a_dialect_that_the_gateway_does_not_speak(facts: Facts) -> None:
    with pytest.raises(RefusedError, match="does not speak the dialect openai"):
        TOOLS["codex"].targets(replace(facts, forwarder=DOOR | {"dialects": ["anthropic"]}))


def test_a_link_stays_a_link_and_a_diff_shows_no_credential(tmp_path: Path, receipts: Receipts) -> None:
    real, link = tmp_path / "dotfiles.json", tmp_path / "settings.json"
    real.write_text('{\n  "apiKey": "sk-ant-1234567890abcdef",\n  "n": 1\n}\n')
    link.symlink_to(real)
    target = files.Target(link, (Member(("secret",), DOOR["secret"]),))
    assert "sk-ant" not in files.plan(target).diff()
    assert "abcdefgh" not in files.plan(target).diff()
    set_up(receipts, "cursor", [target])
    assert link.is_symlink()
    assert json.loads(real.read_text())["secret"] == DOOR["secret"]


def test_marks_that_were_torn_apart_stop_it(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("# >>> llmgw aws-sdk >>>\n[x]\n")
    with pytest.raises(ConfigurationError, match="not one pair"):
        files.plan(files.Target(path, (Block("aws-sdk", "a = 1"),)))
    made, edit = RootKey('a = "1"').make("")
    assert edit.unmake(made) == ""
