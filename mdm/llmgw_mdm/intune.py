"""For Microsoft Intune: scripts for Macs, and for Windows scripts and a custom configuration ("OMA-URI"). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmgw_mdm import group_policy, intunewin, powershell, scripts, shapes
from llmgw_mdm.artefact import Artefact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_mdm.organization import Organization


PURPOSES: Final = {
    "detect.ps1": "detection script of a remediation or of a Win32 app",
    "remediate.ps1": "its remediation script, or the app's install command",
    "remove.ps1": "the app's uninstall command, or a platform script that takes it away",
}


def artefacts(org: Organization) -> Iterator[Artefact]:
    """What Intune takes beside the profiles and templates that every MDM takes."""
    if "macos" in org.platforms:
        yield Artefact(
            "intune/macos-custom-attribute.sh",
            scripts.audit("line", org.helpers["macos"], org.gateway_url),
            "custom attribute of type string: `in force`, `not in force` or `agent missing`",
            is_script=True,
        )
    if "windows" in org.platforms:
        yield from _windows(org)


def _windows(org: Organization) -> Iterator[Artefact]:
    helper, wanted = org.helpers["windows"], group_policy.settings(org)
    found = {
        "detect.ps1": powershell.detect(helper, wanted),
        "remediate.ps1": powershell.remediate(helper, wanted),
        "remove.ps1": powershell.remove(),
    }
    for name, purpose in PURPOSES.items():
        yield Artefact(f"intune/{name}", found[name], f"Claude Code's registry value: {purpose}")
    inside = {name: content for name, content in found.items() if name != "detect.ps1"}
    yield Artefact(
        "intune/llmgw-claude-code.intunewin",
        intunewin.package(f"Claude Code ({org.name})", "remediate.ps1", inside),
        "the same as a Win32 app, with remediate.ps1 and remove.ps1 in it",
    )
    yield Artefact(
        "intune/oma-uri.json",
        shapes.as_json(custom_configuration(org, wanted)),
        "the same as a custom configuration: two OMA-URIs of type string, as Microsoft Graph takes them",
    )


def custom_configuration(org: Organization, wanted: str) -> dict[str, Any]:
    """The template and the policy's value, as the body of a Graph request; the console wants the same by hand."""
    rows = (
        ("Claude Code: template", group_policy.INSTALL_URI, group_policy.admx().decode()),
        ("Claude Code: settings", group_policy.VALUE_URI, group_policy.enabled(wanted)),
    )
    return {
        "@odata.type": "#microsoft.graph.windows10CustomConfiguration",
        "displayName": f"Claude Code ({org.name})",
        "description": f"Leads Claude Code to {org.gateway_url}.",
        "omaSettings": [
            {"@odata.type": "#microsoft.graph.omaSettingString", "displayName": name, "omaUri": uri, "value": value}
            for name, uri, value in rows
        ],
    }
