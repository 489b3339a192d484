"""Packages of this machine's architecture and Python, small enough to be built in every run."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging import agent, deb, linux, organization
from llmgw_packaging.release import Release
from llmgw_packaging.targets import LINUX

if TYPE_CHECKING:
    from collections.abc import Mapping

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


@pytest.fixture
def authority(tmp_path: Path) -> Mapping[str, Path]:
    """A certificate authority of this test's, and a key that it lets sign programs."""
    names = {name: tmp_path / name for name in ("ca.key", "ca.pem", "own.key", "own.csr", "own.pem", "ext")}
    names["ext"].write_text("extendedKeyUsage=codeSigning\n", encoding="utf-8")
    new: list[str | Path] = ["openssl", "req", "-newkey", "rsa:2048", "-nodes"]
    commands: tuple[list[str | Path], ...] = (
        [*new, "-x509", "-days", "2", "-subj", "/CN=Test CA", "-keyout", names["ca.key"], "-out", names["ca.pem"]],
        [*new, "-subj", "/CN=Corp", "-keyout", names["own.key"], "-out", names["own.csr"]],
        [
            *("openssl", "x509", "-req", "-days", "1", "-in", names["own.csr"], "-out", names["own.pem"]),
            *("-CA", names["ca.pem"], "-CAkey", names["ca.key"], "-extfile", names["ext"]),
        ],
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return names


@pytest.fixture
def signer(authority: Mapping[str, Path], tmp_path: Path) -> Path:
    """What a company would name as `--sign-windows`."""
    path = tmp_path / "sign"
    path.write_text(
        f"#!/bin/sh\nset -e\nosslsigncode sign -certs {authority['own.pem']} -key {authority['own.key']} -h sha256 "
        '-n llmgw -in "$1" -out "$1.signed" >/dev/null\nmv "$1.signed" "$1"\n',
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path
