r"""An organisation's settings for Windows as an `.msi` of its own, beside the agent's.

Claude Code gets them in one place: a drop-in below Program Files, which merges with other files; or, for
`POLICY=registry`, the registry's policy, which makes it pass over every file. An upgrade keeps to what was chosen. The
agent reads its own from `HKLM\SOFTWARE\Policies\llmgw`. Windows knows no dependencies: this installer wants to find the
helper, and the agent's does not go before this one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from llmgw_mdm import policy, shapes
from llmgw_mdm.organization import load, package_name
from llmgw_mdm.places import AGENT_KEY, DESKTOP_KEY, DROP_IN
from llmgw_packaging import installation, msi
from llmgw_packaging.installation import PROGRAM_FILES
from llmgw_packaging.organization import check_helper, dated
from llmgw_packaging.tree import Tree
from llmgw_packaging.windows import HELPER, HOME, ORGANIZATION_KEY, RAW_VALUE

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_mdm.organization import Organization
    from llmgw_packaging.release import Release

FOLDER: Final = "ClaudeCode/managed-settings.d"
ROOT: Final = "HKEY_LOCAL_MACHINE\\"
GOES: Final = 'REMOVE~="ALL"'
IN_REGISTRY: Final = 'POLICY~="registry" OR (NOT POLICY AND CHOSEN="registry")'
IN_FILE: Final = f"{GOES} OR NOT ({IN_REGISTRY})"
"""Whatever was chosen: it is removed wherever it is."""
NO_HELPER: Final = f"Claude Code would be set to run {HELPER}, which is not there. Install llmgw first."
NO_PLACE: Final = "POLICY is either file or registry, and is chosen when another version is installed."


def product(org_file: Path, release: Release) -> tuple[installation.Product, Organization]:
    """What is installed for an organisation; ConfigurationError if its file is wrong, or names another helper."""
    org = load(org_file)
    check_helper(org, "windows", HELPER)
    tree = Tree()
    tree.put(f"{FOLDER}/{DROP_IN}", shapes.as_json(policy.claude_code(org, "windows")))
    release = dated(org_file, release)
    name, number = package_name(org.identifier), version(release.epoch)
    found = installation.Product(
        file_name=f"{name}-{number}-x64.msi",
        name=f"llmgw settings: {org.name}",
        release=release,
        version=number,
        family=name,
        tree=tree,
        conditions={FOLDER: IN_FILE},
    )
    return found, org


def build(found: installation.Product, org: Organization) -> bytes:
    """The installer. ToolError if it cannot be built here."""
    database, laid = installation.describe(found)
    folder = laid.directories["ClaudeCode"]

    def put(name: str, condition: str, key: str, rows: installation.Values) -> None:
        installation.put_registry(database, name, condition, key, rows, folder)

    in_registry = f"{GOES} OR {IN_REGISTRY}"
    claude = shapes.as_one_line(policy.claude_code(org, "windows"))
    put("Mark", "", ORGANIZATION_KEY, {"Package": found.name})
    put("InFile", IN_FILE, ORGANIZATION_KEY, {"Policy": "file"})
    put("InRegistry", in_registry, ORGANIZATION_KEY, {"Policy": "registry"})
    put("Policy", in_registry, shapes.REGISTRY_KEY.removeprefix(ROOT), {shapes.REGISTRY_VALUE: claude})
    put("Agent", "", AGENT_KEY.removeprefix(ROOT), policy.agent(org, "windows"))
    if org.desktop is not None:
        put("Desktop", "", DESKTOP_KEY.removeprefix(ROOT), policy.claude_desktop(org, "windows"))
    database.add("AppSearch", ("CHOSEN", "ChosenValue"), ("HELPER", "HelperFile"))
    database.add("RegLocator", ("ChosenValue", installation.MACHINE, ORGANIZATION_KEY, "Policy", RAW_VALUE))
    database.add("Signature", ("HelperFile", "llmgw-token.exe", "", "", "", "", "", "", ""))
    database.add("DrLocator", ("HelperFile", "", f"[{PROGRAM_FILES}]{HOME}\\", 0))
    database.add(
        "LaunchCondition",
        (f"{GOES} OR HELPER", NO_HELPER),
        ('NOT POLICY OR (NOT Installed AND (POLICY~="file" OR POLICY~="registry"))', NO_PLACE),
    )
    installation.secure(database, "CHOSEN", "HELPER", "POLICY")
    return msi.build(database, *installation.finished(found, laid))


def version(epoch: int) -> str:
    """The time of the build as the installer can compare it: year, month, and minute of the month."""
    when = datetime.fromtimestamp(epoch, UTC)
    minute = ((when.day - 1) * 24 + when.hour) * 60 + when.minute
    return f"{when.year - 2000}.{when.month}.{minute}"
