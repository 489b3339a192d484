from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from llmgw_packaging import runtime
from llmgw_packaging.wheels import LockError

if TYPE_CHECKING:
    from pathlib import Path

WINDOWS = ("python.exe", "pythonw.exe", "python313.dll", "python313._pth")


def packed(folder: Path, names: tuple[str, ...], *, kind: str = "zip", top: str = "") -> Path:
    path = folder / f"python.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(top + name, name)
        return path
    with tarfile.open(path, "w") as tar:
        for name in names:
            info = tarfile.TarInfo(top + name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    return path


def read(path: Path) -> runtime.Runtime:
    return runtime.read(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_another_runtime_than_the_one_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="not the one that was named"):
        runtime.read(packed(tmp_path, WINDOWS), "0" * 64)


@pytest.mark.parametrize(("kind", "top"), [("zip", ""), ("tar", "python/")])
def test_a_python_for_windows_is_known_by_its_library(tmp_path: Path, kind: str, top: str) -> None:
    found = read(packed(tmp_path, WINDOWS, kind=kind, top=top))
    assert (found.platform, found.version) == ("windows", "3.13")
    # Its own search path is left out: the installer brings another one.
    assert [name for name, _ in found.tree.entries()] == ["python.exe", "python313.dll", "pythonw.exe"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no Python"),
        (("README",), "holds no Python"),
        (("python.exe", "python313.dll"), "lacks python.exe or pythonw.exe"),
        ((*WINDOWS, "python312.dll"), "or several"),
        ((*WINDOWS, "bin/python3.13"), "or several"),
    ],
    ids=["empty", "something else", "no pythonw.exe", "two versions", "two systems"],
)
def test_what_is_no_python_is_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(LockError, match=said):
        read(packed(tmp_path, names))


def test_nothing_outside_of_its_folder_is_taken(tmp_path: Path) -> None:
    found = read(packed(tmp_path, (*WINDOWS, "../x", "/x", "a/../../x")))
    assert len(found.tree.entries()) == len(WINDOWS) - 1
