"""The scripts that package tools run: files of packaging/linux, with the parts that several of them share put in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "linux"


def script(name: str) -> str:
    """`deb/agent.postinst` and its like; a line `#include PART` stands for parts/PART.sh."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return re.sub(r"(?m)^#include (\w+)\n", lambda found: _part(found[1]), text)


def _part(name: str) -> str:
    return (FOLDER / "parts" / f"{name}.sh").read_text(encoding="utf-8") + "\n"
