"""For Workspace ONE UEM: custom settings for Macs and Windows, what takes them away, and sensors. Pure.

On Windows they are two profiles, the template first: a policy whose template is not there yet is refused, and the order
of commands within one profile is not promised.
"""

from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from llmgw_mdm import group_policy, powershell, scripts, shapes
from llmgw_mdm.artefact import Artefact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmgw_mdm.organization import Organization


def artefacts(org: Organization, profiles: Mapping[str, bytes]) -> Iterator[Artefact]:
    """Everything for the console; `profiles` are the content of each profile for Macs, by its file name."""
    if "macos" in org.platforms:
        for file, content in profiles.items():
            name = file.removesuffix(".mobileconfig")
            purpose = "custom settings payload for Macs: paste it whole; the profile is removed with it"
            yield Artefact(f"workspace-one/macos-{name}.xml", payload(content), purpose)
        sensor = scripts.audit("line", org.helpers["macos"], org.gateway_url)
        yield Artefact("workspace-one/macos-sensor.sh", sensor, "sensor of type string, language Bash", is_script=True)
    if "windows" in org.platforms:
        yield from _windows(org)


def payload(profile: bytes) -> bytes:
    """The one payload of a profile, as a bare `<dict>`: the console builds its own profile around it."""
    content: dict[str, object] = plistlib.loads(profile)["PayloadContent"][0]
    text = plistlib.dumps(content, sort_keys=True).decode()
    return (text[text.index("<dict>") : text.rindex("</dict>")] + "</dict>\n").encode()


def _windows(org: Organization) -> Iterator[Artefact]:
    wanted = group_policy.settings(org)
    template = group_policy.admx().decode()
    for name, order, uri, value in (
        ("template", "first", group_policy.INSTALL_URI, template),
        ("settings", "second", group_policy.VALUE_URI, group_policy.enabled(wanted)),
    ):
        verb = "Add" if name == "template" else "Replace"
        yield Artefact(
            f"workspace-one/windows-{name}-install.xml",
            command(org, verb, uri, value),
            f"custom settings profile for Windows, the {order} of two: install settings",
        )
        yield Artefact(f"workspace-one/windows-{name}-remove.xml", command(org, "Delete", uri), "its remove settings")
    sensor = powershell.sensor(org.helpers["windows"], wanted)
    yield Artefact("workspace-one/windows-sensor.ps1", sensor, "sensor of type string, language PowerShell")


def command(org: Organization, verb: str, uri: str, value: str | None = None) -> bytes:
    """One SyncML command; a Delete has no value."""
    data = f"<Data>{escape(value)}</Data>" if value is not None else ""
    meta = '<Meta><Format xmlns="syncml:metinf">chr</Format><Type xmlns="syncml:metinf">text/plain</Type></Meta>'
    return (
        f"<{verb}>\n"
        f"  <CmdID>{shapes.stable_uuid(org.identifier, f'{verb} {uri}').lower()}</CmdID>\n"
        f"  <Item><Target><LocURI>{escape(uri)}</LocURI></Target>{meta if data else ''}{data}</Item>\n"
        f"</{verb}>\n"
    ).encode()
