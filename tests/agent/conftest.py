from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import token_stub
from llmgw_agent.outgoing import Outgoing, trust
from tests.agent.small_gateway import SmallGateway
from tests.lab.environment import clean_environment
from tests.lab.fixtures import oidc_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["oidc_provider"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A short LLMGW_HOME, so that the socket lies in it."""
    folder = tmp_path / "h"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def environ(tmp_path: Path, home: Path) -> dict[str, str]:
    return clean_environment(tmp_path, LLMGW_HOME=str(home))


@pytest.fixture
def socket_path(environ: dict[str, str]) -> Path:
    return Path(token_stub.socket_path(environ, os.getuid()))


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`llmgw-token` of this source tree, in an environment with the packages of the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "bin").mkdir()
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    (folder / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    shutil.copyfile(Path(sys.prefix) / "pyvenv.cfg", folder / "pyvenv.cfg")
    command = folder / "bin" / "llmgw-token"
    shutil.copyfile(token_stub.__file__, command)
    command.chmod(0o755)
    return command


@pytest.fixture
async def outgoing() -> AsyncIterator[Outgoing]:
    made = Outgoing(trust(None))
    yield made
    await made.close()


@pytest.fixture
async def gateway() -> AsyncIterator[SmallGateway]:
    async with SmallGateway() as running:
        yield running
