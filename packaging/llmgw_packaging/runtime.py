"""Python for systems that have none: the archive that was named, if it is the one with this SHA-256.

Macs take what python-build-standalone publishes (`install_only`, a `python` folder in a tar archive). Windows takes the
same for Windows, or python.org's embeddable package (a ZIP file).
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from llmgw_packaging.tree import READABLE, RUNNABLE, Tree
from llmgw_packaging.wheels import LockError

if TYPE_CHECKING:
    from pathlib import Path


ANYBODY: Final = 0o111
MARKS: Final = {
    "macos": re.compile(r"bin/python(3\.\d+)"),
    "windows": re.compile(r"python(3)(\d\d+)\.dll"),
}
"""The file that says which system a runtime is for, and which version it has."""
OWN_PATH: Final = "._pth"
"""The embeddable package's own search path: it gets another one."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An interpreter and its standard library."""

    platform: str
    """`macos` (Apple silicon) or `windows` (x64)."""
    version: str
    """Major and minor."""
    tree: Tree
    archive: str
    """Name of the file that it came in."""
    sha256: str


def read(archive: Path, sha256: str) -> Runtime:
    """Read the archive; LockError if it is another than the one with this SHA-256, or holds no Python."""
    content = archive.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256.lower():
        raise LockError(f"{archive} has the SHA-256 {found}, not the one that was named")
    tree = _unpacked(content)
    names = [name for name, _ in tree.entries()]
    said = {
        (platform, ".".join(named.groups()))
        for platform, mark in MARKS.items()
        for name in names
        if (named := mark.fullmatch(name))
    }
    if len(said) != 1:
        raise LockError(f"{archive} holds no Python for macOS or Windows, or several")
    platform, version = said.pop()
    if platform == "windows" and not {"python.exe", "pythonw.exe"} <= set(names):
        raise LockError(f"{archive} lacks python.exe or pythonw.exe")
    return Runtime(platform, version, tree, archive.name, found)


def below(folder: str, tree: Tree) -> Tree:
    """The same in a folder."""
    found = Tree()
    for path, entry in tree.entries():
        found.add(f"{folder}/{path}", entry)
    return found


def _unpacked(content: bytes) -> Tree:
    tree = Tree()
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return _from_tar(content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            if not info.is_dir() and (name := _kept(info.filename)):
                tree.put(name, archive.read(info))
    return tree


def _from_tar(content: bytes) -> Tree:
    tree = Tree()
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        for member in members:
            path = PurePosixPath(member.name)
            if path.parts[:1] != ("python",) or member.isdir() or not (name := _kept("/".join(path.parts[1:]))):
                continue
            if member.issym():
                tree.link(name, member.linkname)
            elif file := members.extractfile(member):
                tree.put(name, file.read(), RUNNABLE if member.mode & ANYBODY else READABLE)
    return tree


def _kept(name: str) -> str:
    return "" if ".." in PurePosixPath(name).parts or name.startswith("/") or name.endswith(OWN_PATH) else name
