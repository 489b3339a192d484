"""Compiled modules in the gateway's packages: what is taken, what is refused, and one compilation that is run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging import compiled, deb, gateway, sbom
from llmgw_packaging.compiled import CompiledError
from llmgw_packaging.compiling import COMPILED, PACKAGES, ROOT
from llmgw_packaging.targets import LINUX
from llmgw_packaging.tree import File, Tree
from tests.lab.process import run
from tests.packaging.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_packaging.release import Release
    from llmgw_packaging.wheels import Target

LIBRARY = "d37c1c975c1bc3399c19__mypyc"
NAMES = (LIBRARY, *(f"llmgw_gateway/{name}" for name in COMPILED))
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TAG = f"cpython-{PYTHON.replace('.', '')}-{platform.machine()}-linux-gnu"
OTHER_MACHINE = {"x86_64": "aarch64", "aarch64": "x86_64"}[platform.machine()]


def made_up(folder: Path, *tags: str, mypyc: str = "2.4.1") -> Path:
    """What the compiler leaves, for these interpreters, but for what is in the extensions."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for tag in tags:
        for name in NAMES:
            (folder / f"{name}.{tag}.so").write_text(f"{name} for {tag}", encoding="utf-8")
    about = folder / f"mypyc-{mypyc}.dist-info"
    (about / "licenses").mkdir(parents=True)
    text = f"Metadata-Version: 2.4\nName: mypyc\nVersion: {mypyc}\nLicense-Expression: MIT\n"
    (about / "METADATA").write_text(text, encoding="utf-8")
    (about / "licenses" / "LICENSE").write_text("as is", encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made_up(tmp_path / "compiled", TAG)


def debian(folders: list[Path], target: Target, architecture: str, store: Path, release: Release) -> deb.Package:
    served = gateway.build(target, store, release, modules=compiled.read(folders))
    return gateway.debian(served, target, architecture)


def content(package: deb.Package) -> dict[str, object]:
    """All that `deb.build` makes bytes of, which takes its time to compress them."""
    return {each.name: getattr(package, each.name) for each in fields(package)} | {"tree": package.tree.entries()}


def test_extensions_lie_beside_their_modules_readable_as_those_of_wheels(
    folder: Path, target: Target, architecture: str, store: Path, release: Release
) -> None:
    package = debian([folder], target, architecture, store, release)
    files = dict(package.tree.entries())
    for name in NAMES:
        path = f"{gateway.ANY}/{name}.{TAG}.so"
        assert files[path] == File(f"{name} for {TAG}".encode(), 0o644)
    assert f"{gateway.ANY}/mypyc-2.4.1.dist-info/licenses/LICENSE" in files
    told = files["usr/share/lintian/overrides/llmgw-gateway"]
    assert isinstance(told, File)
    assert b"llmgw-gateway: shared-library-lacks-prerequisites *" in told.content
    assert content(debian([folder], target, architecture, store, release)) == content(package)


def test_a_package_that_no_folder_is_for_is_what_it_was(
    tmp_path: Path, target: Target, architecture: str, store: Path, release: Release
) -> None:
    old, foreign = f"cpython-310-{platform.machine()}-linux-gnu", TAG.replace(platform.machine(), OTHER_MACHINE)
    folders = [made_up(tmp_path / "old", old), made_up(tmp_path / "foreign", foreign)]
    without = debian([], target, architecture, store, release)
    assert content(debian(folders, target, architecture, store, release)) == content(without)


@pytest.mark.long
def test_the_image_takes_what_its_python_loads(folder: Path, target: Target, store: Path, release: Release) -> None:
    modules = compiled.read([folder])
    _, served = gateway.image(target, store, release, python=PYTHON, modules=modules)
    assert f"opt/llmgw-gateway/lib/any/llmgw_gateway/edge.{TAG}.so" in {path for path, _ in served.tree.entries()}
    assert served.compiled == modules


def test_several_interpreters_stand_side_by_side(tmp_path: Path) -> None:
    here = [f"cpython-3{minor}-{machine}-linux-gnu" for minor in (11, 13) for machine in ("x86_64", "aarch64")]
    folders = [made_up(tmp_path / tag, tag) for tag in (*here, "cpython-312-x86_64-linux-gnu")]
    found = compiled.read(folders)
    for target in LINUX.values():
        chosen = compiled.fitting(found, target)
        tree = gateway.own()
        compiled.check(chosen, tree, gateway.ANY)
        compiled.add(tree, gateway.ANY, chosen)
        extensions = sorted(path for path, _ in tree.entries() if "/edge.cpython" in path)
        pythons = ["311", "312", "313"] if target.machine == "x86_64" else ["311", "313"]
        place = "opt/llmgw-gateway/lib/any/llmgw_gateway/edge"
        assert extensions == [f"{place}.cpython-{each}-{target.machine}-linux-gnu.so" for each in pythons]


def test_a_folder_for_several_is_refused(tmp_path: Path) -> None:
    both = made_up(tmp_path / "both", "cpython-311-x86_64-linux-gnu", "cpython-313-x86_64-linux-gnu")
    with pytest.raises(compiled.CompiledError, match="several interpreters"):
        compiled.read([both])


def test_whoever_builds_is_told_which_interpreters_have_them(folder: Path) -> None:
    found = compiled.read([folder])
    assert compiled.note(found, "x86_64", [PYTHON]) == f"compiled for Python {PYTHON}"
    assert compiled.note(found, "x86_64", ["3.9", PYTHON]) == f"compiled for Python {PYTHON}, not for 3.9"
    assert compiled.note([], "x86_64", ["3.9"]) == "nothing compiled: no folder is for Python 3.9 on x86_64"


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda at: append(at / "llmgw_gateway/pipeline.py"),
            "llmgw_gateway/pipeline.py differs from what is packaged",
        ),
        (lambda at: append(at / "llmgw_wire/errors.py"), "llmgw_wire/errors.py differs from what is packaged"),
        (lambda at: (at / "llmgw_gateway/main.py").unlink(), "llmgw_gateway/main.py is missing"),
        (lambda at: (at / "llmgw_gateway/gone.py").touch(), "llmgw_gateway/gone.py is no part of the package any more"),
    ],
    ids=["changed", "changed below", "new in the source", "gone from the source"],
)
def test_what_was_compiled_from_other_source_is_refused(
    folder: Path, change: Callable[[Path], None], said: str, target: Target, store: Path, release: Release
) -> None:
    change(folder)
    with pytest.raises(CompiledError, match=said) as refused:
        gateway.build(target, store, release, modules=compiled.read([folder]))
    assert "make compiled" in str(refused.value)


def rename(path: Path, old: str, new: str) -> None:
    path.rename(path.with_name(path.name.replace(old, new)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda at: (at / f"llmgw_gateway/edge.{TAG}.so").unlink(), "has no extension of llmgw_gateway/edge"),
        (lambda at: (at / f"llmgw_gateway/gone.{TAG}.so").touch(), "gone.* is of a module that is not compiled"),
        (lambda at: (at / f"llmgw_gateway/main.{TAG}.so").touch(), "main.* is of a module that is not compiled"),
        (lambda at: (at / f"{LIBRARY}.{TAG}.so").unlink(), "has 0 files of the name HASH__mypyc"),
        (lambda at: (at / f"00__mypyc.{TAG}.so").touch(), "has 2 files of the name HASH__mypyc"),
        (lambda at: shutil.rmtree(at / "mypyc-2.4.1.dist-info"), "names 0 versions of mypyc"),
        (lambda at: shutil.copytree(at / "mypyc-2.4.1.dist-info", at / "mypyc-3.dist-info"), "names 2 versions"),
        (lambda at: [each.unlink() for each in at.rglob("*.so")], "holds no compiled modules"),
        (shutil.rmtree, "holds no compiled modules"),
    ],
    ids=[
        "incomplete",
        "no source",
        "more",
        "no library",
        "two libraries",
        "no mypyc",
        "two mypycs",
        "none",
        "no folder",
    ],
)
def test_a_folder_that_is_not_whole_is_refused(folder: Path, change: Callable[[Path], None], said: str) -> None:
    change(folder)
    with pytest.raises(CompiledError, match=said) as refused:
        compiled.read([folder])
    assert "make compiled" in str(refused.value)


@pytest.mark.parametrize(
    "suffix",
    [
        ".so",
        ".abi3.so",
        ".cpython-311-darwin.so",
        ".cpython-313t-x86_64-linux-gnu.so",
        ".cpython-312-x86_64-linux-musl.so",
        ".cp312-win_amd64.pyd",
    ],
)
def test_an_extension_for_an_interpreter_of_nobody_is_refused(folder: Path, suffix: str) -> None:
    path = folder / f"llmgw_gateway/edge{suffix}"
    path.touch()
    with pytest.raises(CompiledError, match="no interpreter that a package is for") as refused:
        compiled.read([folder])
    assert str(path) in str(refused.value)


def test_two_folders_for_one_interpreter_are_refused(folder: Path, tmp_path: Path) -> None:
    other = made_up(tmp_path / "other", TAG)
    with pytest.raises(CompiledError, match="for the same interpreter") as refused:
        compiled.read([folder, other])
    assert str(folder) in str(refused.value)
    assert str(other) in str(refused.value)


def test_a_newer_c_library_is_required_where_the_compiler_had_one(
    folder: Path, target: Target, architecture: str, store: Path, release: Release
) -> None:
    def needs() -> tuple[str, list[str]]:
        served = gateway.build(target, store, release, modules=compiled.read([folder]))
        relations = gateway.redhat(served, target, architecture).relations
        depends = gateway.debian(served, target, architecture).relations["Depends"]
        return depends.partition(",")[0], [each for each in relations if "glibc" in each]

    (folder / f"{LIBRARY}.{TAG}.so").write_bytes(b"\0GLIBC_2.2.5\0GLIBC_2.14\0GLIBC_PRIVATE\0")
    assert needs() == ("libc6 (>= 2.28)", [])
    (folder / f"{LIBRARY}.{TAG}.so").write_bytes(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0")
    assert needs() == ("libc6 (>= 2.34)", ["Requires: glibc >= 2.34"])


def test_the_bill_names_what_became_part_of_them(tmp_path: Path, release: Release) -> None:
    tags = {f"cpython-3{minor}-x86_64-linux-gnu": mypyc for minor, mypyc in ((11, "2.4.1"), (12, "2.4.1"), (13, "2.5"))}
    folders = [made_up(tmp_path / tag, tag, mypyc=mypyc) for tag, mypyc in tags.items()]
    bill = json.loads(sbom.bill("x.deb", b"", release, (), compiled=compiled.read(folders)))
    parts = {part["bom-ref"]: part for part in bill["components"]}
    assert sorted(parts) == bill["dependencies"][0]["dependsOn"] == ["mypyc-2.4.1", "mypyc-2.5"]
    assert parts["mypyc-2.5"]["purl"] == "pkg:pypi/mypy@2.5"
    assert parts["mypyc-2.5"]["licenses"] == [{"expression": "MIT"}]
    tree = Tree()
    compiled.add(tree, "x", compiled.read(folders))
    assert {path for path, _ in tree.entries() if path.endswith("METADATA")} == {
        "x/mypyc-2.4.1.dist-info/METADATA",
        "x/mypyc-2.5.dist-info/METADATA",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "pipeline.py differs from what is packaged now. Compile it again"),
        (["--architecture", "{other}"], "no package that was asked for runs "),
        (["--format", "msi"], "no package that was asked for runs "),
    ],
    ids=["stale", "another architecture", "no package of the gateway"],
)
def test_nothing_is_built_of_a_folder_that_does_not_fit(
    folder: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    append(folder / "llmgw_gateway" / "pipeline.py")
    other = next(name for name, target in LINUX.items() if target.machine == OTHER_MACHINE)
    words = [each.format(other=other) for each in options]
    out = tmp_path / "dist"
    done = run(
        [sys.executable, "-m", "llmgw_packaging", "--out", out, "--compiled", folder, *words],
        env={"PYTHONPATH": str(REPOSITORY / "packaging"), "PATH": os.environ["PATH"]},
        folder=tmp_path,
        seconds=60,
    )
    assert done.exit_code == 1
    assert done.stderr.startswith("llmgw: no packages: ")
    assert said in done.stderr
    assert not out.exists()


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg")
def test_what_is_really_compiled_is_what_runs(
    tmp_path: Path, target: Target, architecture: str, store: Path, release: Release
) -> None:
    env = {"PYTHONPATH": str(REPOSITORY / "packaging"), "PATH": os.environ["PATH"]}
    words: list[str | Path] = [sys.executable, "-m", "llmgw_packaging.compiling", tmp_path / "compiled"]
    done = run(words, env=env, folder=tmp_path, seconds=1800)
    assert done.exit_code == 0, done.stderr[-2000:]
    package = debian([tmp_path / "compiled"], target, architecture, store, release)
    (tmp_path / package.file_name).write_bytes(deb.build(package))
    root = tmp_path / "root"
    words = ["dpkg-deb", "--extract", tmp_path / package.file_name, root]
    done = run(words, env=env, folder=tmp_path, seconds=60)
    assert (done.exit_code, done.stderr) == (0, "")
    for path in root.rglob("*__mypyc.*"):
        assert sys.base_prefix.encode() not in path.read_bytes(), "it names a folder of this machine"

    # At another place than /, with this interpreter instead of the distribution's.
    home = root / "opt" / "llmgw-gateway"
    python = Path(sys.base_prefix, "bin", "python3")
    (home / "bin" / "python3").unlink()
    (home / "bin" / "python3").symlink_to(python)
    (home / "pyvenv.cfg").write_text(f"home = {python.parent}\n", encoding="utf-8")
    modules = [f"llmgw_gateway.{name.replace('/', '.')}" for name in COMPILED]
    interpreter = home / "bin" / "python3"
    check = f"import importlib\nfor name in {modules}: print(importlib.import_module(name).__file__)"
    done = run([interpreter, "-I", "-c", check], env={}, folder=tmp_path, seconds=60)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.split() == [f"{home}/lib/any/llmgw_gateway/{name}.{TAG}.so" for name in COMPILED]
    done = run([interpreter, "-I", home / "bin" / "llmgw-gateway", "--version"], env={}, folder=tmp_path, seconds=60)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("version 1.2.3\n")
