"""`org.toml`: what an organisation wants on its laptops. Read whole; one error names every fault there is."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.claude_code import MOST_LIFE_MS
from llmgw_agent.errors import ConfigurationError
from llmgw_agent.settings import FOR_COMPANIES, METHODS, PORTS, url_fault
from llmgw_mdm import keys, pin
from llmgw_mdm.fields import Fields
from llmgw_mdm.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

PLATFORMS: Final = ("linux", "macos", "windows")
PIPELINES: Final = ("github-actions", "gitlab-ci")
TOOLS: Final = ("codex", "vscode", *PIPELINES)
"""Beside Claude Code. None of them is managed unless it is named."""
HELPERS: Final = {
    "linux": "/opt/llmgw/bin/llmgw-token",
    "macos": "/opt/llmgw/bin/llmgw-token",
    "windows": r"C:\Program Files\llmgw\llmgw-token.exe",
}
LEAST_VERSION: Final = "2.1.227"
"""Of Claude Code. From this one on it refuses helpers that print anything but one token."""
TESTED_VERSION: Final = "2.1.329"
"""The one that the pin is proven against, and that knows `allowedProviders`."""
MOST_BYTES: Final = 256 * 1024
MOST_LIFE_SECONDS: Final = MOST_LIFE_MS // 1000
IDENTIFIER: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
VERSION: Final = re.compile(r"\d{1,6}\.\d{1,6}\.\d{1,6}")
PLAIN_PATH: Final = re.compile(r"[^\"'`$%\\\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class Agent:
    """What the company manages of our own agent. Empty or None: its default."""

    sign_in_methods: tuple[str, ...]
    forward_port: int | None
    project_redirects: str


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where Claude Code reports usage, by OpenTelemetry. Prompts are never part of it."""

    endpoint: str
    protocol: str


@dataclass(frozen=True, slots=True)
class ClaudeCode:
    """What the company wants of Claude Code."""

    dialect: str
    region: str
    models: tuple[str, ...]
    minimum_version: str
    life_seconds: int
    announcements: tuple[str, ...]
    presets: tuple[str, ...]
    proxy: str
    spared: tuple[str, ...]
    has_live_models: bool
    """What can be chosen follows what the gateway lets the person use (live.py)."""
    is_quiet: bool
    """No traffic but that to the gateway: no update checks, no reports to the vendor."""
    extra: dict[str, Any]
    """Settings of the company's own, as Claude Code names them."""


@dataclass(frozen=True, slots=True)
class ClaudeDesktop:
    """What the company wants of the desktop app, which reads none of Claude Code's settings."""

    models: tuple[str, ...]
    """What can be chosen; empty: what the gateway says."""


@dataclass(frozen=True, slots=True)
class Pipelines:
    """Where CI jobs get the packages from, and for whom their identity tokens are made out."""

    repository: str
    audience: str


@dataclass(frozen=True, slots=True)
class Organization:
    """The whole file."""

    name: str
    identifier: str
    """Begins the identifiers of profiles, such as `example.corp`; UUIDs are derived from it."""
    gateway_url: str
    ca_files: dict[str, str]
    helpers: dict[str, str]
    platforms: tuple[str, ...]
    tools: tuple[str, ...]
    agent: Agent
    claude: ClaudeCode
    codex_model: str
    """What Codex begins with; empty: what its user chooses."""
    pipelines: Pipelines
    telemetry: Telemetry | None
    desktop: ClaudeDesktop | None
    """None: the app is not managed. It locks its settings as soon as one of them is."""


def load(path: Path) -> Organization:
    """Read and check. ConfigurationError names all faults at once."""
    try:
        with path.open("rb") as file:
            document = tomllib.loads(file.read(MOST_BYTES).decode())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror})", "Write one: llmgw mdm init") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is no TOML file ({error})", "Correct it and repeat the command") from None
    faults: list[str] = []
    found = parse(document, faults)
    if faults:
        raise ConfigurationError(f"{path}: {'; '.join(faults)}", "Correct this and repeat the command")
    return found


def parse(document: dict[str, Any], faults: list[str]) -> Organization:
    """The organisation that a document describes; what is wrong with it is added to `faults`."""
    root = Fields(document, "", faults)
    about, gateway, rollout = root.table("organization"), root.table("gateway"), root.table("rollout")
    platforms = rollout.texts("platforms", ("linux", "macos"), words=PLATFORMS)
    if not platforms:
        rollout.fault("platforms", "is empty")
    tools = rollout.texts("tools", words=TOOLS)
    url = gateway.text("url", check=url_fault).rstrip("/")
    codex = root.table("codex")
    found = Organization(
        name=about.text("name"),
        identifier=about.text("identifier", check=_identifier_fault),
        gateway_url=url,
        ca_files=_paths(gateway.table("ca_file"), dict.fromkeys(PLATFORMS, "")),
        helpers=_paths(rollout.table("helper"), HELPERS),
        platforms=platforms,
        tools=tools,
        agent=_agent(root.table("agent")),
        claude=_claude(root.table("claude_code")),
        codex_model=codex.text("model", ""),
        pipelines=_pipelines(root.table("ci"), tools, url),
        telemetry=_telemetry(root.table("telemetry")) if root.has("telemetry") else None,
        desktop=_desktop(root.table("claude_desktop")) if root.has("claude_desktop") else None,
    )
    if found.desktop is not None and not found.gateway_url.startswith("https://"):
        root.fault("claude_desktop", "needs a gateway with https: the app takes no other")
    for table in (about, gateway, rollout, codex, root):
        table.close()
    return found


def _agent(table: Fields) -> Agent:
    has_port = table.has("forward_port")
    found = Agent(
        sign_in_methods=table.texts("sign_in_methods", words=METHODS),
        forward_port=table.number("forward_port", 0, 0, PORTS - 1) if has_port else None,
        project_redirects=table.choice("project_redirects", FOR_COMPANIES["project_redirects"], "refuse"),
    )
    table.close()
    return found


def _claude(table: Fields) -> ClaudeCode:
    found = ClaudeCode(
        dialect=table.choice("dialect", pin.DIALECTS, "bedrock"),
        region=table.text("region", "us-east-1", check=_region_fault),
        models=table.texts("models"),
        minimum_version=table.text("minimum_version", TESTED_VERSION, check=_version_fault),
        life_seconds=table.number("helper_cache_seconds", MOST_LIFE_SECONDS, 30, MOST_LIFE_SECONDS),
        announcements=table.texts("announcements"),
        presets=table.texts("presets", words=PRESETS),
        proxy=table.text("proxy", "", check=_proxy_fault),
        spared=table.texts("no_proxy", check=_host_fault),
        has_live_models=table.flag("live_models", default=False),
        is_quiet=table.flag("quiet", default=True),
        extra=table.raw("settings"),
    )
    if found.spared and not found.proxy:
        table.fault("no_proxy", "says who is reached without a proxy, but there is no proxy")
    for fault in _extra_faults(found.extra):
        table.fault("settings", fault)
    table.close()
    return found


def _telemetry(table: Fields) -> Telemetry:
    found = Telemetry(
        endpoint=table.text("endpoint", check=url_fault).rstrip("/"),
        protocol=table.choice("protocol", ("http/protobuf", "http/json", "grpc"), "http/protobuf"),
    )
    table.close()
    return found


def _desktop(table: Fields) -> ClaudeDesktop:
    found = ClaudeDesktop(models=table.texts("models"))
    table.close()
    return found


def _pipelines(table: Fields, tools: tuple[str, ...], gateway_url: str) -> Pipelines:
    is_used = any(each in PIPELINES for each in tools)
    found = Pipelines(
        repository=table.text("repository", None if is_used else "", check=_repository_fault).rstrip("/"),
        audience=table.text("audience", gateway_url, check=_word_fault),
    )
    table.close()
    return found


def package_name(identifier: str) -> str:
    """The package that brings an organisation's settings: the same for all versions and systems."""
    return "llmgw-org-" + re.sub(r"[^a-z0-9]+", "-", identifier.lower()).strip("-")


def _paths(table: Fields, defaults: dict[str, str]) -> dict[str, str]:
    found = {
        platform: table.text(platform, default, check=_windows_path_fault if platform == "windows" else _path_fault)
        for platform, default in defaults.items()
    }
    table.close()
    return found


def _extra_faults(extra: dict[str, Any]) -> list[str]:
    """What must not stand in settings of the company's own: whatever this tool writes, and what breaks it."""
    env = extra.get("env", {})
    found = [f"{key!r} is written by this tool" for key in extra if key in keys.OURS]
    found += [f"{key!r} stops the client beside an apiKeyHelper" for key in extra if key in keys.NEVER]
    found += [f"{key!r} is no setting of Claude Code" for key in extra if key not in keys.KNOWN]
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        return [*found, "env is not a table of strings"]
    pinned = {name for variant in pin.VARIANTS for name in variant.closed_by} | {*pin.SPARED}
    return found + [f"env.{name} is part of the pin" for name in env if name in pinned]


def _identifier_fault(text: str) -> str:
    return "" if IDENTIFIER.fullmatch(text) else "has to be a domain in reverse, such as example.corp"


def _version_fault(text: str) -> str:
    if not VERSION.fullmatch(text):
        return "has to be three numbers, such as 2.1.329"
    if version(text) < version(LEAST_VERSION):
        return f"has to be {LEAST_VERSION} or later: older ones do not check what a helper prints"
    return ""


def version(text: str) -> tuple[int, ...]:
    """A version as numbers, to compare; those that are none count as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in text.split("."))


def _region_fault(text: str) -> str:
    return "" if re.fullmatch(r"[a-z0-9-]+", text) else "is no region"


def _proxy_fault(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+/?", text):
        return "has to be http://HOST:PORT; a proxy that wants a password cannot be told to every laptop"
    return ""


def _word_fault(text: str) -> str:
    return "" if re.fullmatch(r"[A-Za-z0-9:/._-]+", text) else "has to be one word: the gateway's client_id for jobs"


def _repository_fault(text: str) -> str:
    # It becomes words of a shell, and a line of YAML.
    is_plain = re.fullmatch(r"[A-Za-z0-9:/.@_~%+\[\]-]+", text)
    return url_fault(text) or ("" if is_plain else "has to be of letters, digits and :/.@_~%+-: it stands in a script")


def _host_fault(text: str) -> str:
    return "" if re.fullmatch(r"[A-Za-z0-9.*:/\[\]-]+", text) else "is no host, domain or network"


def _path_fault(text: str) -> str:
    is_plain = PLAIN_PATH.fullmatch(text) and ".." not in PurePosixPath(text).parts
    return "" if is_plain and text.startswith("/") else "has to be a whole path, without quotes, $ or .."


def _windows_path_fault(text: str) -> str:
    path = PureWindowsPath(text)
    is_plain = PLAIN_PATH.fullmatch(text.replace("\\", "/")) and ".." not in path.parts
    return "" if is_plain and path.is_absolute() else "has to be a whole path with its drive, without quotes, % or .."
