from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import service
from llmgw_agent.errors import ConfigurationError
from llmgw_packaging import agent, deb, linux, organization
from llmgw_packaging.scripts import script
from llmgw_packaging.tree import Tree
from tests.lab.process import run
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from llmgw_packaging.agent import Agent
    from llmgw_packaging.organization import Settings
    from llmgw_packaging.release import Release
    from llmgw_packaging.wheels import Target

FOLDER = REPOSITORY / "packaging" / "linux"
SCRIPTS = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in (*(FOLDER / "deb").iterdir(), *(FOLDER / "rpm").iterdir())
    if path.suffix != ".triggers"
)


def members(content: bytes) -> dict[str, bytes]:
    """The parts of an ar archive (ar(5)), read by another hand than the one that wrote it."""
    found, at = {}, 8
    assert content[:8] == b"!<arch>\n"
    while at < len(content):
        header = content[at : at + 60]
        assert header[58:] == b"`\n"
        size = int(header[48:58])
        found[header[:16].decode().strip()] = content[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def opened(content: bytes, part: str) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(members(content)[part]))


def content_of(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def test_built_twice_it_is_the_same(
    agent_deb: bytes, target: Target, architecture: str, store: Path, release: Release
) -> None:
    again = deb.build(linux.agent_deb(agent.build(target, store, release), target, architecture))
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(agent_deb).hexdigest()


def test_everything_belongs_to_root_and_nobody_else_writes_it(agent_deb: bytes, release: Release) -> None:
    with opened(agent_deb, "data.tar.xz") as data:
        for each in data:
            assert (each.uid, each.gid, each.mtime) == (0, 0, release.epoch), each.name
            assert each.issym() or not each.mode & 0o7022, each.name


def test_checksums_are_those_of_the_files(agent_deb: bytes) -> None:
    with opened(agent_deb, "control.tar.gz") as control, opened(agent_deb, "data.tar.xz") as data:
        lines = content_of(control, "./md5sums").decode().splitlines()
        stated = {line[34:]: line[:32] for line in lines}
        files = [each.name for each in data if each.isfile()]
        found = {name.removeprefix("./"): hashlib.md5(content_of(data, name)).hexdigest() for name in files}  # noqa: S324 -- dpkg's format
    assert stated == found


def test_two_parts_that_want_one_path_are_refused() -> None:
    tree = Tree()
    tree.put("opt/a", b"")
    with pytest.raises(ValueError, match="/opt/a would be installed twice"):
        tree.link("/opt/a", "b")


@pytest.fixture
def unpacked(built: Agent, tmp_path: Path) -> Path:
    """The package's files at another place than /, with this interpreter instead of the distribution's."""
    built.tree.stage(tmp_path)
    home = tmp_path / "opt" / "llmgw"
    python = Path(sys.base_prefix, "bin", "python3")
    (home / "bin" / "python3").unlink()
    (home / "bin" / "python3").symlink_to(python)
    (home / "pyvenv.cfg").write_text(f"home = {python.parent}\n", encoding="utf-8")
    return home


def test_the_package_has_all_that_the_agent_needs(unpacked: Path, tmp_path: Path) -> None:
    for module in ("llmgw_agent.daemon", "llmgw_agent.session.entra", "llmgw_mdm.render", "keyring", "secretstorage"):
        check = f"import sys, {module}; assert all('/opt/llmgw' in p or {sys.base_prefix!r} in p for p in sys.path)"
        done = run([unpacked / "bin" / "python3", "-I", "-c", check], env={}, folder=tmp_path, seconds=30)
        assert (done.exit_code, done.stderr) == (0, "")
    done = run(
        [unpacked / "bin" / "python3", "-I", unpacked / "bin" / "llmgw", "--version"],
        env={},
        folder=tmp_path,
        seconds=30,
    )
    assert done.stdout == "llmgw, version 0.1.0\n"


def test_the_token_command_starts_an_agent_of_the_package(unpacked: Path, tmp_path: Path) -> None:
    # Nobody has said which gateway: that it says so means that the package's own interpreter ran the slow way.
    env = {"HOME": str(tmp_path), "LLMGW_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    done = run([unpacked / "bin" / "llmgw-token"], env=env, folder=tmp_path, seconds=30)
    assert done.exit_code == 8
    assert done.stderr.startswith("llmgw: no gateway is set")


def test_units_are_those_of_the_service_command_for_every_user() -> None:
    found = agent.units()
    own = service.units(Path("/run/user/1/llmgw/agent.sock"), {}, python="/opt/llmgw/bin/python3")
    for name, text in own.items():
        expected = text.replace("/run/user/1", "%t").replace(service.MARK, agent.MARK)
        assert found[name] == expected.replace('"', "")


def test_an_organisation_s_package_goes_before_the_agent(settings: Settings) -> None:
    package = linux.organization_deb(settings)
    assert package.name == "llmgw-org-example-corp"
    assert package.relations["Depends"] == "llmgw"
    paths = {path for path, _ in package.tree.entries()}
    assert {"etc/claude-code/managed-settings.d/50-llmgw.json", "etc/llmgw/managed.toml"} <= paths
    # As conffiles they would outlive the package, and lead Claude Code to a helper that is gone.
    assert package.conffiles == ()


def test_a_changed_file_is_an_upgrade(tmp_path: Path, release: Release) -> None:
    org = tmp_path / "org.toml"
    shutil.copy(REPOSITORY / "mdm" / "org.example.toml", org)
    versions = []
    for changed in (release.epoch - 10, release.epoch, release.epoch + 10):
        os.utime(org, (changed, changed))
        versions.append(organization.build(org, release).release.version)
    assert versions == ["20231114.221320", "20231114.221320", "20231114.221330"]


def test_an_organisation_with_another_helper_gets_no_package(tmp_path: Path, release: Release) -> None:
    text = (REPOSITORY / "mdm" / "org.example.toml").read_text(encoding="utf-8")
    other = tmp_path / "org.toml"
    other.write_text(f'{text}\n[rollout.helper]\nlinux = "/usr/local/bin/llmgw-token"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="does not use the helper of the package"):
        organization.build(other, release)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_no_faults(name: str, tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(script(name), encoding="utf-8")
    done = run(["shellcheck", "--shell=sh", path], env={"PATH": "/usr/bin:/bin"}, folder=tmp_path, seconds=30)
    assert (done.exit_code, done.stdout) == (0, "")


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
def test_dpkg_reads_it(agent_deb: bytes, tmp_path: Path) -> None:
    path = tmp_path / "llmgw.deb"
    path.write_bytes(agent_deb)
    done = run(
        ["dpkg-deb", "--extract", path, tmp_path / "root"], env={"PATH": "/usr/bin:/bin"}, folder=tmp_path, seconds=60
    )
    assert (done.exit_code, done.stderr) == (0, "")
    with opened(agent_deb, "data.tar.xz") as data:
        expected = {each.name.removeprefix("./") for each in data if not each.isdir()}
    root = tmp_path / "root"
    assert {
        path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()
    } == expected
