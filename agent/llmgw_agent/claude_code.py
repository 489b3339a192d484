"""Claude Code's settings as it reads them itself, and what in them keeps it from our gateway. Reads files, no more.

Observed of Claude Code 2.1.197 and 2.1.329: managed settings beat a project's, those beat the user's, and the `env`
block of any of them beats the shell, variable by variable (an empty value blanks it).
"""

from __future__ import annotations

import json
import os
import plistlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.parsers.expat import ExpatError

from llmgw_agent import system
from llmgw_agent.checks import Check, failed, passed, skipped, warned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MANAGED: Final = system.claude_places("")[0]
POLICY_VALUE: Final = "Settings"
"""In the registry of Windows: one text, which is JSON."""
DOMAIN: Final = "com.anthropic.claudecode"
"""The preference domain of a configuration profile on macOS."""
HIGHEST_ONLY: Final = frozenset(
    {
        *("forceLoginOrgUUID", "forceLoginMethod", "forceLoginGatewayUrl", "gatewayInternalNetworks", "apiKeyHelper"),
        *("awsAuthRefresh", "awsCredentialExport", "gcpAuthRefresh", "otelHeadersHelper", "proxyAuthHelper"),
        *("modelPicker", "parentSettingsBehavior", "policyHelper", "allowNestedModelAccessUnderForceLogin"),
    }
)
"""Keys that are taken from the strongest source even where all are united."""
MOST_BYTES: Final = 1024 * 1024
HELPER: Final = "llmgw-token"
PROPERTY_LIST: Final = ".plist"
PAGE: Final = "See docs/agent.md, Claude Code"

SHADOWS: Final = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "AWS_BEARER_TOKEN_BEDROCK")
"""Credentials that Claude Code sends in place of, or beside, the helper's."""
ADDRESSES: Final = (
    *("ANTHROPIC_BASE_URL", "ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL", "ANTHROPIC_FOUNDRY_BASE_URL"),
    *("ANTHROPIC_BEDROCK_MANTLE_BASE_URL", "ANTHROPIC_AWS_BASE_URL", "ANTHROPIC_GOOGLE_CLOUD_BASE_URL"),
)
OTHER_PROVIDERS: Final = tuple(
    f"CLAUDE_CODE_USE_{name}" for name in ("VERTEX", "FOUNDRY", "MANTLE", "ANTHROPIC_AWS", "ANTHROPIC_GOOGLE_CLOUD")
)
ROUTES: Final = (
    *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy", "ANTHROPIC_UNIX_SOCKET"),
    *("LLMGW_PROFILE", "LLMGW_HOME"),
    *("NODE_TLS_REJECT_UNAUTHORIZED", "NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
REDIRECTS: Final = frozenset({*ADDRESSES, "CLAUDE_CODE_USE_BEDROCK", *OTHER_PROVIDERS, *ROUTES})
"""Variables by which a repository sends the helper's token somewhere else."""
DEFAULT_LIFE_MS: Final = 300_000
MOST_LIFE_MS: Final = 240_000
"""A token has at least 300 s left when it is handed out; a minute of that is for clocks and the request itself."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One settings file."""

    kind: str
    """`managed`, `project` or `user`."""
    path: Path
    document: dict[str, Any]

    @property
    def variables(self) -> dict[str, str]:
        """Its `env` block; numbers count as their text."""
        block = self.document.get("env")
        return {name: str(value) for name, value in block.items()} if isinstance(block, dict) else {}


@dataclass(frozen=True, slots=True)
class ClaudeSettings:
    """All layers, the strongest first, and the shell behind them."""

    layers: tuple[Layer, ...]
    environ: Mapping[str, str]
    broken: tuple[Path, ...]
    """Files that are no JSON object."""

    def setting(self, name: str) -> tuple[Any, Path] | None:
        """What is in force for a key, and the file that says so."""
        for layer in self.layers:
            if name in layer.document:
                return layer.document[name], layer.path
        return None

    def variable(self, name: str) -> tuple[str, str]:
        """The value that Claude Code sees (empty if none), and where it comes from."""
        for layer in self.layers:
            if name in layer.variables:
                return layer.variables[name], str(layer.path)
        return self.environ.get(name, ""), "your shell"


def profiles() -> tuple[Path, ...]:
    """Where macOS keeps what a configuration profile says, the strongest first; there are none elsewhere."""
    return system.claude_places(DOMAIN)[1]


def read(
    environ: Mapping[str, str], folder: Path, managed: Path = MANAGED, preferences: Sequence[Path] | None = None
) -> ClaudeSettings:
    """The settings of a Claude Code that is started in `folder` with this environment.

    Args:
        environ: The environment.
        folder: Where it is started.
        managed: Where managed files lie.
        preferences: Property lists of configuration profiles, the strongest first; by default those of this machine.
    """
    own = Path(environ.get("CLAUDE_CONFIG_DIR") or system.home(environ) / ".claude")
    # Drop-ins are applied after the base file, in name order: the last one is the strongest.
    drop_ins = sorted((managed / "managed-settings.d").glob("*.json"), reverse=True)
    files = [("managed", path) for path in (profiles() if preferences is None else preferences)]
    files += [("managed", path) for path in [*drop_ins, managed / "managed-settings.json"]]
    if (folder / ".claude").resolve() != own.resolve():
        files += [("project", folder / ".claude" / name) for name in ("settings.local.json", "settings.json")]
    files.append(("user", own / "settings.json"))
    layers, broken = [], []
    for kind, path in files:
        try:
            document = _document(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            layers.append(Layer(kind, path, document))
        else:
            broken.append(path)
    return ClaudeSettings(_in_force(layers), environ, tuple(broken))


def _in_force(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers without what does not count: below a profile managed files have their variables, and no more.

    Unless a profile says that all managed sources are united; then they have all but helpers and log-ins.
    """
    above = [layer for layer in layers if layer.path.suffix == PROPERTY_LIST and layer.document]
    is_united = any(layer.document.get("managedSourcesBehavior") == "merge" for layer in above)
    counting = []
    for layer in layers:
        document = layer.document
        if above and layer.kind == "managed" and layer not in above:
            document = {
                name: value
                for name, value in document.items()
                if name == "env" or (is_united and name not in HIGHEST_ONLY)
            }
        counting.append(Layer(layer.kind, layer.path, document))
    return tuple(counting)


def _document(path: Path) -> Any:  # noqa: ANN401 -- JSON
    """What a file holds; ValueError if it is of neither kind, or nothing that can be read without waiting."""
    if (policy := system.policy(path)) is not None:
        return json.loads(policy.get(POLICY_VALUE, "null"))
    handle = os.open(path, system.READING)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no file")
        content = file.read(MOST_BYTES)
    try:
        return plistlib.loads(content) if path.suffix == PROPERTY_LIST else json.loads(content)
    except ExpatError:
        raise ValueError("it is no property list") from None


def examine(claude: ClaudeSettings, gateway_url: str) -> Iterator[Check]:
    """Every check there is for Claude Code."""
    for path in claude.broken:
        yield failed("claude settings", f"{path} is not a JSON object", "valid JSON", f"Correct or remove {path}")
    helper = claude.setting("apiKeyHelper")
    if helper is None and not any(claude.variable(name)[0] for name in ADDRESSES):
        yield skipped("claude", "Claude Code is not set up for a gateway", PAGE)
        return
    yield _helper(helper)
    yield _address(claude, gateway_url)
    yield from _shadows(claude)
    yield _life(claude)
    yield from _login(claude, helper)
    yield from _projects(claude, gateway_url)
    yield _pin(claude, gateway_url)


def _helper(helper: tuple[Any, Path] | None) -> Check:
    if helper is not None and isinstance(helper[0], str) and HELPER in helper[0]:
        return passed("claude helper", f"{helper[0]!r} in {helper[1]}")
    found = f"{str(helper[0])[:80]!r} in {helper[1]}" if helper else "no apiKeyHelper"
    where = helper[1] if helper else "~/.claude/settings.json"
    return failed("claude helper", found, f'"apiKeyHelper": "{HELPER}"', f"Set it in {where}")


def _address(claude: ClaudeSettings, gateway_url: str) -> Check:
    """Bedrock mode wins over the other providers, and those over the Anthropic dialect."""
    name, right = "ANTHROPIC_BASE_URL", gateway_url
    if _is_on(claude, "CLAUDE_CODE_USE_BEDROCK"):
        name, right = "ANTHROPIC_BEDROCK_BASE_URL", f"{gateway_url}/bedrock"
        if not _is_on(claude, "CLAUDE_CODE_SKIP_BEDROCK_AUTH"):
            return failed(
                "claude address",
                "Bedrock mode without CLAUDE_CODE_SKIP_BEDROCK_AUTH: Claude Code looks for AWS credentials instead",
                'CLAUDE_CODE_SKIP_BEDROCK_AUTH="1"',
                PAGE,
            )
    else:
        for other in OTHER_PROVIDERS:
            if _is_on(claude, other):
                source = claude.variable(other)[1]
                return failed("claude address", f"{other} is set in {source}", "a provider of this gateway", PAGE)
    value, source = claude.variable(name)
    if value.rstrip("/") == right:
        return passed("claude address", f"{name} is {value} ({source})")
    return failed("claude address", f"{name} is {value or 'not set'} ({source})", right, f"Set {name}={right}")


def _shadows(claude: ClaudeSettings) -> Iterator[Check]:
    """Names only: the values are credentials."""
    found = {name: claude.variable(name) for name in SHADOWS}
    for name, (value, source) in found.items():
        if value:
            fix = f"unset {name}" if source == "your shell" else f"Remove {name} from {source}"
            yield failed("claude credential", f"{name} is set in {source} and beats the helper", "not set", fix)
    if not any(value for value, _ in found.values()):
        yield passed("claude credential", "nothing beats the helper")


def _life(claude: ClaudeSettings) -> Check:
    name = "CLAUDE_CODE_API_KEY_HELPER_TTL_MS"
    value, source = claude.variable(name)
    life = int(value) if value.isdecimal() else DEFAULT_LIFE_MS
    found = f"{name} is {value or f'not set, which means {DEFAULT_LIFE_MS}'} ({source})"
    if life <= MOST_LIFE_MS:
        return passed("claude cache", found)
    return warned(
        "claude cache", found, f"at most {MOST_LIFE_MS}, so that no token is used that has ended", f"Set {name}=240000"
    )


def _login(claude: ClaudeSettings, helper: tuple[Any, Path] | None) -> Iterator[Check]:
    forced = claude.setting("forceLoginMethod")
    if forced is not None and helper is not None:
        yield failed(
            "claude login",
            f"forceLoginMethod in {forced[1]}: Claude Code does not start with it beside an apiKeyHelper",
            "no forceLoginMethod",
            f"Remove it from {forced[1]}",
        )


def redirects(claude: ClaudeSettings, gateway_url: str) -> list[tuple[Path, str]]:
    """What the project's own files say about where the token goes and who is asked for it: file and name.

    What managed settings overrule, or what says the same as the company does, is none.
    """
    ruled = [layer for layer in claude.layers if layer.kind == "managed"]
    found = []
    for layer in claude.layers:
        if layer.kind != "project":
            continue
        names = {name for name in REDIRECTS & layer.variables.keys() if not any(name in m.variables for m in ruled)}
        found += [(layer.path, name) for name in sorted(names) if _redirects(claude, layer, name, gateway_url)]
        helper = layer.document.get("apiKeyHelper", HELPER)
        if helper != HELPER and not any("apiKeyHelper" in m.document for m in ruled):
            found.append((layer.path, "apiKeyHelper"))
    return found


def _redirects(claude: ClaudeSettings, layer: Layer, name: str, gateway_url: str) -> bool:
    value = layer.variables[name]
    if name in ADDRESSES:
        return not _is_ours(value, gateway_url)
    if name == "CLAUDE_CODE_USE_BEDROCK" and _is_set(value):
        return not _is_ours(claude.variable("ANTHROPIC_BEDROCK_BASE_URL")[0] or "nowhere", gateway_url)
    if name in OTHER_PROVIDERS or name == "CLAUDE_CODE_USE_BEDROCK":
        return _is_set(value)
    if name == "NODE_TLS_REJECT_UNAUTHORIZED":
        return value not in {"", "1"}
    return value not in {"", claude.environ.get(name, "")}


def _is_ours(address: str, gateway_url: str) -> bool:
    return address in {"", gateway_url} or address.startswith(f"{gateway_url}/")


def _projects(claude: ClaudeSettings, gateway_url: str) -> Iterator[Check]:
    found = redirects(claude, gateway_url)
    for path, name in found:
        yield failed(
            "claude project",
            f"{path} sets {name}: this folder decides where your token goes",
            "no such setting in a project",
            f"Read {path} before you run claude here",
        )
    if not found:
        yield passed("claude project", "this folder redirects nothing")


def _pin(claude: ClaudeSettings, gateway_url: str) -> Check:
    managed = [layer for layer in claude.layers if layer.kind == "managed"]
    allowed = next(
        (layer.document["allowedProviders"] for layer in managed if "allowedProviders" in layer.document), None
    )
    pins = {"ANTHROPIC_BASE_URL": gateway_url, "ANTHROPIC_BEDROCK_BASE_URL": f"{gateway_url}/bedrock"}
    is_pinned = any(layer.variables.get(name, "").rstrip("/") == url for layer in managed for name, url in pins.items())
    if is_pinned and allowed == ["customEndpoint"]:
        return passed("claude pin", "managed settings pin the gateway's address")
    return warned(
        "claude pin",
        "no managed settings pin the gateway's address" + ("" if not is_pinned else " for every provider"),
        'the address and "allowedProviders": ["customEndpoint"] in managed settings',
        "Ask IT; until then do not run claude in repositories that you do not trust",
    )


def _is_on(claude: ClaudeSettings, name: str) -> bool:
    return _is_set(claude.variable(name)[0])


def _is_set(value: str) -> bool:
    return value.lower() not in {"", "0", "false", "no", "off"}
