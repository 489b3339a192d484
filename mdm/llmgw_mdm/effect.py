"""What is in force of several sources of Claude Code's managed settings, and what is passed over. Pure.

Observed of 2.1.329, and documented by its vendor: of sources that hold anything the strongest alone counts, but `env`
is united, variable by variable. `"managedSourcesBehavior": "merge"` in the strongest unites all others, too, apart from
helpers and log-ins. Within the files, drop-ins are laid over the base file in the order of their names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmgw_agent.claude_code import HIGHEST_ONLY
from llmgw_mdm.presets import merged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmgw_mdm.places import Place


@dataclass(frozen=True, slots=True)
class Passed:
    """A setting that does not count."""

    key: str
    path: Path
    why: str


@dataclass(slots=True)
class Policy:
    """What counts."""

    settings: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Path] = field(default_factory=dict)
    """Key, or `env.NAME`, to the file that says so; the strongest one, where several are united."""
    passed_over: list[Passed] = field(default_factory=list)


def of(found: Sequence[tuple[Place, dict[str, Any]]]) -> Policy:
    """The effective policy; `found` has the strongest first."""
    policy = Policy()
    strongest = next((place for place, settings in found if settings), None)
    if strongest is None:
        return policy
    is_united = any(
        settings.get("managedSourcesBehavior") == "merge" for place, settings in found if place.rank == strongest.rank
    )
    for place, settings in found:
        kept = {}
        for key, value in settings.items():
            if key == "env" and isinstance(value, dict):
                kept["env"] = _variables(policy, value, place.path)
            elif place.rank < strongest.rank and (not is_united or key in HIGHEST_ONLY):
                why = f"{strongest.path} is a stronger source"
                policy.passed_over.append(Passed(key, place.path, why))
            else:
                _note(policy, key, value, place.path)
                kept[key] = value
        policy.settings = merged(kept, policy.settings)
    return policy


def _variables(policy: Policy, env: dict[str, Any], path: Path) -> dict[str, Any]:
    for name, value in env.items():
        key = f"env.{name}"
        if key in policy.sources:
            if policy.settings["env"][name] != value:
                policy.passed_over.append(Passed(key, path, f"{policy.sources[key]} says otherwise"))
        else:
            policy.sources[key] = path
    return env


def _note(policy: Policy, key: str, value: object, path: Path) -> None:
    if key not in policy.sources:
        policy.sources[key] = path
    elif not isinstance(value, (dict, list)) and policy.settings.get(key) != value:
        policy.passed_over.append(Passed(key, path, f"{policy.sources[key]} says otherwise"))
