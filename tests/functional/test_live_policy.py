"""The live policy under the real `claude`: what a person may use, from the gateway, and the whole pin around it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_mdm import live
from tests.functional.test_hijacks import PROMPT, Scene
from tests.functional.test_managed import Laptop, rendered
from tests.lab import certificates, namespace, node
from tests.lab.agent import installed
from tests.lab.process import POLL_SECONDS
from tests.lab.system import System
from tests.lab.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.scripted import ScriptedBedrock

pytestmark = [
    pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`"),
    pytest.mark.skipif(not namespace.available(), reason="needs mount namespaces (root, or user namespaces)"),
]
SONNET = "claude-sonnet-5-5"


def helper(folder: Path, home: Path) -> str:
    """`llmgw-policy` for an agent of the laboratory: the client's own environment names no home."""
    path = folder / "llmgw-policy"
    path.write_text(f"#!/bin/sh\nLLMGW_HOME={home} exec {installed('llmgw-policy')}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def with_helper(settings: dict[str, Any], path: str) -> dict[str, Any]:
    return settings | {"policyHelper": {"path": path, "timeoutMs": 60_000, "refreshIntervalMs": 300_000}}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    ours, theirs = certificates.issue(tmp_path / "ours"), certificates.issue(tmp_path / "theirs")
    with Witness(ours) as gateway, Witness(theirs, unix_path=str(tmp_path / "s")) as stranger:
        yield Scene(tmp_path, gateway, stranger, ours)


def test_what_it_prints_is_no_weaker_than_the_file(scene: Scene) -> None:
    home = scene.folder / "home"
    home.mkdir(mode=0o700)
    live.Known("ada@example.com", (SONNET,), time.time()).keep(home / live.CACHE)
    managed = with_helper(scene.managed("anthropic"), helper(scene.folder, home))
    claude = scene.laptop(managed, scene.hostile("anthropic"))
    claude.ask(PROMPT, model="haiku")
    assert scene.is_intact, (scene.gateway.heard, scene.stranger.heard)
    (heard,) = scene.gateway.heard_of(PROMPT)
    assert "sonnet" in json.loads(heard.body)["model"], "it was in force: no other model can be chosen"


def test_the_models_of_whoever_is_signed_in_are_offered(
    tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock
) -> None:
    with System(tmp_path, provider=canaille, cloud=scripted, models=(SONNET,)) as system:
        system.sign_in()
        token = tmp_path / "llmgw-token"
        token.write_text(f"#!/bin/sh\nexec {system.agent.token_command}\n", encoding="utf-8")
        token.chmod(0o755)
        laptop = Laptop(tmp_path)
        settings = json.loads(rendered(system.gateway.url, str(token), "anthropic")["linux/50-llmgw.json"])
        path = helper(tmp_path, system.agent.home)
        laptop.put(**{"50_llmgw": with_helper(settings, path)})
        deadline = time.monotonic() + 60
        while (printed := laptop.claude.run(path).stdout) == "{}\n":
            assert time.monotonic() < deadline, "the agent never learned which models there are"
            time.sleep(POLL_SECONDS)
        assert json.loads(printed)["managedSettings"]["availableModels"] == ["sonnet"]
        assert laptop.claude.ask("Say it.", model="haiku").text == scripted.default.text
        assert {call.model for call in scripted.calls if "haiku" in call.model} == set()
