"""Where Claude Code finds managed settings, as one list, the strongest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmgw_agent.claude_code import DOMAIN as CLAUDE_DOMAIN
from llmgw_agent.claude_code import MANAGED, profiles

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CLAUDE_DOMAIN", "Place", "files", "places"]

DESKTOP_DOMAIN: Final = "com.anthropic.claudefordesktop"
DESKTOP_KEY: Final = r"HKEY_LOCAL_MACHINE\SOFTWARE\Policies\Claude"
"""Where the desktop app looks, on macOS and on Windows."""
AGENT_KEY: Final = r"HKEY_LOCAL_MACHINE\SOFTWARE\Policies\llmgw"
"""Where our agent looks on Windows."""
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
    return [Place(2, "profile", path) for path in profiles()] + files(MANAGED)


def files(folder: Path) -> list[Place]:
    """Base file and drop-ins of a folder, the strongest first. Hidden files and other endings are not read."""
    drop_ins = [path for path in (folder / DROP_INS).glob("*.json") if not path.name.startswith(".")]
    found = [Place(1, "drop-in", path) for path in sorted(drop_ins, reverse=True)]
    return [*found, Place(1, "file", folder / BASE)]
