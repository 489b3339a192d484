"""The `.exe` files by which Windows starts a Python program: distlib's launcher with a few lines of ours behind it.

The launcher starts the interpreter that its `#!` line names, in a folder beside itself, and hands it its own path:
Python finds a ZIP file at the end of that and runs its `__main__.py`. Arguments are passed on as they came, unparsed.
Whoever signs the file appends to it, after the ZIP file; launcher and Python look for that from the end.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Final

from llmgw_packaging.documents import REPOSITORY
from llmgw_packaging.wheels import Target, Wheel, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOCK: Final = REPOSITORY / "packaging" / "launcher.lock"
CONSOLE: Final = "distlib/t64.exe"
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
BESIDE: Final = "<launcher_dir>"
"""How the launcher says its own folder."""


def stub(target: Target, store: Path) -> tuple[bytes, list[Wheel]]:
    """The launcher for programs with a console, and the wheel that it is from. `store` keeps it between builds."""
    wheels = fetch(target, target.pythons[0], LOCK, store)
    with zipfile.ZipFile(wheels[0].path) as archive:
        return archive.read(CONSOLE), wheels


def build(start: bytes, interpreter: str, options: Sequence[str], code: str) -> bytes:
    r"""A program that runs `code`.

    Args:
        start: The launcher.
        interpreter: Relative to the program's folder, such as `runtime\python.exe`; without spaces.
        options: Of the interpreter.
        code: What `__main__.py` says.
    """
    line = " ".join((f"#!{BESIDE}\\{interpreter}", *options))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        info = zipfile.ZipInfo("__main__.py", EPOCH)
        info.create_system = 0
        archive.writestr(info, code)
    return start + line.encode("ascii") + b"\r\n" + packed.getvalue()
