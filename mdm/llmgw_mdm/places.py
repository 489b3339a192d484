"""Where Claude Code finds managed settings, as one list, the strongest first."""

from __future__ import annotations

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmgw_agent.claude_code import MANAGED

CLAUDE_DOMAIN: Final = "com.anthropic.claudecode"
DROP_IN: Final = "50-llmgw.json"
BASE: Final = "managed-settings.json"
DROP_INS: Final = "managed-settings.d"


@dataclass(frozen=True, slots=True)
class Place:
    """One place. Of all places with the highest rank that holds anything, the settings are in force."""

    rank: int
    """Files and drop-ins count as one source; a profile is above them."""
    kind: str
    path: Path


def places() -> list[Place]:
    """Those of this machine, the strongest first. Of drop-ins, the last by name is the strongest."""
    found: list[Place] = []
    if sys.platform == "darwin":
        folder = Path("/Library/Managed Preferences")
        name = f"{CLAUDE_DOMAIN}.plist"
        own = folder / pwd.getpwuid(os.getuid()).pw_name / name
        found = [Place(2, "profile", own), Place(2, "profile", folder / name)]
    return found + files(MANAGED)


def files(folder: Path) -> list[Place]:
    """Base file and drop-ins of a folder, the strongest first. Hidden files and other endings are not read."""
    drop_ins = [path for path in (folder / DROP_INS).glob("*.json") if not path.name.startswith(".")]
    found = [Place(1, "drop-in", path) for path in sorted(drop_ins, reverse=True)]
    return [*found, Place(1, "file", folder / BASE)]
