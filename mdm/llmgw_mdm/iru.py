"""For Iru (once Kandji): library items as folders that its command-line tool `iructl` pushes. Pure.

A folder is an item: `info.json` beside a profile, or beside scripts whose names begin with `audit`. The keys are those
that iructl's own models take (it refuses others).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.managed import DOMAIN as AGENT_DOMAIN
from llmgw_mdm import codex, scripts, shapes
from llmgw_mdm.artefact import Artefact
from llmgw_mdm.places import CLAUDE_DOMAIN, DESKTOP_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmgw_mdm.organization import Organization

PROFILES: Final = {
    "llmgw-claude-code": (f"{CLAUDE_DOMAIN}.mobileconfig", "Claude Code"),
    "llmgw-agent": (f"{AGENT_DOMAIN}.mobileconfig", "the agent"),
    "llmgw-claude-desktop": (f"{DESKTOP_DOMAIN}.mobileconfig", "Claude Desktop"),
    "llmgw-codex": (f"{codex.DOMAIN}.mobileconfig", "Codex"),
    "llmgw-background-item": ("background-item.mobileconfig", "the agent's login item"),
}
AUDIT: Final = "llmgw-audit"


def artefacts(org: Organization, profiles: Mapping[str, bytes]) -> Iterator[Artefact]:
    """The items, of the same profiles that every other MDM gets. Nothing without Macs.

    Args:
        org: Whose they are.
        profiles: The content of each profile, by its file name.
    """
    if "macos" not in org.platforms:
        return
    for name, (file, what) in PROFILES.items():
        if file not in profiles:
            continue
        info = _info(org, name) | {"runs_on_mac": True}
        yield Artefact(f"iru/profiles/{name}/info.json", shapes.as_json(info), f"library item: profile of {what}")
        yield Artefact(f"iru/profiles/{name}/profile.mobileconfig", profiles[file], f"its profile: {what}")
    info = _info(org, AUDIT) | {"execution_frequency": "every_day", "restart": False}
    yield Artefact(f"iru/scripts/{AUDIT}/info.json", shapes.as_json(info), "library item: audit script, once a day")
    audit = scripts.audit("status", org.helpers["macos"], org.gateway_url)
    yield Artefact(f"iru/scripts/{AUDIT}/audit.sh", audit, "its script: exit code 0 if in force", is_script=True)


def _info(org: Organization, name: str) -> dict[str, Any]:
    # Iru gives an item an id of its own when it is first pushed; until then this one names it.
    identity = shapes.stable_uuid(org.identifier, f"iru.{name}").lower()
    return {"id": identity, "name": f"{name} ({org.name})", "active": True}
