"""An organisation's settings as a package of their own, beside the agent's.

Claude Code must never be told to run a helper that is not there: this package depends on the agent, so package tools
install it after the agent and remove it before. Its files are no conffiles: those would stay when it is removed, and
what an organisation manages is not for the machine's administrator to edit in place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from llmgw_agent.errors import ConfigurationError
from llmgw_mdm.organization import load, package_name
from llmgw_mdm.places import DROP_IN
from llmgw_mdm.render import artefacts
from llmgw_packaging.agent import HOME
from llmgw_packaging.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_mdm.organization import Organization
    from llmgw_packaging.release import Release

HELPER: Final = f"/{HOME}/bin/llmgw-token"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is installed for an organisation."""

    name: str
    """Of the package."""
    organization: Organization
    tree: Tree
    release: Release


def build(org_file: Path, release: Release) -> Settings:
    """The settings that an org.toml describes for Linux. ConfigurationError if it is wrong, or names another helper.

    They change more often than the agent and have versions of their own: their time.
    """
    org = load(org_file)
    check_helper(org, "linux", HELPER)
    rendered = {each.path: each.content for each in artefacts(org)}
    release = dated(org_file, release)
    release = replace(release, version=datetime.fromtimestamp(release.epoch, UTC).strftime("%Y%m%d.%H%M%S"))
    tree = Tree()
    tree.put(f"etc/claude-code/managed-settings.d/{DROP_IN}", rendered[f"linux/{DROP_IN}"])
    tree.put("etc/llmgw/managed.toml", rendered["linux/managed.toml"])
    return Settings(package_name(org.identifier), org, tree, release)


def check_helper(org: Organization, platform: str, helper: str) -> None:
    """ConfigurationError unless the organisation has this platform and the helper that the agent's package installs."""
    if platform not in org.platforms or org.helpers[platform] != helper:
        raise ConfigurationError(
            f"org.toml does not use the helper of the package for {platform}", f"Name {helper} as helper.{platform}"
        )


def dated(org_file: Path, release: Release) -> Release:
    """The release at the time of the file's last change, if that is later: so a changed file is always an upgrade."""
    return replace(release, epoch=max(release.epoch, int(org_file.stat().st_mtime)))
