"""What a company sets in the registry, where only administrators can write: HKLM/SOFTWARE/Policies.

The shape is that of the other systems' files: a value for each setting. Texts are REG_SZ (or REG_EXPAND_SZ, which is
not expanded), numbers REG_DWORD, lists REG_MULTI_SZ. HKCU is not looked at: its user can write there.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path, PureWindowsPath
from typing import Any, Final

POLICIES: Final = "SOFTWARE\\Policies\\"
AGENT: Final = "llmgw"
CLAUDE: Final = "ClaudeCode"
CLAUDE_VALUE: Final = "Settings"
"""Claude Code's settings: one text, which is JSON."""
MACHINE: Final = "HKEY_LOCAL_MACHINE"
ENVIRONMENT: Final = "Environment"
"""Below HKEY_CURRENT_USER: variables that every program of this user gets."""
READ_64: Final = 0x20019 | 0x100
"""KEY_READ | KEY_WOW64_64KEY: the one registry, also for a Python of 32 bits."""


def place(name: str) -> Path:
    """What a policy's key is called in messages; `read` takes it."""
    return Path(f"{MACHINE}\\{POLICIES}{name}")


def is_key(path: Path) -> bool:
    """Whether a path is the name of such a key."""
    return str(path).startswith(MACHINE)


def read(path: Path, registry: Any = None) -> dict[str, Any]:  # noqa: ANN401 -- winreg, which is there on Windows only
    """The values of a key; FileNotFoundError if there is none, OSError if it cannot be read."""
    winreg = registry or importlib.import_module("winreg")
    below = "\\".join(PureWindowsPath(str(path)).parts[1:])
    found = {}
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, below, 0, READ_64) as key:
        for number in range(winreg.QueryInfoKey(key)[1]):
            name, value, _ = winreg.EnumValue(key, number)
            if name:  # not the key's own, nameless value
                found[name] = value
    return found


def user_variable(name: str, registry: Any = None) -> str:  # noqa: ANN401 -- the same
    """A variable as every program of this user gets it; empty if it is not kept there."""
    winreg = registry or importlib.import_module("winreg")
    with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_CURRENT_USER, ENVIRONMENT) as key:
        return str(winreg.QueryValueEx(key, name)[0])
    return ""
