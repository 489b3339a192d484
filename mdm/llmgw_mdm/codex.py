"""For Codex: its managed configuration, as a file for Linux and as the domain of a profile for macOS. Pure.

Observed of Codex 0.169.0: `/etc/codex/managed_config.toml` is laid over the user's file, key by key, and over `-c` on
its command line, too; the provider's `auth` command is started without a shell, and what it prints is the bearer.
It offers models two kinds of tools that the gateway refuses; both are switched off.
On macOS the same text lies, in base64, in the domain's `config_toml_base64` (its vendor's documentation).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.checks import failed, passed
from llmgw_agent.claude_code import MOST_LIFE_MS
from llmgw_agent.settings import url_fault
from llmgw_mdm import scripts
from llmgw_mdm.artefact import Artefact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_agent.checks import Check
    from llmgw_mdm.organization import Organization

DOMAIN: Final = "com.openai.codex"
KEY: Final = "config_toml_base64"
PATH: Final = "/etc/codex/managed_config.toml"
FILE: Final = PATH.rpartition("/")[2]
PROVIDER: Final = "llmgw"
MARK: Final = "# Rendered by llmgw mdm render: change org.toml and render again."
CONFIGURATION: Final = """{mark}
model_provider = "{provider}"
{model}# What the gateway cannot serve: a search on OpenAI's servers, and tools in namespaces.
web_search = "disabled"

[features]
multi_agent = false

[model_providers.{provider}]
name = {name}
base_url = {address}
wire_api = "responses"

[model_providers.{provider}.auth]
command = {helper}
timeout_ms = 10000
refresh_interval_ms = {life}
"""


def configuration(org: Organization, platform: str) -> bytes:
    """What Codex is told: one provider, and the helper that gives its token."""
    model = f"model = {json.dumps(org.codex_model)}\n" if org.codex_model else ""
    return CONFIGURATION.format(
        mark=MARK,
        provider=PROVIDER,
        model=model,
        name=json.dumps(org.name, ensure_ascii=False),
        address=json.dumps(f"{org.gateway_url}/openai/v1"),
        helper=json.dumps(org.helpers[platform]),
        life=org.claude.life_seconds * 1000,
    ).encode()


def preferences(org: Organization) -> dict[str, Any]:
    """The same as a preference domain of macOS."""
    return {KEY: base64.b64encode(configuration(org, "macos")).decode()}


def linux(org: Organization) -> Iterator[Artefact]:
    """The file, and scripts that put it there and take it away; they leave one alone that is somebody else's."""
    content = configuration(org, "linux")
    yield Artefact(f"linux/codex/{FILE}", content, f"Codex: `{PATH}`")
    install, remove = scripts.install_marked(PATH, content, MARK), scripts.remove_marked(PATH, MARK)
    yield Artefact("linux/codex/install.sh", install, "puts it there, as root, unless it is yours", is_script=True)
    yield Artefact("linux/codex/remove.sh", remove, "takes it away again, unless it is yours", is_script=True)


def judge(document: dict[str, Any]) -> Iterator[Check]:
    """Every check of a managed configuration, whoever wrote it."""
    fix = "Render it with: llmgw mdm render (docs/mdm.md)"
    name = document.get("model_provider")
    providers = document.get("model_providers")
    provider = providers.get(name) if isinstance(providers, dict) and isinstance(name, str) else None
    if not isinstance(provider, dict):
        found = f"model_provider is {name!r}, which is not described: each user's own file decides"
        yield failed("codex", found, "a provider with address and auth", fix)
        return
    auth = provider.get("auth")
    auth = auth if isinstance(auth, dict) else {}
    fault = url_fault(str(provider.get("base_url", "")))
    faults = [f"model_providers.{name}.base_url {fault}"] if fault else []
    if not str(auth.get("command", "")).startswith("/"):
        faults.append(f"model_providers.{name}.auth.command is no whole path: it is started without a shell")
    life = auth.get("refresh_interval_ms")
    if not isinstance(life, int) or not 0 < life <= MOST_LIFE_MS:
        faults.append(f"model_providers.{name}.auth.refresh_interval_ms is {life}: tokens that have ended are sent")
    for each in faults:
        yield failed("codex", each, f"https, a whole path, at most {MOST_LIFE_MS} ms", fix)
    if not faults:
        yield passed("codex", f"every session goes to {provider['base_url']}")
