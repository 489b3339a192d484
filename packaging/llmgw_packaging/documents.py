"""What distributions want beside a package's files: licence, changes, manuals, and what their checkers are told."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmgw_packaging.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmgw_packaging.release import Release

REPOSITORY: Final = Path(__file__).parents[2]
FOLDER: Final = REPOSITORY / "packaging" / "linux"


def for_debian(tree: Tree, package: str, release: Release, *overrides: str) -> Tree:
    """The tree with Debian's documents. `overrides` names the files of packaging/linux that lintian is to read."""
    found = Tree()
    found.merge(tree)
    place = f"usr/share/doc/{package}"
    found.put(f"{place}/copyright", (FOLDER / "copyright").read_bytes())
    found.put(f"{place}/NEWS.md.gz", compressed((REPOSITORY / "CHANGELOG.md").read_bytes()))
    when = format_datetime(datetime.fromtimestamp(release.epoch, UTC))
    entry = f"{package} ({release.version}) stable; urgency=medium\n\n  * See NEWS.md.gz.\n\n"
    entry += f" -- {release.maintainer}  {when}\n"
    found.put(f"{place}/changelog.gz", compressed(entry.encode()))
    told = "".join((FOLDER / each).read_text(encoding="utf-8") for each in overrides).replace("@NAME@", package)
    found.put(f"usr/share/lintian/overrides/{package}", told)
    return found


def for_rpm(tree: Tree, package: str) -> Tree:
    """The tree with the documents of RPM's distributions."""
    found = Tree()
    found.merge(tree)
    found.put(f"usr/share/licenses/{package}/LICENSE", (REPOSITORY / "LICENSE").read_bytes())
    found.put(f"usr/share/doc/{package}/CHANGELOG.md", (REPOSITORY / "CHANGELOG.md").read_bytes())
    return found


def manuals(tree: Tree, names: Sequence[str], version: str) -> None:
    """Manual pages of commands."""
    for name in names:
        text = (FOLDER / f"{name}.1").read_text(encoding="utf-8").replace("@VERSION@", version)
        tree.put(f"usr/share/man/man1/{name}.1.gz", compressed(text.encode()))


def compressed(content: bytes) -> bytes:
    """Gzip without a name and without a time."""
    return gzip.compress(content, compresslevel=9, mtime=0)
