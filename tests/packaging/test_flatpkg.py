"""The installer for Macs, read by others than its writer. It was never run on a Mac: docs say so."""

from __future__ import annotations

import hashlib
import io
import os
import plistlib
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging import bom, flatpkg, macos, runtime
from llmgw_packaging.tree import File, Tree
from tests.lab.process import run
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_packaging.release import Release

FOLDER = REPOSITORY / "packaging" / "macos"
SCRIPTS = ("preinstall", "postinstall", "uninstall.sh")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def needs(*tools: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not all(map(shutil.which, tools)), reason=f"needs {', '.join(tools)}")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for python-build-standalone's archive: its layout, and no Python."""
    path = tmp_path_factory.mktemp("runtime") / "cpython.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        for name, content, mode in (
            ("python/bin/python3.13", b"#!/bin/sh\nexit 0\n", 0o755),
            ("python/lib/python3.13/os.py", b"", 0o644),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            made.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("python/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "python3.13"
        made.addfile(link)
    return path


@pytest.fixture(scope="module")
def python(archive: Path) -> runtime.Runtime:
    return runtime.read(archive, hashlib.sha256(archive.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def package(python: runtime.Runtime, store: Path, release: Release) -> flatpkg.Package:
    return macos.build(python, store, release)[0]


@pytest.fixture(scope="module")
def built(package: flatpkg.Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pkg") / package.file_name
    path.write_bytes(flatpkg.build(package))
    return path


@pytest.fixture(scope="module")
def opened(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What libarchive makes of it."""
    folder = tmp_path_factory.mktemp("opened")
    subprocess.run(["bsdtar", "-xf", built, "-C", folder], check=True)
    return folder


def test_built_twice_it_is_the_same(python: runtime.Runtime, store: Path, release: Release, built: Path) -> None:
    again = flatpkg.build(macos.build(python, store, release)[0])
    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(built.read_bytes()).hexdigest()


@needs("bsdtar", "cpio")
def test_libarchive_and_cpio_find_what_is_in_it(opened: Path, package: flatpkg.Package, tmp_path: Path) -> None:
    assert sorted(path.relative_to(opened).as_posix() for path in opened.rglob("*") if path.is_file()) == [
        "Distribution",
        *(f"component.pkg/{name}" for name in ("Bom", "PackageInfo", "Payload", "Scripts")),
    ]
    payload = subprocess.run(["gzip", "-dc", opened / "component.pkg/Payload"], check=True, capture_output=True).stdout
    subprocess.run(["cpio", "--extract", "--quiet", "--make-directories"], input=payload, cwd=tmp_path, check=True)
    for path, entry in package.tree.entries():
        found = tmp_path / path
        if isinstance(entry, File):
            assert found.read_bytes() == entry.content
            assert found.stat().st_mode & 0o7777 == entry.mode
        else:
            assert os.readlink(found) == entry.target  # noqa: PTH115 -- as it stands there, not a Path of it
    info = ET.parse(opened / "component.pkg/PackageInfo").getroot()  # noqa: S314 -- ours
    payload_about = info.find("payload")
    assert payload_about is not None
    assert int(payload_about.attrib["numberOfFiles"]) == len(list(tmp_path.rglob("*"))) + 1
    reference = ET.parse(opened / "Distribution").getroot().findall("pkg-ref")[-1]  # noqa: S314 -- ours
    assert (reference.text, reference.attrib["version"]) == ("#component.pkg", "1.2.3")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000])
def test_a_checksum_is_that_of_cksum(size: int, tmp_path: Path) -> None:
    content = os.urandom(size)
    (tmp_path / "x").write_bytes(content)
    said = subprocess.run(["cksum", "x"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert bom.checksum(content) == int(said.split()[0])


@pytest.mark.long
@needs("bsdtar")
def test_apple_s_bill_is_read_by_another_parser(opened: Path, package: flatpkg.Package) -> None:
    reader = pytest.importorskip("pyapplebom", reason="needs pip install pyapplebom==0.1.2")
    document = reader.parse_bom_file(str(opened / "component.pkg" / "Bom"))
    assert document["parse_errors"] is None
    found = {each["path"].removeprefix("./"): each for each in document["paths"]}
    assert len(document["paths"]) == len(found)
    assert set(found) - {"."} == {*package.tree.folders(), *(path for path, _ in package.tree.entries())}
    for path, entry in package.tree.entries():
        if isinstance(entry, File):
            about = found[path]["size"], found[path]["file_mode"] & 0o7777, found[path]["crc32"]
            assert about == (len(entry.content), entry.mode, bom.checksum(entry.content)), path
        else:
            assert found[path]["link_name"] == entry.target


def test_a_bill_of_many_folders_keeps_parents_before_children() -> None:
    tree = Tree()
    for number in range(600):
        tree.put(f"a/{number % 7}/b{number}", b"")
    content = bom.build(tree, 0)
    assert content.startswith(b"BOMStore")
    order = [path for path, _ in bom._in_order(tree)]
    assert len(order) == len(set(order)) == 1 + 1 + 7 + 600
    assert all(order.index(path.rpartition("/")[0]) < at for at, path in enumerate(order) if "/" in path)


@needs("shellcheck")
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_no_faults(name: str, tmp_path: Path) -> None:
    done = run(["shellcheck", "--shell=sh", FOLDER / name], env={"PATH": PATH}, folder=tmp_path, seconds=30)
    assert (done.exit_code, done.stdout) == (0, "")


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """Commands of macOS that write down how they were called. The user at the screen has the number in `console`."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    (tmp_path / "console").write_text("501", encoding="utf-8")
    for name in ("launchctl", "pkgutil"):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n', encoding="utf-8")
    (folder / "id").write_text("#!/bin/sh\necho 0\n", encoding="utf-8")
    (folder / "stat").write_text(f"#!/bin/sh\ncat {tmp_path}/console\n", encoding="utf-8")
    # What would touch this machine's own /opt is only written down.
    (folder / "rm").write_text(f'#!/bin/sh\necho "rm $*" >> {tmp_path}/calls\n', encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
@pytest.mark.parametrize(("script", "call"), [("preinstall", "bootout"), ("postinstall", "bootstrap")])
def test_the_agent_of_whoever_is_at_the_screen_changes_over(fakes: Path, shell: str, script: str, call: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    env = {"PATH": f"{fakes}/fakes:{PATH}"}
    assert run([shell, FOLDER / script], env=env, folder=fakes, seconds=30).exit_code == 0
    calls = (fakes / "calls").read_text(encoding="utf-8")
    assert f"launchctl {call} gui/501" in calls
    # At the sign-in window nobody is there, and the installation is no failure.
    (fakes / "calls").unlink()
    (fakes / "console").write_text("0", encoding="utf-8")
    assert run([shell, FOLDER / script], env=env, folder=fakes, seconds=30).exit_code == 0
    assert "launchctl" not in ((fakes / "calls").read_text(encoding="utf-8") if (fakes / "calls").exists() else "")


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
def test_uninstalling_asks_for_the_settings_first(fakes: Path, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    folder = fakes / "ClaudeCode"
    folder.mkdir()
    somebodys = folder / "managed-settings.json"
    somebodys.write_text('{"apiKeyHelper": "/opt/llmgw/bin/llmgw-token"}', encoding="utf-8")
    env = {"PATH": f"{fakes}/fakes:{PATH}", "LLMGW_CLAUDE_FOLDER": str(folder)}
    refused = run([shell, FOLDER / "uninstall.sh"], env=env, folder=fakes, seconds=30)
    assert refused.exit_code == 1
    assert f"Take this away first, then repeat: {somebodys}" in refused.stderr
    assert "rm -rf" not in (fakes / "calls").read_text(encoding="utf-8")
    somebodys.write_text("{}", encoding="utf-8")
    assert run([shell, FOLDER / "uninstall.sh"], env=env, folder=fakes, seconds=30).exit_code == 0
    calls = (fakes / "calls").read_text(encoding="utf-8")
    for call in ("launchctl bootout gui/501/com.llmgw.agent", "rm -rf /opt/llmgw", "pkgutil --forget com.llmgw.agent"):
        assert call in calls


def test_launchd_starts_the_agent_where_a_company_said_which_gateway() -> None:
    document = plistlib.loads(macos.agent_plist())
    assert document["ProgramArguments"][0] == "/opt/llmgw/bin/python3"
    assert document["KeepAlive"] == {"PathState": {"/Library/Managed Preferences/com.llmgw.agent.plist": True}}
    assert document["Label"] == "com.llmgw.agent"
