"""What `llmgw mdm` prints. No value that may be a credential is shown."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from llmgw_mdm.effect import Policy

CREDENTIAL: Final = re.compile(r"TOKEN|KEY|SECRET|PASSW|HEADERS|PROXY", re.IGNORECASE)
"""In the name of a variable. Addresses of proxies may hold a password."""
HARMLESS: Final = ("CLAUDE_CODE_API_KEY_HELPER_TTL_MS", "NO_PROXY", "no_proxy")
MOST_LETTERS: Final = 100


def rendered(count: int, folder: Path) -> str:
    """Where everything is, and what to read next."""
    return f"Wrote {count} files to {folder}. What each is for: {folder / 'README.md'}"


def begun(path: Path) -> str:
    """What to do with a first file."""
    return f"Wrote {path}. Read it, then: llmgw mdm render {path}"


def policy(found: Policy) -> str:
    """Each setting that counts, by the file that says so; then what does not count."""
    if not found.sources:
        return "No managed settings of Claude Code are on this machine."
    lines = []
    for path in dict.fromkeys(found.sources.values()):
        lines.append(f"In force from {path}:")
        lines += [f"  {key} = {_shown(key, value)}" for key, value in _entries(found) if found.sources[key] == path]
    if found.passed_over:
        lines.append("Passed over:")
        lines += [f"  {each.key} in {each.path}: {each.why}" for each in found.passed_over]
    return "\n".join([*lines, ""])


def policy_json(found: Policy) -> dict[str, Any]:
    """The same for programs."""
    return {
        "in_force": [
            {"key": key, "value": _shown(key, value), "source": str(found.sources[key])}
            for key, value in _entries(found)
        ],
        "passed_over": [{"key": each.key, "source": str(each.path), "why": each.why} for each in found.passed_over],
    }


def _entries(found: Policy) -> Iterator[tuple[str, Any]]:
    for key, value in found.settings.items():
        if key == "env" and isinstance(value, dict):
            yield from ((f"env.{name}", each) for name, each in sorted(value.items()))
        else:
            yield key, value


def _shown(key: str, value: object) -> str:
    name = key.removeprefix("env.")
    if key != name and value and CREDENTIAL.search(name) and name not in HARMLESS:
        return "(set, not shown)"
    text = json.dumps(value, ensure_ascii=False)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 3] + "..."
