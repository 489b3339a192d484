"""Packages of this machine's architecture and Python, small enough to be built in every run."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging import agent, deb, linux, organization
from llmgw_packaging.release import Release
from llmgw_packaging.targets import LINUX

if TYPE_CHECKING:
    from llmgw_packaging.agent import Agent
    from llmgw_packaging.organization import Settings
    from llmgw_packaging.wheels import Target

REPOSITORY = Path(__file__).parents[2]
RELEASE = Release(epoch=1_700_000_000, version="1.2.3", maintainer="Example Corp IT <llmgw@llmgw.dev>")


@pytest.fixture(scope="session")
def release() -> Release:
    return RELEASE


@pytest.fixture(scope="session")
def architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


@pytest.fixture(scope="session")
def target(architecture: str) -> Target:
    """This machine, with its Python alone."""
    return replace(LINUX[architecture], pythons=(f"{sys.version_info.major}.{sys.version_info.minor}",))


@pytest.fixture(scope="session")
def store() -> Path:
    return REPOSITORY / ".lab" / "wheels"


@pytest.fixture(scope="session")
def built(target: Target, store: Path) -> Agent:
    return agent.build(target, store, RELEASE)


@pytest.fixture(scope="session")
def agent_deb(built: Agent, target: Target, architecture: str) -> bytes:
    return deb.build(linux.agent_deb(built, target, architecture))


@pytest.fixture(scope="session")
def settings() -> Settings:
    return organization.build(REPOSITORY / "mdm" / "org.example.toml", RELEASE)
