"""`llmgw-policy`: always an object and exit code 0, and never more than the files of the machine say."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_agent.checks import State
from llmgw_mdm import live, policy
from llmgw_mdm.rules import judge
from tests.lab import namespace
from tests.lab.agent import installed
from tests.lab.process import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_mdm.organization import Organization

DROP_IN = "claude-code/managed-settings.d/50-llmgw.json"
SONNET = ("claude-sonnet-4-5",)
ALL = tuple(f"claude-{family}-5-5" for family in live.FAMILIES)


@pytest.mark.parametrize(
    ("listed", "models", "left"),
    [
        (None, SONNET, ["sonnet"]),
        (None, ALL, None),
        (None, (*SONNET, "gpt-oss-120b"), ["sonnet", "gpt-oss-120b"]),
        (["opus", "sonnet", "opusplan"], SONNET, ["sonnet"]),
        (["sonnet", "claude-haiku-4-5", "default"], SONNET, ["sonnet", "default"]),
        (["sonnet"], ALL, ["sonnet"]),
        (["opus"], SONNET, ["opus"]),
    ],
)
def test_models_that_nobody_may_use_are_not_offered(
    listed: list[str] | None, models: tuple[str, ...], left: list[str] | None
) -> None:
    settings: dict[str, Any] = {"apiKeyHelper": "/x"} | ({"availableModels": listed} if listed else {})
    found = live.narrow(settings, models)
    assert found.get("availableModels") == left
    assert found["apiKeyHelper"] == "/x"


@pytest.fixture
def managed(org_with: Callable[..., Organization]) -> dict[str, Any]:
    return policy.claude_code(org_with(claude_code={"live_models": True}), "linux")


def test_it_is_rendered_beside_the_token_s_helper_and_judged(managed: dict[str, Any]) -> None:
    assert managed["policyHelper"]["path"] == "/opt/llmgw/bin/llmgw-policy"
    (check,) = [check for check in judge(managed) if check.name == "policy helper"]
    assert check.state is State.OK


def test_it_is_not_rendered_unless_wanted_nor_for_windows(org_with: Callable[..., Organization]) -> None:
    assert "policyHelper" not in policy.claude_code(org_with(), "linux")
    assert "policyHelper" not in policy.claude_code(org_with(claude_code={"live_models": True}), "windows")


@pytest.mark.skipif(not namespace.available(), reason="needs mount namespaces (root, or user namespaces)")
class TestCommand:
    """As Claude Code runs it, on a machine whose /etc is the test's."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        folder = tmp_path / "h"
        (folder / "run").mkdir(parents=True)
        for each in (folder, folder / "run"):
            each.chmod(0o700)
        return folder

    @staticmethod
    def knows(home: Path, models: tuple[str, ...] = SONNET, age: float = 0) -> None:
        live.Known("ada@example.com", models, time.time() - age).keep(home / live.CACHE)

    @staticmethod
    def said(home: Path, content: bytes | None, **environment: str) -> Any:
        """What it prints for this drop-in; it has to end well."""
        overlay = home.parent / "etc"
        overlay.mkdir(exist_ok=True)
        if content is not None:
            namespace.write(overlay, {DROP_IN: content})
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), "LLMGW_HOME": str(home)} | environment
        done = run(namespace.enter(overlay, [installed("llmgw-policy")]), env=env, folder=home, seconds=60)
        assert (done.exit_code, done.stderr) == (0, "")
        return json.loads(done.stdout)

    def test_it_prints_the_whole_policy_for_the_models_that_are_known(
        self, home: Path, managed: dict[str, Any]
    ) -> None:
        self.knows(home)
        printed = self.said(home, json.dumps(managed).encode())["managedSettings"]
        assert printed == managed | {"availableModels": ["sonnet"], "enforceAvailableModels": True}

    def test_what_is_altered_by_its_user_opens_nothing(self, home: Path, managed: dict[str, Any]) -> None:
        document = {
            "account": "x",
            "models": [*ALL, "sonnet"],
            "at": time.time(),
            "env": {"HTTPS_PROXY": "http://evil"},
        }
        (home / live.CACHE).write_text(json.dumps(document), encoding="utf-8")
        assert self.said(home, json.dumps(managed).encode()) == {}, "the files say it all"

    @pytest.mark.parametrize("content", [None, b"{}", b'{"env": {'], ids=["nothing", "empty", "half"])
    def test_without_a_policy_it_adds_none(self, home: Path, content: bytes | None) -> None:
        self.knows(home)
        assert self.said(home, content) == {}

    def test_nobody_knows_any_models(self, home: Path, managed: dict[str, Any]) -> None:
        assert self.said(home, json.dumps(managed).encode()) == {}

    def test_what_is_known_is_too_old(self, home: Path, managed: dict[str, Any]) -> None:
        self.knows(home, age=live.CACHE_SECONDS + 60)
        assert self.said(home, json.dumps(managed).encode()) == {}

    @pytest.mark.parametrize("profile", ["", "no name"])
    def test_a_home_that_is_none(self, home: Path, managed: dict[str, Any], profile: str) -> None:
        wrong = {"LLMGW_PROFILE": profile} if profile else {"LLMGW_HOME": "relative"}
        assert self.said(home, json.dumps(managed).encode(), **wrong) == {}

    def test_an_agent_that_does_not_answer_is_not_waited_for(self, home: Path, managed: dict[str, Any]) -> None:
        self.knows(home)
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(home / "run" / "agent.sock"))
            silent.listen()
            printed = self.said(home, json.dumps(managed).encode())
        assert printed["managedSettings"]["availableModels"] == ["sonnet"]
