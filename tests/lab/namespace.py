"""A mount namespace with an /etc of its own: what only root may write is the test's here, and nobody else sees it."""

from __future__ import annotations

import functools
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# The copy lies in memory and ends with the namespace. What cannot be read (shadow) is nobody's business here.
ENTER = """
set -e
mount -t tmpfs tmpfs /mnt
cp -a /etc /mnt/etc 2>/dev/null || true
rm -rf /mnt/etc/claude-code /mnt/etc/llmgw
cp -R "$1"/. /mnt/etc
chown -R 0:0 /mnt/etc/claude-code /mnt/etc/llmgw 2>/dev/null || true
mount --bind /mnt/etc /etc
shift
exec "$@"
"""


def enter(overlay: Path, command: Sequence[str | Path]) -> list[str | Path]:
    """The command in a namespace where the files of `overlay` lie in /etc, as root's; nothing outside is touched."""
    own = ["--map-root-user"] if os.getuid() else []
    return ["unshare", "--mount", *own, "sh", "-c", ENTER, "sh", overlay, *command]


def write(overlay: Path, files: Mapping[str, bytes]) -> Path:
    """Fill the overlay: path below /etc to content."""
    for name, content in files.items():
        path = overlay / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return overlay


@functools.cache
def available() -> bool:
    """Whether this machine lets its user make one."""
    own = ["--map-root-user"] if os.getuid() else []
    probe = ["unshare", "--mount", *own, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
