"""The pinned `claude` runs here at all, and finds the scripted cloud believable: signed, streamed, with a tool loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import node
from tests.lab.claude import Claude
from tests.lab.ministack import REGION
from tests.lab.scripted import ScriptedBedrock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not node.available(), reason="needs Node and npm")


def test_claude_completes_a_tool_loop_against_the_scripted_cloud(tmp_path: Path) -> None:
    with ScriptedBedrock() as bedrock:
        bedrock.script_tool_loop("Bash", {"command": "echo lab-$((40+2))", "description": "say"}, "It said lab-42.")
        claude = Claude(
            tmp_path,
            CLAUDE_CODE_USE_BEDROCK="1",
            ANTHROPIC_BEDROCK_BASE_URL=bedrock.endpoint,
            AWS_REGION=REGION,
            AWS_EC2_METADATA_DISABLED="true",
            **bedrock.key.environment(),
        )
        answered = claude.ask("what does echo say?", tools=("Bash(echo:*)",))
    assert answered.finished.exit_code == 0, answered.finished
    assert answered.text == "It said lab-42."
    turns = [call for call in bedrock.calls if call.streaming]
    assert len(turns) == 2
    assert b"lab-42" in turns[1].request.body
    assert bedrock.refused == []
