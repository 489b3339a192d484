"""The real `claude` before a cloud in which things go wrong: what may have been billed is not asked twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.bedrock import BODIES, HEADS, FaultyBedrock, Place, Script
from tests.functional import ledger
from tests.lab import node
from tests.lab.system import System

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.claude import Mode

pytestmark = pytest.mark.skipif(not node.available(), reason="needs Node and npm for the real `claude`")
MODES: list[Mode] = ["bedrock", "anthropic"]
NAMED = {fault.name: fault for fault in (*HEADS, *BODIES)}
ONCE = {"html_504": "answered with status 504", "bad_crc": "stream is corrupt", "model_timeout": "took too long"}


@pytest.mark.parametrize("mode", MODES)
def test_what_may_have_been_billed_is_asked_once_and_its_reason_is_shown(
    tmp_path: Path, canaille: Canaille, mode: Mode
) -> None:
    with FaultyBedrock() as cloud, System(tmp_path, provider=canaille, cloud=cloud) as system:
        system.sign_in()
        for asked, name in enumerate(ONCE, 1):
            cloud.always = Script(NAMED[name], Place.START)
            answered = system.claude(mode).ask("Say it.")
            assert answered.finished.exit_code == 1
            assert ONCE[name] in answered.text
            assert len(cloud.calls) == asked, name
        for row in ledger.settled(system.gateway.db, len(ONCE)):
            assert row.estimated
            assert row.cost > 0
