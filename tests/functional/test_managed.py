"""Managed settings on a laptop: what is rendered, where root has put it, as the real `claude` and ours read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_mdm import organization, render
from tests.lab import namespace, node
from tests.lab.agent import installed
from tests.lab.claude import Claude, executable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.process import Finished
    from tests.lab.scripted import ScriptedBedrock
    from tests.lab.system import System

pytestmark = [
    pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`"),
    pytest.mark.skipif(not namespace.available(), reason="needs mount namespaces (root, or user namespaces)"),
]


def rendered(url: str, helper: str, dialect: str = "anthropic") -> dict[str, bytes]:
    """The artefacts for a gateway."""
    document = {
        "organization": {"name": "Example Corp", "identifier": "example.corp"},
        "gateway": {"url": url},
        "rollout": {"platforms": ["linux"], "helper": {"linux": helper}},
        "claude_code": {"dialect": dialect, "presets": ["no-bypass", "no-marketplaces"], "announcements": ["Hello"]},
    }
    faults: list[str] = []
    org = organization.parse(document, faults)
    assert faults == []
    return {each.path: each.content for each in render.artefacts(org)}


class Laptop:
    """A machine whose /etc is the test's; its user has set nothing up."""

    def __init__(self, folder: Path) -> None:
        self.claude = Claude(folder / "user")
        self.claude.managed = folder / "etc"
        self.etc = folder / "etc"
        self.etc.mkdir()

    def put(self, **files: Any) -> None:
        """Files below /etc/claude-code: `base`, or a drop-in by its name."""
        for name, content in files.items():
            path = "managed-settings.json" if name == "base" else f"managed-settings.d/{name.replace('_', '-')}.json"
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            namespace.write(self.etc, {f"claude-code/{path}": body})

    def show(self) -> tuple[Finished, dict[str, Any]]:
        done = self.claude.run(installed("llmgw"), "mdm", "show", "--json", seconds=30)
        document: dict[str, Any] = json.loads(done.stdout)
        return done, document


@pytest.mark.parametrize("dialect", ["bedrock", "anthropic"])
def test_with_nothing_set_up_by_its_user_a_prompt_is_answered(
    system: System, scripted: ScriptedBedrock, tmp_path: Path, dialect: str
) -> None:
    helper = tmp_path / "llmgw-token"
    helper.write_text(f"#!/bin/sh\nexec {system.agent.token_command}\n", encoding="utf-8")
    helper.chmod(0o755)
    laptop = Laptop(tmp_path)
    laptop.put(**{"50_llmgw": rendered(system.gateway.url, str(helper), dialect)["linux/50-llmgw.json"]})
    assert laptop.claude.ask("Say it.").text == scripted.default.text
    done, shown = laptop.show()
    assert done.exit_code == 0, done.stdout
    assert {check["state"] for check in shown["checks"]} == {"ok"}
    for url, code in ((system.gateway.url, 0), ("https://another.example", 1)):
        asked = laptop.claude.run(installed("llmgw"), "mdm", "show", "--gateway", url, seconds=30)
        assert asked.exit_code == code, asked.stdout


def test_the_scripts_put_it_there_and_take_it_away(tmp_path: Path) -> None:
    found = rendered("https://llm.corp.example", "/opt/llmgw/bin/llmgw-token")
    laptop = Laptop(tmp_path)
    for name in ("install", "remove"):
        (tmp_path / name).write_bytes(found[f"linux/{name}.sh"])
    etc = "find /etc/llmgw /etc/claude-code -mindepth 1 2>/dev/null | sort"
    script = f"""set -e
        sh {tmp_path}/install; sh {tmp_path}/install
        {etc}; stat -c '%a %u' /etc/llmgw/managed.toml /etc/claude-code/managed-settings.d/50-llmgw.json
        cat /etc/claude-code/managed-settings.d/50-llmgw.json > {tmp_path}/was
        sh {tmp_path}/remove; echo removed; {etc}; sh {tmp_path}/remove"""
    done = laptop.claude.run("sh", "-c", script)
    assert (done.exit_code, done.stderr) == (0, "")
    there = ["/etc/claude-code/managed-settings.d", "/etc/claude-code/managed-settings.d/50-llmgw.json"]
    assert done.stdout.split("\n") == [*there, "/etc/llmgw/managed.toml", "644 0", "644 0", "removed", ""]
    assert (tmp_path / "was").read_bytes() == found["linux/50-llmgw.json"]


def test_removal_leaves_the_settings_of_others(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    laptop.put(**{"10_other": {"model": "haiku"}, "50_llmgw": {"model": "opus"}})
    (tmp_path / "remove").write_bytes(rendered("https://llm.corp.example", "/x/llmgw-token")["linux/remove.sh"])
    done = laptop.claude.run("sh", "-c", f"sh {tmp_path}/remove; ls /etc/claude-code/managed-settings.d")
    assert (done.exit_code, done.stdout) == (0, "10-other.json\n")


def test_what_another_team_s_file_overrules_is_told_and_is_so(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    whole = rendered("https://127.0.0.1:9", "/opt/llmgw/bin/llmgw-token")["linux/50-llmgw.json"]
    theirs = tmp_path / "their-helper"
    theirs.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n", encoding="utf-8")
    theirs.chmod(0o755)
    laptop.put(**{"50_llmgw": whole, "90_theirs": {"apiKeyHelper": str(theirs)}})
    done, shown = laptop.show()
    assert [(each["key"], each["source"].rpartition("/")[2]) for each in shown["policy"]["passed_over"]] == [
        ("apiKeyHelper", "50-llmgw.json")
    ]
    assert {check["name"] for check in shown["checks"] if check["state"] == "warn"} == {"passed over"}
    assert done.exit_code == 0
    laptop.claude.ask("Say it.")
    assert (tmp_path / "ran").exists(), "the real client takes their helper, too"


def test_a_broken_file_is_told_and_stops_the_client(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    laptop.put(base={"model": "haiku"}, **{"50_llmgw": b'{"env": {'})
    done, shown = laptop.show()
    assert done.exit_code == 1
    (check,) = [check for check in shown["checks"] if check["state"] == "fail"]
    assert "50-llmgw.json: it cannot be parsed" in check["found"]
    asked = laptop.claude.ask("Say it.")
    assert "could not be parsed" in asked.finished.stdout + asked.finished.stderr


def test_the_client_itself_finds_nothing_wrong_with_what_is_rendered(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path)
    laptop.put(**{"50_llmgw": rendered("https://127.0.0.1:9", "/opt/llmgw/bin/llmgw-token")["linux/50-llmgw.json"]})
    said = laptop.claude.run(executable(), "doctor").stdout
    assert "nvalid settings" not in said
    laptop.put(**{"50_llmgw": {"availableModels": "sonnet"}})
    assert "nvalid settings" in laptop.claude.run(executable(), "doctor").stdout, "it would say so"


def test_a_first_file_from_the_gateway_can_be_rendered(system: System, tmp_path: Path) -> None:
    done = system.agent.command("mdm", "init", system.gateway.url, "--out", str(tmp_path / "org.toml"))
    assert (done.exit_code, done.stderr) == (0, "")
    done = system.agent.command("mdm", "render", str(tmp_path / "org.toml"), "--out", str(tmp_path / "dist"))
    assert (done.exit_code, done.stderr) == (0, "")
    linted = system.agent.command("mdm", "lint", "--strict", str(tmp_path / "dist" / "linux" / "50-llmgw.json"))
    assert linted.exit_code == 0, linted.stdout


def test_what_is_no_gateway_is_told(system: System, tmp_path: Path) -> None:
    for url, code in ((f"{system.gateway.url}/v1", 8), ("http://127.0.0.1:9", 6), ("gateway", 2)):
        done = system.agent.command("mdm", "init", url, "--out", str(tmp_path / "org.toml"))
        assert (done.exit_code, done.stdout) == (code, "")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "org.toml").exists()
