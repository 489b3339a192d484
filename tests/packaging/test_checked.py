"""What Debian's and RPM's own tools say of the packages, and what they do in a root that is not booted."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging import agent, deb, gateway, linux, rpm
from tests.lab import machine
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_packaging.agent import Agent
    from llmgw_packaging.organization import Settings
    from llmgw_packaging.release import Release
    from llmgw_packaging.wheels import Target

pytestmark = pytest.mark.long
needs_root = pytest.mark.skipif(not machine.available(), reason=machine.NEEDS)
needs_rpm = pytest.mark.skipif(not shutil.which("rpmbuild"), reason="needs rpmbuild")
HELPER = "/opt/llmgw/bin/llmgw-token"


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(tool), reason=f"needs {tool}")


@pytest.fixture(scope="module")
def served(target: Target, store: Path, release: Release) -> Agent:
    return gateway.build(target, store, release)


@pytest.fixture
def debs(
    built: Agent, settings: Settings, served: Agent, target: Target, architecture: str, tmp_path: Path
) -> list[Path]:
    found = []
    for package in (
        linux.agent_deb(built, target, architecture),
        linux.organization_deb(settings),
        gateway.debian(served, target, architecture),
    ):
        path = tmp_path / package.file_name
        path.write_bytes(deb.build(package))
        found.append(path)
    return found


@pytest.fixture
def rpms(built: Agent, settings: Settings, target: Target, architecture: str, tmp_path: Path) -> list[Path]:
    found = []
    for package in (linux.agent_rpm(built, target, architecture), linux.organization_rpm(settings)):
        path = tmp_path / package.file_name
        path.write_bytes(rpm.build(package))
        found.append(path)
    return found


@pytest.fixture
def gateway_rpm(served: Agent, target: Target, architecture: str, tmp_path: Path) -> Path:
    package = gateway.redhat(served, target, architecture)
    path = tmp_path / package.file_name
    path.write_bytes(rpm.build(package))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = machine.copy(tmp_path / "root")
    yield folder
    shutil.rmtree(folder)


def said(*words: str | Path, code: int = 0) -> str:
    """What a command printed, which has to end with this exit code."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout + done.stderr


@needs("lintian")
def test_lintian_finds_nothing(debs: list[Path]) -> None:
    told = said("lintian", "--allow-root", "--fail-on=error,warning,info", "--tag-display-limit=0", *debs)
    assert [line for line in told.splitlines() if not line.startswith("running with root")] == []


@needs_rpm
@needs("rpmlint")
def test_rpmlint_finds_nothing(rpms: list[Path], gateway_rpm: Path) -> None:
    config = REPOSITORY / "packaging" / "linux" / "rpmlint.toml"
    assert " 0 errors, 0 warnings" in said("rpmlint", "--strict", "--config", config, *rpms, gateway_rpm)


@needs_rpm
def test_an_rpm_built_twice_is_the_same(
    target: Target, architecture: str, store: Path, release: Release, rpms: list[Path], gateway_rpm: Path
) -> None:
    again = rpm.build(linux.agent_rpm(agent.build(target, store, release), target, architecture))
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(rpms[0].read_bytes()).hexdigest()
    again = rpm.build(gateway.redhat(gateway.build(target, store, release), target, architecture))
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(gateway_rpm.read_bytes()).hexdigest()


def left(root: Path) -> list[str]:
    """What has our name in a root, outside of books and of what users have."""
    found = []
    for folder in ("etc", "opt", "usr", "var/lib/systemd"):
        for path in (root / folder).rglob("*"):
            name = path.relative_to(root).as_posix()
            if "llmgw" in name or "claude-code" in name:
                found.append(name)
    return found


@needs_root
@needs_rpm
def test_rpm_install_upgrade_erase(
    root: Path, rpms: list[Path], target: Target, architecture: str, store: Path, release: Release
) -> None:
    newer = rpms[0].with_name("newer.rpm")
    next_release = replace(release, version="1.2.4")
    newer.write_bytes(rpm.build(linux.agent_rpm(agent.build(target, store, next_release), target, architecture)))
    tool: list[str | Path] = ["rpm", "--root", root]
    said(*tool, "--initdb")
    # This root's packages are Debian's, so nothing that rpm could find there is required.
    said(*tool, "--install", "--nodeps", *rpms)
    assert (root / "etc/systemd/user/sockets.target.wants/llmgw.socket").is_symlink()
    assert said("chroot", root, "llmgw", "--version") == "llmgw, version 0.1.0\n"
    assert os.listdir(root / "opt/llmgw/lib/any/llmgw_agent/__pycache__")  # noqa: PTH208 -- one is enough
    said(*tool, "--upgrade", "--nodeps", newer)
    assert "1.2.4" in said(*tool, "--query", "llmgw")
    assert (root / "etc/systemd/user/sockets.target.wants/llmgw.socket").is_symlink()
    assert said("chroot", root, "llmgw", "--version") == "llmgw, version 0.1.0\n"
    said(*tool, "--verify", "--nodeps", "llmgw")
    assert "is needed by" in said(*tool, "--erase", "llmgw", code=1)
    said(*tool, "--erase", "llmgw", "llmgw-org-example-corp")
    assert left(root) == []


@needs_root
@needs_rpm
def test_a_gateway_s_rpm_keeps_what_an_administrator_wrote(
    root: Path, gateway_rpm: Path, target: Target, architecture: str, store: Path, release: Release
) -> None:
    newer = gateway_rpm.with_name("newer.rpm")
    built = gateway.build(target, store, replace(release, version="1.2.4"))
    newer.write_bytes(rpm.build(gateway.redhat(built, target, architecture)))
    tool: list[str | Path] = ["rpm", "--root", root]
    said(*tool, "--initdb")
    said(*tool, "--install", "--nodeps", gateway_rpm)
    etc = root / "etc" / "llmgw-gateway"
    secret = etc / "cluster.secret"
    made = secret.read_bytes()
    assert secret.stat().st_mode & 0o077 == 0
    assert secret.stat().st_uid == int(said("chroot", root, "id", "-u", "llmgw-gateway"))
    assert "version 1.2.3" in said("chroot", root, "llmgw-gateway", "--version")
    (etc / "gateway.toml").write_text("# ours\n", encoding="utf-8")
    said(*tool, "--upgrade", "--nodeps", newer)
    assert "version 1.2.4" in said("chroot", root, "llmgw-gateway", "--version")
    assert (etc / "gateway.toml").read_text(encoding="utf-8") == "# ours\n"
    assert secret.read_bytes() == made
    said("systemd-analyze", "--man=no", "verify", f"--root={root}", "llmgw-gateway.service")
    assert "cluster.secret stays" in said(*tool, "--erase", "llmgw-gateway")
    assert sorted(left(root)) == [
        "etc/llmgw-gateway",
        "etc/llmgw-gateway/cluster.secret",
        "etc/llmgw-gateway/gateway.toml.rpmsave",
    ]


@needs_root
@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_an_agent_that_claude_code_needs_does_not_go(root: Path, request: pytest.FixtureRequest, kind: str) -> None:
    if kind == "rpm" and not shutil.which("rpmbuild"):
        pytest.skip("needs rpmbuild")
    install: list[str | Path]
    remove: list[str | Path]
    package: Path = request.getfixturevalue(f"{kind}s")[0]
    if kind == "deb":
        shutil.copy(package, root / "srv" / "llmgw.deb")
        install, remove = (
            ["chroot", root, "dpkg", "-i", "/srv/llmgw.deb"],
            ["chroot", root, "dpkg", "--purge", "llmgw"],
        )
    else:
        said("rpm", "--root", root, "--initdb")
        install = ["rpm", "--root", root, "--install", "--nodeps", package]
        remove = ["rpm", "--root", root, "--erase", "llmgw"]
    said(*install)
    folder = root / "etc" / "claude-code"
    (folder / "managed-settings.d").mkdir(parents=True)
    somebodys = folder / "managed-settings.json"
    somebodys.write_text(f'{{"apiKeyHelper": "{HELPER}"}}', encoding="utf-8")
    ours = folder / "managed-settings.d" / "50-llmgw.json"
    ours.write_text(f'{{"apiKeyHelper": "{HELPER}"}}', encoding="utf-8")

    assert "/etc/claude-code/managed-settings.json makes Claude Code run" in said(*remove, code=1)
    assert said("chroot", root, "llmgw", "--version") == "llmgw, version 0.1.0\n"

    somebodys.write_text("{}", encoding="utf-8")
    said(*remove)
    assert not ours.exists()
    assert somebodys.exists()
    somebodys.unlink()
    folder.rmdir()
    assert left(root) == []
