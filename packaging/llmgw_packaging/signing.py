"""Signing for Windows (Authenticode) by what a company signs with: a command that is given a file and signs it there.

Keys are never seen here. Programs are signed before they are packed, the installer after it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llmgw_packaging.rpm import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable


def by(command: str | None) -> Callable[[str, bytes], bytes]:
    """What signs a file of this name and content by a command; None: files stay as they are.

    Raises:
        ToolError: The command is not there; later, it failed or has left the file as it was.
    """
    if command is None:
        return lambda _name, content: content
    program = shutil.which(command)
    if program is None:
        raise ToolError(f"there is no {command} that could sign")

    def sign(name: str, content: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            done = subprocess.run(  # noqa: S603 -- the command that whoever builds has named
                [program, path], capture_output=True, text=True, errors="replace", check=False
            )
            signed = path.read_bytes() if path.is_file() else b""
        if done.returncode or signed in (b"", content):
            said = (done.stderr or done.stdout).strip()[-1000:] or f"exit code {done.returncode}"
            raise ToolError(f"{command} has not signed {name}: {said}")
        return signed

    return sign
