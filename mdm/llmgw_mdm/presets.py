"""Settings that a security team may want beside the pin, by name. None is imposed: the gateway needs none of them."""

from __future__ import annotations

from typing import Any, Final

PRESETS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "no-bypass": (
        "nobody can switch permission prompts off",
        {"permissions": {"disableBypassPermissionsMode": "disable"}},
    ),
    "no-auto-mode": (
        "no mode in which a model decides about permissions",
        {"permissions": {"disableAutoMode": "disable"}},
    ),
    "own-permissions-only": (
        "permission rules of users and repositories do not count",
        {"allowManagedPermissionRulesOnly": True},
    ),
    "own-hooks-only": ("hooks of users and repositories do not run", {"allowManagedHooksOnly": True}),
    "no-marketplaces": ("no plugin marketplace can be added", {"strictKnownMarketplaces": []}),
    "no-sideloading": ("no plugins or settings by command-line flags", {"disableSideloadFlags": True}),
    "no-remote-control": ("sessions cannot be driven from elsewhere", {"disableRemoteControl": True}),
    "no-cloud-connectors": (
        "nothing is fetched from claude.ai accounts",
        {"disableClaudeAiConnectors": True, "syncClaudeAiSkills": False, "syncClaudeAiPlugins": False},
    ),
    "sandbox": (
        "shell commands run in the client's sandbox or not at all",
        {"sandbox": {"enabled": True, "failIfUnavailable": True, "allowUnsandboxedCommands": False}},
    ),
    "no-secrets-files": (
        "the model does not read files that usually hold credentials",
        {"permissions": {"deny": ["Read(./.env)", "Read(./.env.*)", "Read(~/.ssh/**)", "Read(~/.aws/**)"]}},
    ),
}
"""Name -> what it does, and the settings."""


def merged(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both together as Claude Code merges them: objects by key, lists united, otherwise the later value."""
    found = dict(into)
    for key, value in more.items():
        before = found.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            found[key] = merged(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            found[key] = [*before, *(each for each in value if each not in before)]
        else:
            found[key] = value
    return found
