"""The parts fit together: whoever signs in gets a token by which the gateway knows them, at either kind of provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.demo.account import me
from tests.lab import node
from tests.lab.oidc_provider import OidcProvider
from tests.lab.system import System

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.scripted import ScriptedBedrock


def test_a_person_signs_in_with_a_password(system: System) -> None:
    finished = system.agent.token()
    assert (finished.exit_code, finished.stderr) == (0, "")
    assert me(system.gateway, finished.stdout.strip()).email == "ada@example.com"


@pytest.mark.skipif(not node.available(), reason="needs Node and npm")
def test_a_person_signs_in_as_at_entra_id(tmp_path: Path, scripted: ScriptedBedrock) -> None:
    with (
        OidcProvider.like_entra(tmp_path / "entra") as entra,
        System(tmp_path, provider=entra, cloud=scripted) as whole,
    ):
        whole.sign_in("grace")
        token = whole.agent.token().stdout.strip()
        assert me(whole.gateway, token).name == "Grace Hopper"
