"""One document in the forms that systems read: JSON, TOML, property list, configuration profile, registry file.

Each form has one deterministic spelling, so that two renderings of the same file are the same bytes. Pure.
"""

from __future__ import annotations

import json
import plistlib
import uuid
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REGISTRY_KEY: Final = r"HKEY_LOCAL_MACHINE\SOFTWARE\Policies\ClaudeCode"
REGISTRY_VALUE: Final = "Settings"
LABEL_PREFIX: Final = "com.llmgw."
"""Begins the name of each launchd job of ours."""
REGISTRY_HEAD: Final = "Windows Registry Editor Version 5.00"


def as_json(document: dict[str, Any]) -> bytes:
    """JSON for people to read."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def as_toml(document: dict[str, Any]) -> bytes:
    """TOML of one level: strings, whole numbers, lists of strings. A JSON string is a TOML string."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in document.items()).encode()


def as_plist(document: dict[str, Any]) -> bytes:
    """A property list: the bare keys, for consoles that ask for a preference domain beside it."""
    return plistlib.dumps(document, sort_keys=True)


def as_profile(
    document: dict[str, Any], *, domain: str, organization: str, identifier: str, title: str, description: str
) -> bytes:
    """A configuration profile (`.mobileconfig`) that forces a preference domain.

    The payload type is the one in which only settings lie in the domain; with the domain itself as type, the profile's
    own bookkeeping would be read as settings. Identifiers and UUIDs never change: a newer profile replaces the older.
    """
    kind = "com.apple.ManagedClient.preferences"
    content = {"PayloadContent": {domain: {"Forced": [{"mcx_preference_settings": document}]}}}
    about = {"organization": organization, "title": title, "description": description}
    return _profile(kind, content, prefix=identifier, name=domain, **about)


def as_background_profile(*, organization: str, identifier: str) -> bytes:
    """A profile that keeps people from switching the agent off among the login items.

    It stands alone: macOS takes this payload from an MDM only, and settings must be installable by hand for a try.
    """
    rule = {"RuleType": "LabelPrefix", "RuleValue": LABEL_PREFIX, "Comment": "llmgw agent"}
    return _profile(
        "com.apple.servicemanagement",
        {"Rules": [rule]},
        prefix=identifier,
        name="com.llmgw.background",
        organization=organization,
        title=f"llmgw agent: login item ({organization})",
        description="Lets the llmgw agent start at sign-in.",
    )


def _profile(
    kind: str, content: dict[str, Any], *, prefix: str, name: str, organization: str, title: str, description: str
) -> bytes:
    payload = f"{prefix}.{name}"
    inner = content | {
        "PayloadDisplayName": title,
        "PayloadEnabled": True,
        "PayloadIdentifier": f"{payload}.settings",
        "PayloadType": kind,
        "PayloadUUID": stable_uuid(prefix, f"{payload}.settings"),
        "PayloadVersion": 1,
    }
    return plistlib.dumps(
        {
            "PayloadContent": [inner],
            "PayloadDescription": description,
            "PayloadDisplayName": title,
            "PayloadIdentifier": payload,
            "PayloadOrganization": organization,
            "PayloadRemovalDisallowed": True,
            "PayloadScope": "System",
            "PayloadType": "Configuration",
            "PayloadUUID": stable_uuid(prefix, payload),
            "PayloadVersion": 1,
        },
        sort_keys=True,
    )


def stable_uuid(identifier: str, name: str) -> str:
    """A UUID (RFC 9562, version 5) of this name within an organisation, in the capitals that Apple's tools write."""
    domain = ".".join(reversed(identifier.lower().split(".")))
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, domain), name)).upper()


def as_one_line(document: dict[str, Any]) -> str:
    """JSON on one line, in ASCII: the registry's value."""
    return json.dumps(document, separators=(",", ":"))


def as_registry(values: Mapping[str, str | int | list[str]], key: str = REGISTRY_KEY) -> bytes:
    """A `.reg` file that sets values under a key: REG_SZ, REG_DWORD, REG_MULTI_SZ."""
    return _registry(key, [f'"{name}"={_registry_value(value)}' for name, value in values.items()])


def _registry_value(value: str | int | list[str]) -> str:
    if isinstance(value, str):
        return f'"{_escaped(value)}"'
    if isinstance(value, int):
        return f"dword:{value:08x}"
    content = "".join(f"{each}\0" for each in [*value, ""]).encode("utf-16-le")
    return "hex(7):" + content.hex(",")


def registry_removal(names: Iterable[str], key: str = REGISTRY_KEY) -> bytes:
    """A `.reg` file that takes them away; what others have set under the same key stays."""
    return _registry(key, [f'"{name}"=-' for name in names])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _registry(key: str, lines: list[str]) -> bytes:
    # With the mark and the line ends that regedit itself writes.
    return b"\xff\xfe" + "\r\n".join([REGISTRY_HEAD, "", f"[{key}]", *lines, "", ""]).encode("utf-16-le")
