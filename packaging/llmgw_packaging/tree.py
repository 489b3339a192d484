"""What a package puts on a disk: files and links by their absolute path, in memory, all owned by root."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

READABLE: Final = 0o644
RUNNABLE: Final = 0o755
SYSTEM: Final = frozenset(
    {
        *("etc", "etc/systemd", "lib", "opt", "usr", "usr/bin", "usr/lib", "usr/lib/systemd", "usr/lib/systemd/user"),
        *("etc/default", "usr/lib/systemd/system", "usr/lib/sysusers.d"),
        *("usr/share", "usr/share/doc", "usr/share/licenses", "usr/share/man", "usr/share/man/man1"),
    }
)
"""Folders that every system has: a package that lists them would own them."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    content: bytes
    mode: int = READABLE


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


class Tree:
    """Entries by path, without a leading slash. A path that is put twice is a ValueError: two parts want it."""

    def __init__(self) -> None:
        self._entries: dict[str, File | Link] = {}

    def put(self, path: str, content: bytes | str, mode: int = READABLE) -> None:
        """A file at this path."""
        self.add(path, File(content.encode() if isinstance(content, str) else content, mode))

    def link(self, path: str, target: str) -> None:
        """A symbolic link at this path."""
        self.add(path, Link(target))

    def add(self, path: str, entry: File | Link) -> None:
        """Either of them at this path."""
        path = path.lstrip("/")
        if path in self._entries:
            raise ValueError(f"/{path} would be installed twice")
        self._entries[path] = entry

    def merge(self, other: Tree) -> None:
        """Everything of another tree."""
        for path, entry in other.entries():
            self.add(path, entry)

    def entries(self) -> list[tuple[str, File | Link]]:
        """Files and links, sorted by path."""
        return sorted(self._entries.items())

    def folders(self) -> list[str]:
        """Every folder that is needed, parents first."""
        found = {str(parent) for path in self._entries for parent in PurePosixPath(path).parents}
        return sorted(found - {"."})

    def own_folders(self) -> list[str]:
        """Those that are this package's alone."""
        return [folder for folder in self.folders() if folder not in SYSTEM]

    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(entry.content) for entry in self._entries.values() if isinstance(entry, File))

    def stage(self, folder: Path) -> None:
        """Write everything below a folder, for tools that want it on a disk."""
        for path, entry in self.entries():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(entry, Link):
                target.symlink_to(entry.target)
            else:
                target.write_bytes(entry.content)
                target.chmod(entry.mode)
        for name in self.folders():
            (folder / name).chmod(RUNNABLE)


def archive(tree: Tree, epoch: int, *, prefix: str = "./", folders: Iterable[str] | None = None) -> bytes:
    """A tar archive in the GNU format: sorted, owned by root, every time the same."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in tree.folders() if folders is None else folders:
            info = tarfile.TarInfo(f"{prefix}{name}/")
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, RUNNABLE, epoch
            info.uname = info.gname = "root"
            tar.addfile(info)
        for path, entry in tree.entries():
            info = tarfile.TarInfo(f"{prefix}{path}")
            info.mtime, info.uname, info.gname = epoch, "root", "root"
            if isinstance(entry, Link):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
                tar.addfile(info)
            else:
                info.size, info.mode = len(entry.content), entry.mode
                tar.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()
