"""Several sources of managed settings: what counts, and what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmgw_mdm import effect, words
from llmgw_mdm.places import Place

if TYPE_CHECKING:
    from llmgw_mdm.effect import Policy

PROFILE = Place(2, "profile", Path("profile.plist"))
DROP_IN = Place(1, "drop-in", Path("50-llmgw.json"))
BASE = Place(1, "file", Path("managed-settings.json"))


def of(*found: tuple[Place, dict[str, Any]]) -> Policy:
    return effect.of(found)


def passed_over(policy: Policy) -> list[tuple[str, str]]:
    return [(each.key, each.path.name) for each in policy.passed_over]


def test_files_are_laid_over_each_other() -> None:
    policy = of(
        (DROP_IN, {"model": "opus", "env": {"A": "1"}, "permissions": {"deny": ["x"]}}),
        (BASE, {"model": "haiku", "env": {"A": "2", "B": "2"}, "permissions": {"deny": ["y"]}, "tui": "default"}),
    )
    assert policy.settings["model"] == "opus"
    assert policy.settings["env"] == {"A": "1", "B": "2"}
    assert sorted(policy.settings["permissions"]["deny"]) == ["x", "y"]
    assert policy.sources["tui"] == policy.sources["env.B"] == BASE.path
    assert passed_over(policy) == [("model", BASE.path.name), ("env.A", BASE.path.name)]


def test_a_profile_silences_files_but_for_their_variables() -> None:
    policy = of(
        (PROFILE, {"model": "opus", "env": {"A": "1"}}),
        (DROP_IN, {"apiKeyHelper": "/opt/llmgw/bin/llmgw-token", "env": {"A": "1", "B": "2"}}),
    )
    assert policy.settings == {"model": "opus", "env": {"A": "1", "B": "2"}}
    assert passed_over(policy) == [("apiKeyHelper", DROP_IN.path.name)]
    assert "profile.plist is a stronger source" in policy.passed_over[0].why


def test_a_profile_that_wants_it_is_united_with_files_but_for_helpers() -> None:
    policy = of(
        (PROFILE, {"managedSourcesBehavior": "merge", "model": "opus"}),
        (DROP_IN, {"apiKeyHelper": "/opt/x", "model": "haiku", "tui": "default"}),
    )
    assert policy.settings == {"managedSourcesBehavior": "merge", "model": "opus", "tui": "default"}
    assert passed_over(policy) == [("apiKeyHelper", DROP_IN.path.name), ("model", DROP_IN.path.name)]


def test_an_empty_source_silences_nobody() -> None:
    assert of((PROFILE, {}), (BASE, {"model": "opus"})).settings == {"model": "opus"}
    assert of().settings == {}


def test_no_credential_is_shown() -> None:
    env = {
        "ANTHROPIC_AUTH_TOKEN": "sk-left-over",
        "ANTHROPIC_API_KEY": "",
        "CLAUDE_CODE_API_KEY_HELPER_TTL_MS": "240000",
    }
    policy = of((BASE, {"env": env}))
    shown = words.policy(policy) + json.dumps(words.policy_json(policy))
    assert "sk-left-over" not in shown
    assert "env.ANTHROPIC_AUTH_TOKEN = (set, not shown)" in shown
    assert 'env.ANTHROPIC_API_KEY = ""' in shown
    assert "240000" in shown
