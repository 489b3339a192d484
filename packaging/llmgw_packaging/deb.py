"""Debian packages (deb(5)), written here: an ar archive of two tar archives. No tool is needed to build one."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from llmgw_packaging.tree import RUNNABLE, File, Tree, archive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_packaging.release import Release

KIB: Final = 1024
PRESET: Final = 1
"""Of xz: a twentieth larger than the third, in half of the time."""


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package. Texts as deb-control(5) wants them; `description` may have further lines."""

    name: str
    release: Release
    architecture: str
    summary: str
    description: str
    tree: Tree
    relations: Mapping[str, str] = field(default_factory=dict)
    """`Depends`, `Conflicts` and their like."""
    scripts: Mapping[str, str] = field(default_factory=dict)
    """`postinst` and its like; `triggers`."""
    conffiles: tuple[str, ...] = ()
    """Paths whose content is the administrator's once they are installed: an upgrade asks, removing keeps them."""
    section: str = "net"

    @property
    def file_name(self) -> str:
        """As package archives name it."""
        return f"{self.name}_{self.release.version}_{self.architecture}.deb"


def build(package: Package) -> bytes:
    """The package; every file in it bears the time of the release."""
    epoch = package.release.epoch
    data = lzma.compress(archive(package.tree, epoch), preset=PRESET)
    control = Tree()
    control.put("control", _control(package))
    control.put("md5sums", _sums(package.tree))
    if package.conffiles:
        control.put("conffiles", "".join(f"{path}\n" for path in package.conffiles))
    for name, text in package.scripts.items():
        control.put(name, text, RUNNABLE if text.startswith("#!") else 0o644)
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(archive(control, epoch), mtime=epoch),
        "data.tar.xz": data,
    }
    return b"!<arch>\n" + b"".join(_member(name, content, epoch) for name, content in parts.items())


def _member(name: str, content: bytes, epoch: int) -> bytes:
    header = f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)


def _control(package: Package) -> str:
    fields = {
        "Package": package.name,
        "Version": package.release.version,
        "Architecture": package.architecture,
        "Maintainer": package.release.maintainer,
        "Installed-Size": str(-(-package.tree.size() // KIB)),
        "Section": package.section,
        "Priority": "optional",
        **package.relations,
        "Description": package.summary,
    }
    lines = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    return lines + "".join(f" {line or '.'}\n" for line in package.description.strip().splitlines())


def _sums(tree: Tree) -> str:
    # dpkg's own check against damage (md5sums in deb(5)); what guards against forgers is the repository's signature.
    return "".join(
        f"{hashlib.md5(entry.content, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, entry in tree.entries()
        if isinstance(entry, File)
    )
