"""`llmgw mdm render`: every artefact for an organisation, and how each is put on a laptop and taken off again."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.errors import ConfigurationError
from llmgw_agent.managed import DOMAIN as AGENT_DOMAIN
from llmgw_mdm import ansible, codex, group_policy, intune, iru, jamf, pipelines, policy, scripts, shapes, workspace_one
from llmgw_mdm.artefact import Artefact
from llmgw_mdm.places import AGENT_KEY, CLAUDE_DOMAIN, DESKTOP_DOMAIN, DESKTOP_KEY, DROP_IN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmgw_mdm.organization import Organization

SUMS: Final = "SHA256SUMS"
VSCODE: Final = {"claudeCode.disableLoginPrompt": True}
"""Its extension asks for an account before it starts the client, which alone reads managed settings."""
VSCODE_PURPOSE: Final = (
    "VS Code with Claude Code's extension: for `customizations.vscode.settings` of a dev container, "
    "`Machine/settings.json` of a server, or a profile; take the line out again to remove"
)
READABLE: Final = 0o644
RUNNABLE: Final = 0o755


def artefacts(org: Organization) -> list[Artefact]:
    """Everything for the platforms that an organisation has. The same organisation gives the same bytes."""
    makers = {"linux": _linux, "macos": _macos, "windows": _windows}
    found = [each for platform in org.platforms for each in makers[platform](org)]
    found += [_audit(org, platform) for platform in org.platforms if platform != "windows"]
    found += _consoles(org, found)
    return [*found, Artefact("README.md", _listing(org, found), "this list")]


def write(found: Sequence[Artefact], folder: Path) -> None:
    """Put them into `folder`, with their checksums, in place of what an earlier rendering left there.

    ConfigurationError if the folder holds anything else: nothing of somebody's is ever deleted.
    """
    if folder.exists() and not (folder / SUMS).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} holds something else than an earlier rendering", "Name an empty folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".llmgw-"))
        try:
            _fill(fresh, found)
            if folder.exists():
                shutil.rmtree(folder)
            fresh.rename(folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written ({error.strerror})", "Check who owns it") from None


def _fill(folder: Path, found: Sequence[Artefact]) -> None:
    folder.chmod(RUNNABLE)
    for each in found:
        path = folder / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each.content)
        path.chmod(RUNNABLE if each.is_script else READABLE)
    sums = "".join(f"{hashlib.sha256(each.content).hexdigest()}  {each.path}\n" for each in sorted(found, key=_path))
    (folder / SUMS).write_text(sums, encoding="utf-8")
    getattr(os, "sync", bool)()  # Windows has none


def _path(each: Artefact) -> str:
    return each.path


def _linux(org: Organization) -> Iterator[Artefact]:
    claude, agent = shapes.as_json(policy.claude_code(org, "linux")), shapes.as_toml(policy.agent(org, "linux"))
    yield Artefact(
        "linux/managed-settings.json",
        claude,
        "Claude Code: `/etc/claude-code/managed-settings.json`, if there is no other",
    )
    yield Artefact(
        f"linux/{DROP_IN}",
        claude,
        f"the same as a drop-in: `/etc/claude-code/managed-settings.d/{DROP_IN}`; prefer this",
    )
    yield Artefact("linux/managed.toml", agent, "our agent: `/etc/llmgw/managed.toml`")
    files = [("/etc/llmgw/managed.toml", agent), (f"/etc/claude-code/managed-settings.d/{DROP_IN}", claude)]
    yield Artefact(
        "linux/install.sh", scripts.install(files), "puts drop-in and agent settings there, as root", is_script=True
    )
    yield Artefact("linux/remove.sh", scripts.remove(files), "takes both away again", is_script=True)
    if "codex" in org.tools:
        yield from codex.linux(org)


def _macos(org: Organization) -> Iterator[Artefact]:
    claude, agent = policy.claude_code(org, "macos"), policy.agent(org, "macos")
    about = {"organization": org.name, "identifier": org.identifier}
    managed: list[tuple[str, dict[str, Any], str]] = [
        (CLAUDE_DOMAIN, claude, "Claude Code"),
        (AGENT_DOMAIN, agent, "llmgw agent"),
    ]
    if org.desktop is not None:
        managed.append((DESKTOP_DOMAIN, policy.claude_desktop(org, "macos"), "Claude Desktop"))
    if "codex" in org.tools:
        managed.append((codex.DOMAIN, codex.preferences(org), "Codex"))
    for domain, document, title in managed:
        profile = shapes.as_profile(
            document,
            domain=domain,
            title=f"{title} ({org.name})",
            description=f"Managed settings of {title}. They lead it to {org.gateway_url}.",
            **about,
        )
        yield Artefact(f"macos/{domain}.mobileconfig", profile, f"{title}: a configuration profile for any MDM")
        yield Artefact(
            f"macos/{domain}.plist",
            shapes.as_plist(document),
            f"{title}: the bare keys, for a console that asks for the domain `{domain}`",
        )
    yield Artefact(
        "macos/background-item.mobileconfig",
        shapes.as_background_profile(**about),
        "keeps the agent among the login items; only an MDM can install it",
    )
    file = shapes.as_json(claude)
    folder = "/Library/Application Support/ClaudeCode"
    yield Artefact("macos/managed-settings.json", file, f"Claude Code without an MDM: `{folder}/managed-settings.json`")
    yield Artefact(f"macos/{DROP_IN}", file, f"the same as a drop-in: `{folder}/managed-settings.d/{DROP_IN}`")
    files = [(f"{folder}/managed-settings.d/{DROP_IN}", file)]
    yield Artefact("macos/install.sh", scripts.install(files), "puts the drop-in there, as root", is_script=True)
    profiles = [f"{org.identifier}.{domain}" for domain, _, _ in managed]
    removal = scripts.remove(files, profiles)
    yield Artefact(
        "macos/remove.sh", removal, "takes away the drop-in, and profiles that were installed by hand", is_script=True
    )


def _audit(org: Organization, platform: str) -> Artefact:
    content = scripts.audit("status", org.helpers[platform], org.gateway_url)
    purpose = "exit code 0 if the policy is in force, else 1, with one line: for any agent that runs scripts"
    return Artefact(f"{platform}/audit.sh", content, purpose, is_script=True)


def _consoles(org: Organization, found: Sequence[Artefact]) -> Iterator[Artefact]:
    """What single products want beyond what all of them take."""
    ending = ".mobileconfig"
    profiles = {each.path.removeprefix("macos/"): each.content for each in found if each.path.endswith(ending)}
    yield from jamf.artefacts(org)
    yield from iru.artefacts(org, profiles)
    yield from intune.artefacts(org)
    yield from group_policy.artefacts(org)
    yield from workspace_one.artefacts(org, profiles)
    yield from ansible.artefacts(org)
    yield from pipelines.artefacts(org)
    if "vscode" in org.tools:
        yield Artefact("vscode/settings.json", shapes.as_json(VSCODE), VSCODE_PURPOSE)


def _windows(org: Organization) -> Iterator[Artefact]:
    claude = policy.claude_code(org, "windows")
    folder = r"C:\Program Files\ClaudeCode"
    yield Artefact(
        "windows/claude-code.reg",
        shapes.as_registry({shapes.REGISTRY_VALUE: shapes.as_one_line(claude)}),
        f"Claude Code: `{shapes.REGISTRY_KEY}`; read before any file",
    )
    yield Artefact(
        "windows/claude-code-remove.reg", shapes.registry_removal([shapes.REGISTRY_VALUE]), "takes the value away again"
    )
    yield Artefact(
        "windows/managed-settings.json",
        shapes.as_json(claude),
        f"Claude Code: `{folder}\\managed-settings.json`, if there is no other",
    )
    yield Artefact(
        f"windows/{DROP_IN}",
        shapes.as_json(claude),
        f"the same as a drop-in: `{folder}\\managed-settings.d\\{DROP_IN}`",
    )
    agent = policy.agent(org, "windows")
    yield Artefact("windows/llmgw-agent.reg", shapes.as_registry(agent, AGENT_KEY), f"our agent: `{AGENT_KEY}`")
    yield Artefact(
        "windows/llmgw-agent-remove.reg", shapes.registry_removal(agent, AGENT_KEY), "takes these values away again"
    )
    if org.desktop is not None:
        desktop = policy.claude_desktop(org, "windows")
        yield Artefact(
            "windows/claude-desktop.reg",
            shapes.as_registry(desktop, DESKTOP_KEY),
            f"Claude Desktop: `{DESKTOP_KEY}`",
        )
        yield Artefact(
            "windows/claude-desktop-remove.reg",
            shapes.registry_removal(desktop, DESKTOP_KEY),
            "takes these values away again",
        )
    files = [f"{folder}\\managed-settings.d\\{DROP_IN}"]
    yield Artefact("windows/remove.cmd", scripts.remove_on_windows(files), "takes the drop-in away again")


LISTING: Final = """# Managed settings of {name}

Rendered by `llmgw mdm render` for the gateway {gateway}. Do not edit these files: change `org.toml` and
render again. `llmgw mdm lint FILE` checks settings of Claude Code and of the agent, `llmgw mdm show` tells on a laptop
what is in force. The folders `linux`, `macos` and `windows` hold what every tool takes; each other is for a product.

Deliver Claude Code's settings once: by profile or registry where there is an MDM, else as a drop-in. If another
profile or registry value for Claude Code exists, files are passed over: put these keys into it instead. Take Claude
Code's settings off a laptop before the agent: without its helper, Claude Code cannot work.

| File | What it is |
|---|---|
{rows}"""


def _listing(org: Organization, found: Sequence[Artefact]) -> bytes:
    rows = "".join(f"| `{each.path}` | {each.purpose} |\n" for each in found)
    return LISTING.format(name=org.name, gateway=org.gateway_url, rows=rows).encode()
