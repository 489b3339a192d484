"""Fixtures of the laboratory: a test folder imports those it uses in its conftest (see the one here).

What costs a start and keeps no state between tests lives for the session; what a test changes is its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import glewlwyd as glewlwyd_server
from tests.lab import node
from tests.lab.canaille import Canaille
from tests.lab.glewlwyd import Glewlwyd
from tests.lab.ministack import Ministack
from tests.lab.oidc_provider import OidcProvider
from tests.lab.postgres import Postgres
from tests.lab.recorder import Recorder
from tests.lab.scripted import ScriptedBedrock
from tests.lab.system import System
from tests.lab.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def canaille(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaille]:
    """A real identity server with passwords."""
    with Canaille(tmp_path_factory.mktemp("canaille")) as server:
        yield server


@pytest.fixture(scope="session")
def glewlwyd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glewlwyd]:
    """A third OpenID provider, where Debian's package is installed."""
    if not glewlwyd_server.available():
        pytest.skip(glewlwyd_server.NEEDS)
    with Glewlwyd(tmp_path_factory.mktemp("glewlwyd")) as server:
        yield server


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ministack]:
    """An AWS emulator that verifies signatures and policies."""
    with Ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@pytest.fixture(scope="session")
def oidc_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    """A certified OpenID provider; skipped by name where there is no Node."""
    if not node.available():
        pytest.skip("needs Node and npm")
    with OidcProvider(tmp_path_factory.mktemp("oidc-provider")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; each test makes a database of its own in it."""
    with Postgres() as server:
        yield server


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey to flush, kill, pause and restart: it starts in a few hundredths of a second."""
    with Valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def recorder(ministack: Ministack) -> Iterator[Recorder]:
    """A recording proxy in front of the emulator."""
    with Recorder(ministack.endpoint, ministack.key, region=ministack.region) as proxy:
        yield proxy


@pytest.fixture
def scripted() -> Iterator[ScriptedBedrock]:
    """A cloud that says what the test wants."""
    with ScriptedBedrock() as cloud:
        yield cloud


@pytest.fixture
def system(tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock) -> Iterator[System]:
    """Gateway and agent before the scripted cloud, with Ada signed in."""
    with System(tmp_path, provider=canaille, cloud=scripted) as whole:
        whole.sign_in()
        yield whole
