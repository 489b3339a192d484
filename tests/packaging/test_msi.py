"""The installers for Windows, read by others than their writer. What they do there: test_windows.py."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from llmgw_agent.errors import ConfigurationError
from llmgw_packaging import cabinet, installation, intune, launcher, runtime, signing, windows, windows_settings
from llmgw_packaging.rpm import ToolError
from llmgw_packaging.tree import File, Tree
from tests.lab.process import run
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llmgw_packaging.release import Release
    from llmgw_packaging.wheels import Wheel

GOLDEN = REPOSITORY / "tests" / "golden" / "windows"
ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
STAND_IN = ("python.exe", "pythonw.exe", "python313.dll", "python313.zip")
ORGANIZATION = """\
[organization]
name = "Exämple Corp"
identifier = "example.corp"
[gateway]
url = "https://llm.corp.example"
[gateway.ca_file]
windows = "C:\\\\Program Files\\\\Corp\\\\ca.pem"
[rollout]
platforms = ["windows"]
[agent]
sign_in_methods = ["browser", "paste"]
forward_port = 4100
[claude_code]
announcements = ["# [1] {2} é %PATH%"]
[claude_desktop]
"""


def needs(*tools: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not all(map(shutil.which, tools)), reason=f"needs {', '.join(tools)}")


pytestmark = needs("msibuild")


def rows(path: Path, table: str) -> list[dict[str, str]]:
    """A table as msitools reads it."""
    said = subprocess.run(["msiinfo", "export", path, table], check=True, capture_output=True).stdout.decode()
    head, _, _, *lines = said.replace("\x10", "\t").split("\r\n")
    names = head.split("\t")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines if line]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> runtime.Runtime:
    """A stand-in for Python: its names, and nothing that runs."""
    path = tmp_path_factory.mktemp("runtime") / "python.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in STAND_IN:
            archive.writestr(name, name)
    return runtime.read(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def whole(python: runtime.Runtime, store: Path, release: Release) -> tuple[installation.Product, tuple[Wheel, ...]]:
    return windows.agent(python, store, release, lambda _name, content: content)


def trimmed(product: installation.Product, kept: str) -> installation.Product:
    """The agent with those of its modules alone whose path begins so: a tenth of the bytes."""
    tree = Tree()
    for path, entry in product.tree.entries():
        if not path.startswith("llmgw/lib/") or path.startswith(f"llmgw/lib/{kept}"):
            tree.add(path, entry)
    tree.put("llmgw/lib/README", "")
    return replace(product, tree=tree)


@pytest.fixture(scope="module")
def product(whole: tuple[installation.Product, tuple[Wheel, ...]]) -> installation.Product:
    return trimmed(whole[0], "llmgw_")


@pytest.fixture(scope="module")
def content(product: installation.Product, python: runtime.Runtime) -> bytes:
    return windows.agent_msi(product, python)


@pytest.fixture(scope="module")
def built(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("msi") / "llmgw.msi"
    path.write_bytes(content)
    return path


def written(path: Path, epoch: int, text: str = ORGANIZATION) -> None:
    """The organisation's file, changed at that time."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, (epoch, epoch))


@pytest.fixture(scope="module")
def settings_msi(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("org")
    written(folder / "org.toml", release.epoch)
    found, org = windows_settings.product(folder / "org.toml", release)
    path = folder / found.file_name
    path.write_bytes(windows_settings.build(found, org))
    return path


def test_built_twice_it_is_the_same(product: installation.Product, python: runtime.Runtime, content: bytes) -> None:
    assert hashlib.sha256(windows.agent_msi(product, python)).digest() == hashlib.sha256(content).digest()


def test_every_build_has_codes_of_its_own_and_all_have_one_family(product: installation.Product) -> None:
    tree = Tree()
    tree.merge(product.tree)
    tree.put("llmgw/more", b"")
    others = [
        product,
        replace(product, tree=tree),
        replace(product, version="1.2.4"),
        replace(product, release=replace(product.release, epoch=product.release.epoch + 1)),
    ]
    assert len({each.product_code for each in others}) == len({each.package_code for each in others}) == len(others)
    assert {each.upgrade_code for each in others} == {product.upgrade_code}
    # It must never change: what is installed on laptops is found by it.
    assert product.upgrade_code == "{22426B87-BFBB-5945-90BE-5CC7CFFB4FA2}"
    assert all(uuid.UUID(each.product_code).version == 5 for each in others)


GOLDEN_TABLES = (
    *("AppSearch", "CustomAction", "DrLocator", "Environment", "Error", "Feature", "InstallExecuteSequence"),
    *("InstallUISequence", "LaunchCondition", "Media", "Property", "RegLocator", "Registry", "Signature", "Upgrade"),
)


@pytest.mark.parametrize("name", ["agent", "settings"])
def test_the_tables_are_as_they_were_read_by_a_person(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue({"agent": "built", "settings": "settings_msi"}[name])
    there = subprocess.run(["msiinfo", "tables", path], check=True, capture_output=True, text=True).stdout.split()
    found = {table: rows(path, table) for table in GOLDEN_TABLES if table in there}
    for row in found["Property"]:
        if row["Property"] == "ProductCode":  # of every content another one
            row["Value"] = "..."
    for table in ("InstallExecuteSequence", "InstallUISequence"):
        found[table].sort(key=lambda row: int(row["Sequence"]))
    found["Media"][0]["LastSequence"] = "..."
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    golden = GOLDEN / f"{name}.json"
    if not golden.exists():  # what changes on purpose: delete the file, run this, and read the difference
        golden.write_text(text, encoding="utf-8")
        pytest.fail(f"{golden} was not there: it is now; read it, and run this again")
    assert text == golden.read_text(encoding="utf-8")


def test_whoever_repairs_it_sees_no_console_of_system(built: Path) -> None:
    when = {row["Action"]: row["Condition"] for row in rows(built, "InstallExecuteSequence")}
    consoles = [row["Action"] for row in rows(built, "CustomAction") if "pythonw.exe" not in row["Target"]]
    assert len(consoles) == 4
    assert all(when[name] == windows.GOES or "NOT REINSTALL" in when[name] for name in consoles)


def test_the_summary_says_64_bit_and_for_all_users(built: Path, product: installation.Product) -> None:
    said = subprocess.run(["msiinfo", "suminfo", built], check=True, capture_output=True, text=True, env=ENV).stdout
    for line in (
        "Template: x64;1033",
        f"Revision number (UUID): {product.package_code}",
        "Created: Tue Nov 14 22:13:20 2023",
        "Author: Example Corp IT",
        "Source: 2 (2)",
    ):
        assert line in said


@needs("cabextract", "msiextract")
def test_others_find_every_file_in_it(built: Path, product: installation.Product, tmp_path: Path) -> None:
    subprocess.run(["msiextract", "--directory", tmp_path, built], check=True, capture_output=True)
    expected = {path: entry.content for path, entry in product.tree.entries() if isinstance(entry, File)}
    found = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    # msiextract writes what an administrative installation would: the folder's name there is "."
    found = {name.removeprefix("Program Files/").removeprefix("./"): path for name, path in found.items()}
    assert found.keys() == expected.keys()
    for name, path in found.items():
        assert path.read_bytes() == expected[name], name


@needs("cabextract")
@pytest.mark.parametrize("sizes", [(0,), (1, 2, 3), (32767, 1, 32768, 32769, 5), (200_000,)], ids=str)
def test_a_cabinet_is_read_by_another_program(sizes: tuple[int, ...], tmp_path: Path) -> None:
    files = {f"file{at}": bytes(each % 251 for each in range(size)) for at, size in enumerate(sizes)}
    packed = cabinet.build(files, 1_700_000_001)
    (tmp_path / "x.cab").write_bytes(packed)
    done = run(["cabextract", "-d", "out", "x.cab"], env=ENV, folder=tmp_path, seconds=30)
    assert done.exit_code == 0, done.stderr
    for name, expected in files.items():
        assert (tmp_path / "out" / name).read_bytes() == expected
    if any(sizes):
        # The reader checks what the writer has summed up: a flipped bit is found.
        broken = bytearray(packed)
        broken[-1] ^= 1
        (tmp_path / "x.cab").write_bytes(broken)
        assert run(["cabextract", "-t", "x.cab"], env=ENV, folder=tmp_path, seconds=30).exit_code != 0


def test_what_is_compiled_there_goes_again(built: Path, product: installation.Product) -> None:
    removed = [row["FileName"].partition("|")[2] for row in rows(built, "RemoveFile") if row["FileName"]]
    modules = [path for path, _ in product.tree.entries() if path.startswith("llmgw/lib/") and path.endswith(".py")]
    assert len(removed) == len(modules)
    assert "daemon.cpython-313.pyc" in removed
    folders = [row for row in rows(built, "RemoveFile") if not row["FileName"]]
    assert len(folders) == len({path.rpartition("/")[0] for path in modules})


def test_short_names_are_unique_and_short(built: Path) -> None:
    seen = set()
    for row in rows(built, "File"):
        short, _, name = row["FileName"].partition("|")
        base, _, ending = short.partition(".")
        assert len(base) <= 8
        assert len(ending) <= 3
        assert name
        seen.add((row["Component_"], short))
    assert len(seen) == len(rows(built, "File"))


def test_python_looks_nowhere_but_in_its_folder(whole: tuple[installation.Product, tuple[Wheel, ...]]) -> None:
    entries = dict(whole[0].tree.entries())
    path = entries["llmgw/runtime/python313._pth"]
    assert isinstance(path, File)
    assert path.content == b"python313.zip\r\n.\r\n..\\lib\r\n"
    assert {"pywin32-ctypes", "keyring", "distlib"} <= {wheel.pin.name for wheel in whole[1]}
    assert "secretstorage" not in {wheel.pin.name for wheel in whole[1]}
    task = entries["llmgw/llmgw.xml"]
    assert isinstance(task, File)
    assert "<Command>%ProgramFiles%\\llmgw\\runtime\\pythonw.exe</Command>" in task.content.decode("utf-16")
    assert "S-1-5-32-545" in task.content.decode("utf-16")


def test_a_launcher_names_its_python_relatively(store: Path) -> None:
    start, _ = launcher.stub(windows.target("3.13"), store)
    made = launcher.build(start, r"runtime\python.exe", ("-I", "-S"), "print(1)\n")
    assert made.startswith(b"MZ")
    assert b"#!<launcher_dir>\\runtime\\python.exe -I -S\r\nPK" in made
    assert zipfile.ZipFile(io.BytesIO(made)).read("__main__.py") == b"print(1)\n"


@pytest.mark.parametrize("name", windows.COMMANDS)
def test_a_command_starts_what_there_is(name: str) -> None:
    module = re.search(r"(?m)^from (\S+) import main$", windows.COMMANDS[name][1])
    assert module
    assert find_spec(module[1]) is not None


def test_intune_detects_it_by_its_product_code(product: installation.Product, content: bytes) -> None:
    name, packed = intune.wrapped(product, content)
    assert name == "llmgw-1.2.3-x64.intunewin"
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        about = ET.fromstring(archive.read("IntuneWinPackage/Metadata/Detection.xml"))  # noqa: S314 -- ours
    assert about.findtext("SetupFile") == "llmgw-1.2.3-x64.msi"
    assert about.findtext("MsiInfo/MsiProductCode") == product.product_code
    assert about.findtext("MsiInfo/MsiUpgradeCode") == product.upgrade_code
    assert about.findtext("MsiInfo/MsiProductVersion") == "1.2.3"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("a", "a"),
        ("#a", "##a"),
        ('{"a":[1]}', '[\\{]"a":[\\[]1[\\]][\\}]'),
        (4100, "#4100"),
        (["a", "b"], "[~]a[~]b[~]"),
        (["a"], "[~]a[~]"),
    ],
    ids=str,
)
def test_a_value_of_the_registry_is_not_expanded(value: str | int | list[str], stored: str) -> None:
    assert installation.registry_value(value) == stored


def test_a_later_build_of_the_settings_is_newer() -> None:
    times = (0, 60, 86_400 * 30, 86_400 * 31, 86_400 * 364, 86_400 * 366)
    versions = [tuple(map(int, windows_settings.version(1_704_067_200 + each).split("."))) for each in times]
    assert versions == sorted(set(versions))
    assert all(year < 256 and month < 256 and minute < 65536 for year, month, minute in versions)


def test_changed_settings_are_newer_whatever_the_release(release: Release, tmp_path: Path) -> None:
    written(tmp_path / "org.toml", release.epoch - 3600)
    before, _ = windows_settings.product(tmp_path / "org.toml", release)
    written(tmp_path / "org.toml", release.epoch + 3600)
    after, _ = windows_settings.product(tmp_path / "org.toml", release)
    assert (before.version, after.version) == ("23.11.20053", "23.11.20113")
    assert before.upgrade_code == after.upgrade_code


@pytest.mark.parametrize("change", ["another helper", "no Windows"])
def test_settings_for_another_helper_are_refused(change: str, release: Release, tmp_path: Path) -> None:
    text = {
        "another helper": ORGANIZATION + '[rollout.helper]\nwindows = "C:\\\\x\\\\llmgw-token.exe"\n',
        "no Windows": ORGANIZATION.replace('["windows"]', '["linux"]'),
    }[change]
    (tmp_path / "org.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="does not use the helper of the package for windows"):
        windows_settings.product(tmp_path / "org.toml", release)


@needs("osslsigncode", "openssl")
@pytest.mark.parametrize("kind", ["msi", "exe"])
def test_what_is_signed_verifies_and_a_flipped_byte_does_not(
    kind: str, content: bytes, store: Path, signer: Path, authority: Mapping[str, Path], tmp_path: Path
) -> None:
    start, _ = launcher.stub(windows.target("3.13"), store)
    plain = {"msi": content, "exe": launcher.build(start, r"runtime\python.exe", (), "pass\n")}[kind]
    signed = signing.by(str(signer))(f"llmgw.{kind}", plain)
    path = tmp_path / f"signed.{kind}"

    def verify() -> int:
        command: list[str | Path] = ["osslsigncode", "verify", "-CAfile", authority["ca.pem"], path]
        return run(command, env=ENV, folder=tmp_path, seconds=60).exit_code

    path.write_bytes(signed)
    assert verify() == 0
    # In the middle of what is signed: of the cabinet, or of the launcher.
    broken = bytearray(signed)
    broken[len(plain) // 2] ^= 1
    path.write_bytes(broken)
    assert verify() != 0


def test_a_signer_that_does_not_sign_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="there is no "):
        signing.by(str(tmp_path / "nothing"))
    lazy = tmp_path / "lazy"
    lazy.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    lazy.chmod(0o755)
    with pytest.raises(ToolError, match=r"has not signed x\.exe"):
        signing.by(str(lazy))("x.exe", b"x")
    lazy.write_text("#!/bin/sh\necho the token is locked >&2\nexit 3\n", encoding="utf-8")
    with pytest.raises(ToolError, match="the token is locked"):
        signing.by(str(lazy))("x.exe", b"x")


@needs("osslsigncode", "openssl")
def test_the_command_builds_signed_settings_with_bill_and_sums(
    signer: Path, authority: Mapping[str, Path], tmp_path: Path
) -> None:
    written(tmp_path / "org.toml", 1_700_000_000)
    command: list[str | Path] = [sys.executable, "-m", "llmgw_packaging", "--org", "org.toml", "--format", "msi"]
    command += ["--out", "dist", "--epoch", "1700000000", "--sign-windows", signer]
    env = ENV | {"PYTHONPATH": str(REPOSITORY / "packaging")}
    done = run(command, env=env, folder=tmp_path, seconds=120)
    assert done.exit_code == 0, done.stderr
    dist = tmp_path / "dist"
    name = "llmgw-org-example-corp-23.11.20053-x64"
    assert {path.name for path in dist.iterdir()} == {
        "SHA256SUMS",
        *(f"{name}.{ending}{more}" for ending in ("msi", "intunewin") for more in ("", ".cdx.json")),
    }
    assert run(["sha256sum", "--check", "SHA256SUMS"], env=ENV, folder=dist, seconds=30).exit_code == 0
    verify: list[str | Path] = ["osslsigncode", "verify", "-CAfile", authority["ca.pem"], f"{name}.msi"]
    assert run(verify, env=ENV, folder=dist, seconds=30).exit_code == 0
