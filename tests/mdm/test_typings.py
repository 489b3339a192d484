"""The vendor's own types of Claude Code's settings take what is rendered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_mdm import keys, pin, policy
from llmgw_mdm.presets import PRESETS
from tests.lab import node, typings
from tests.mdm.test_render import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_mdm.organization import Organization

pytestmark = [pytest.mark.long, pytest.mark.skipif(not node.available(), reason="needs Node and npm")]


def test_they_take_every_policy_and_no_wrong_one(org_with: Callable[..., Organization], tmp_path: Path) -> None:
    documents: dict[str, Any] = {}
    for dialect in pin.DIALECTS:
        claude = EVERYTHING["claude_code"] | {"dialect": dialect, "presets": list(PRESETS), "live_models": True}
        org = org_with(**EVERYTHING | {"claude_code": claude})
        documents |= {f"{dialect}_{platform}": policy.claude_code(org, platform) for platform in org.platforms}
    assert typings.complaints(documents, tmp_path) == ""
    wrong = {"listed": {"availableModels": "sonnet"}, "numbered": {"env": {"HTTPS_PROXY": 7}}}
    said = typings.complaints(wrong, tmp_path)
    assert {line for line in range(2, 4) if re.search(rf"settings\.ts\({line},", said)} == {2, 3}, said


def test_the_names_that_we_know_are_those_of_the_types(tmp_path: Path) -> None:
    assert typings.complaints({}, tmp_path) == ""
    text = (tmp_path / "sdk.d.ts").read_text(encoding="utf-8")
    body = text[text.index("export declare interface Settings {") :]
    body = body[: body.index("\n}")]
    found = set(re.findall(r"^ {4}(\$?\w+)\??:", body, re.MULTILINE))
    assert found, "the types have another shape now"
    assert found == keys.KNOWN
