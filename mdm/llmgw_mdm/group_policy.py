"""Windows policy templates (ADMX, ADML), and how MDMs take them in (the Policy CSP's ADMX ingestion). Pure.

A template of its own in every respect: it names no other namespace, because Intune refuses one whose parent it was not
given, and it declares a `maxLength`, because 1,023 characters are the default. Claude Code reads one value of the
registry, a line of JSON: so there is one policy with one text.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from llmgw_agent.errors import ConfigurationError
from llmgw_mdm import policy, shapes
from llmgw_mdm.artefact import Artefact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_mdm.organization import Organization

SCHEMA: Final = "http://schemas.microsoft.com/GroupPolicy/2006/07/PolicyDefinitions"
NAME: Final = "llmgw-claude-code"
APP: Final = "llmgw"
CATEGORY: Final = "ClaudeCode"
POLICY: Final = "Settings"
ELEMENT: Final = "SettingsText"
MOST_LETTERS: Final = 65535
INSTALL_URI: Final = f"./Device/Vendor/MSFT/Policy/ConfigOperations/ADMXInstall/{APP}/Policy/{NAME}"
VALUE_URI: Final = f"./Device/Vendor/MSFT/Policy/Config/{APP}~Policy~{CATEGORY}/{POLICY}"


def artefacts(org: Organization) -> Iterator[Artefact]:
    """Template and texts for the Central Store, or for Intune's import. Nothing without Windows.

    ConfigurationError if the settings are longer than a policy's text may be.
    """
    if "windows" not in org.platforms:
        return
    yield Artefact(f"gpo/{NAME}.admx", admx(), "policy template: `PolicyDefinitions`, or imported into Intune")
    yield Artefact(
        f"gpo/en-US/{NAME}.adml",
        adml(settings(org)),
        "its texts, with your settings as the default: `PolicyDefinitions\\en-US`",
    )


def settings(org: Organization) -> str:
    """Claude Code's settings as the policy's text. ConfigurationError if they are too long."""
    found = shapes.as_one_line(policy.claude_code(org, "windows"))
    if len(found) > MOST_LETTERS:
        raise ConfigurationError(
            f"Claude Code's settings for Windows are {len(found)} characters, and a policy holds {MOST_LETTERS}",
            "Shorten claude_code.settings or claude_code.announcements in org.toml",
        )
    return found


def admx() -> bytes:
    """The template: the same for every organisation."""
    root = _root("policyDefinitions")
    spaces = ET.SubElement(root, "policyNamespaces")
    ET.SubElement(spaces, "target", prefix=APP, namespace="com.llmgw.policies.claudecode")
    ET.SubElement(root, "resources", minRequiredRevision="1.0")
    supported = ET.SubElement(ET.SubElement(root, "supportedOn"), "definitions")
    ET.SubElement(supported, "definition", name="SUPPORTED_ClaudeCode", displayName="$(string.Supported)")
    ET.SubElement(ET.SubElement(root, "categories"), "category", name=CATEGORY, displayName="$(string.Category)")
    about = {
        "name": POLICY,
        "class": "Machine",
        "displayName": "$(string.Policy)",
        "explainText": "$(string.Explain)",
        "presentation": "$(presentation.Settings)",
        "key": shapes.REGISTRY_KEY.removeprefix("HKEY_LOCAL_MACHINE\\"),
    }
    found = ET.SubElement(ET.SubElement(root, "policies"), "policy", about)
    ET.SubElement(found, "parentCategory", ref=CATEGORY)
    ET.SubElement(found, "supportedOn", ref="SUPPORTED_ClaudeCode")
    text = {"id": ELEMENT, "valueName": shapes.REGISTRY_VALUE, "required": "true", "maxLength": str(MOST_LETTERS)}
    ET.SubElement(ET.SubElement(found, "elements"), "text", text)
    return _written(root)


def adml(text: str) -> bytes:
    """The English texts, with an organisation's settings as what the form is filled in with."""
    root = _root("policyDefinitionResources")
    ET.SubElement(root, "displayName").text = "Claude Code by llmgw"
    ET.SubElement(root, "description").text = "Managed settings of Claude Code"
    resources = ET.SubElement(root, "resources")
    table = ET.SubElement(resources, "stringTable")
    for name, value in {
        "Supported": "Claude Code on Windows 10, Windows 11 and Windows Server",
        "Category": "Claude Code",
        "Policy": "Managed settings",
        "Explain": (
            "Leads Claude Code to the company's gateway.\n\n"
            "Enabled: the text is written to the registry, and Claude Code reads it before any file.\n"
            "Disabled or not configured: the value is taken away. Do this before the agent is removed."
        ),
    }.items():
        ET.SubElement(table, "string", id=name).text = value
    form = ET.SubElement(ET.SubElement(resources, "presentationTable"), "presentation", id="Settings")
    box = ET.SubElement(form, "textBox", refId=ELEMENT)
    ET.SubElement(box, "label").text = "Settings (JSON, one line):"
    ET.SubElement(box, "defaultValue").text = text
    return _written(root)


def enabled(text: str) -> str:
    """The policy's value as the Policy CSP takes it."""
    return f"<enabled/><data id={quoteattr(ELEMENT)} value={_attribute(text)}/>"


def _attribute(text: str) -> str:
    # Always in double quotes: the JSON inside is full of them, and readers of this string are picky.
    return '"' + escape(text, {'"': "&quot;"}) + '"'


def _root(tag: str) -> ET.Element:
    return ET.Element(tag, {"xmlns": SCHEMA, "revision": "1.0", "schemaVersion": "1.0"})


def _written(root: ET.Element) -> bytes:
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()
