"""For Jamf Pro: a form for each preference domain ("custom schema"), filled in with what the organisation wants. Pure.

Structure and types: Jamf's technical paper "Computer Configuration Profile Payload: JSON Schema". A form is for whoever
wants to change values in the console; the profiles and property lists of `macos/` say the same without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.managed import DOMAIN as AGENT_DOMAIN
from llmgw_mdm import pin, policy, scripts, shapes
from llmgw_mdm.artefact import Artefact
from llmgw_mdm.places import CLAUDE_DOMAIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_mdm.organization import Organization

TYPES: Final = {bool: "boolean", int: "integer", float: "number", str: "string"}
MEANINGS: Final = {
    "apiKeyHelper": "Command that prints a person's token: llmgw-token by its whole path.",
    "allowedProviders": "Only the address that is pinned in env. Leave it as it is.",
    "requiredMinimumVersion": "Older clients do not start.",
    "env": "The full pin: every variable that a repository could set otherwise. Leave blank ones in, and blank.",
    "availableModels": "What can be chosen.",
    "companyAnnouncements": "Lines that are shown when Claude Code starts.",
    "gateway_url": "The gateway: scheme, host and port.",
    "ca_file": "PEM file of an authority that Macs do not trust anyway.",
    "sign_in_methods": "Ways to sign in that are allowed: browser, paste, device.",
    "forward_port": "Where the forwarder listens on 127.0.0.1; 0: nowhere.",
    "project_redirects": "A project that redirects its token: refuse, or log.",
} | {name: f"Without it: {each.effect}." for each in pin.VARIANTS for name in each.closed_by}
"""What a form says beside a field."""


def artefacts(org: Organization) -> Iterator[Artefact]:
    """The forms, and how a policy takes away what no profile has brought. Nothing without Macs."""
    if "macos" not in org.platforms:
        return
    for domain, title, document in (
        (CLAUDE_DOMAIN, "Claude Code", policy.claude_code(org, "macos")),
        (AGENT_DOMAIN, "llmgw agent", policy.agent(org, "macos")),
    ):
        yield Artefact(
            f"jamf/{domain}.schema.json",
            shapes.as_json(schema(document, f"{title} ({org.name})", domain)),
            f"{title}: custom schema for the preference domain `{domain}`, for a form instead of a profile",
        )
    yield Artefact(
        "jamf/extension-attribute.sh",
        scripts.audit("tag", org.helpers["macos"], org.gateway_url),
        "extension attribute of type string: `in force`, `not in force` or `agent missing`",
        is_script=True,
    )


def schema(document: dict[str, Any], title: str, domain: str) -> dict[str, Any]:
    """A form whose fields are those of a document, each with the document's value as default."""
    return {"title": title, "description": f"Preference domain: {domain}", "properties": _fields(document)}


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    return {key: _field(key, value, order * 5) for order, (key, value) in enumerate(document.items(), start=1)}


def _field(key: str, value: object, order: int) -> dict[str, Any]:
    found: dict[str, Any] = {"title": key, "description": MEANINGS.get(key, "As Claude Code documents it.")}
    found["property_order"] = order
    if isinstance(value, dict):
        return found | {"type": "object", "properties": _fields(value)}
    if isinstance(value, list):
        return found | {"type": "array", "items": _items(value), "default": value}
    return found | {"type": TYPES[type(value)], "default": value}


def _items(values: list[Any]) -> dict[str, Any]:
    first = values[0] if values else ""
    if isinstance(first, dict):
        return {"type": "object", "properties": _fields(first)}
    return {"type": TYPES[type(first)]}
