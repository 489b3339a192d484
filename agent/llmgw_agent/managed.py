"""What a company sets for a machine, and its user cannot change: files that root alone can write.

Device management puts them there: a property list on macOS, a key of the registry on Windows, a TOML file elsewhere.
Neither variables nor LLMGW_HOME move these places. A file that somebody else could have written is not believed, and
is a fault: it means that the machine is not what the company thinks it is.
"""

from __future__ import annotations

import os
import plistlib
import stat
import tomllib
from typing import TYPE_CHECKING, Any, Final
from xml.parsers.expat import ExpatError

from llmgw_agent import system

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DOMAIN: Final = "com.llmgw.agent"
"""The preference domain of a configuration profile."""
ROOT: Final = 0
MOST_BYTES: Final = 256 * 1024


class _UntrustedError(Exception):
    """Somebody else than its owner could have written it."""


def paths() -> list[Path]:
    """Where to look, the weakest first."""
    return system.policy_places(DOMAIN)


def read(places: Sequence[Path], faults: list[str], owner: int = ROOT) -> list[tuple[Path, dict[str, Any]]]:
    """The documents that are there, in the same order; what is wrong with the others is added to `faults`."""
    found = []
    for path in places:
        try:
            document = _document(path, owner)
        except FileNotFoundError:
            continue
        except _UntrustedError:
            faults.append(f"{path} is not believed: others than root can write it")
        except (OSError, ValueError, ExpatError) as error:
            faults.append(f"{path} cannot be read ({type(error).__name__})")
        else:
            found.append((path, document))
    return found


def _document(path: Path, owner: int) -> dict[str, Any]:
    if (policy := system.policy(path)) is not None:
        return policy
    handle = os.open(path, system.READING | system.NO_LINK)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or status.st_mode & 0o022:
            raise _UntrustedError
        content = file.read(MOST_BYTES)
    document = plistlib.loads(content) if path.suffix == ".plist" else tomllib.loads(content.decode())
    if not isinstance(document, dict):
        raise ValueError("it holds no settings")  # noqa: TRY004 -- callers catch one type
    return document
