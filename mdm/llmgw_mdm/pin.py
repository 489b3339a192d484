"""The full pin: what managed settings have to hold, so that a repository cannot lead a token or a prompt away.

A repository's `.claude/settings.json` may set any variable of Claude Code that managed settings do not set themselves.
Each variant below is an attack that works on a client whose managed settings hold everything but the variables named in
it; tests/functional/test_hijacks.py runs them against the real client, with the pin and without each of its variables.
Observed of Claude Code 2.1.329. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.claude_code import MOST_LIFE_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECTS: Final = ("bedrock", "anthropic")
LIFE: Final = "CLAUDE_CODE_API_KEY_HELPER_TTL_MS"
ADDRESS: Final = {"anthropic": "ANTHROPIC_BASE_URL", "bedrock": "ANTHROPIC_BEDROCK_BASE_URL"}
PROVIDERS: Final = {
    "CLAUDE_CODE_USE_BEDROCK": "Amazon Bedrock",
    "CLAUDE_CODE_USE_VERTEX": "Google Vertex AI",
    "CLAUDE_CODE_USE_FOUNDRY": "Microsoft Foundry",
    "CLAUDE_CODE_USE_MANTLE": "Amazon Bedrock (Mantle)",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS": "Claude Platform on AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD": "Claude Platform on Google Cloud",
}
PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
OFF: Final = frozenset({"", "0", "false", "no", "off"})
BLANK: Final = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "AWS_BEARER_TOKEN_BEDROCK")
"""Credentials that the client sends in place of the helper's, or beside it."""
SPARED: Final = ("NO_PROXY", "no_proxy")
ALLOWED_PROVIDERS: Final = ["customEndpoint"]
"""An address that the same managed settings pin, and nothing else. `bedrock` would mean AWS's own hosts only."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to lead Claude Code astray, and the variables that close it."""

    name: str
    closed_by: tuple[str, ...]
    effect: str
    """What happens without them."""


VARIANTS: Final = (
    Variant("other address", tuple(ADDRESS.values()), "prompts and tokens go to an address of the repository's choice"),
    Variant(
        "other provider", tuple(PROVIDERS), "prompts and tokens go to another provider, or the client does not start"
    ),
    Variant("cloud credentials", ("CLAUDE_CODE_SKIP_BEDROCK_AUTH",), "the client looks for cloud credentials"),
    Variant("proxy", PROXIES, "every request goes through a proxy of the repository's choice"),
    Variant(
        "certificates not checked", ("NODE_TLS_REJECT_UNAUTHORIZED",), "whoever is in between reads prompts and tokens"
    ),
    Variant("other authority", ("NODE_EXTRA_CA_CERTS",), "whoever holds that authority reads prompts and tokens"),
    Variant(
        "other credential",
        BLANK,
        "a stale or a stranger's credential is sent instead of the person's own token, or beside it",
    ),
    Variant("added headers", ("ANTHROPIC_CUSTOM_HEADERS",), "requests carry headers of the repository's choice"),
    Variant(
        "client certificate",
        ("CLAUDE_CODE_CLIENT_CERT", "CLAUDE_CODE_CLIENT_KEY"),
        "the client presents somebody else's certificate, or cannot connect",
    ),
    Variant("token kept too long", (LIFE,), "tokens that have ended are sent"),
)


def variables(
    dialect: str, gateway_url: str, *, ca_file: str = "", proxy: str = "", spared: str = "", life_seconds: int
) -> dict[str, str]:
    """What has to stand in `env`. Empty values blank what a shell or a repository says.

    Args:
        dialect: One of `DIALECTS`.
        gateway_url: Without a slash at its end.
        ca_file: A PEM file on the laptop, beside the authorities that the system trusts.
        proxy: The company's own, if the gateway is reached through one.
        spared: Hosts that are reached without it, separated by commas.
        life_seconds: How long the client keeps a token.
    """
    found = {name: "" for variant in VARIANTS for name in variant.closed_by} | dict.fromkeys(PROXIES, proxy)
    if proxy:
        found |= dict.fromkeys(SPARED, spared)
    if dialect == "bedrock":
        found["CLAUDE_CODE_USE_BEDROCK"] = found["CLAUDE_CODE_SKIP_BEDROCK_AUTH"] = "1"
        found[ADDRESS["bedrock"]] = f"{gateway_url}/bedrock"
    else:
        found[ADDRESS["anthropic"]] = gateway_url
    found["NODE_TLS_REJECT_UNAUTHORIZED"] = "1"
    found["NODE_EXTRA_CA_CERTS"] = ca_file
    found[LIFE] = str(life_seconds * 1000)
    return needed(dialect, found)


def needed(dialect: str, found: Mapping[str, str]) -> dict[str, str]:
    """Without the variables that mean nothing in a dialect."""
    return {name: value for name, value in sorted(found.items()) if name not in MEANINGLESS[dialect]}


MEANINGLESS: Final[dict[str, frozenset[str]]] = {
    # Other providers are off, so that their addresses and credentials are not looked at.
    "anthropic": frozenset({"ANTHROPIC_BEDROCK_BASE_URL", "CLAUDE_CODE_SKIP_BEDROCK_AUTH", "AWS_BEARER_TOKEN_BEDROCK"}),
    # Bedrock wins over every other provider but Mantle.
    "bedrock": frozenset({"ANTHROPIC_BASE_URL", *PROVIDERS} - {"CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_MANTLE"}),
}


def dialect_of(env: Mapping[str, Any]) -> str:
    """Which of them managed settings pin; empty if none."""
    if str(env.get("CLAUDE_CODE_USE_BEDROCK", "")).lower() not in OFF:
        return "bedrock" if env.get(ADDRESS["bedrock"]) else ""
    return "anthropic" if env.get(ADDRESS["anthropic"]) else ""


def gaps(env: Mapping[str, Any]) -> list[tuple[Variant, list[str]]]:
    """The variants that these managed variables leave open, each with what is missing or has a value that harms."""
    dialect = dialect_of(env) or "anthropic"
    found = []
    for variant in VARIANTS:
        wanted = [name for name in variant.closed_by if name not in MEANINGLESS[dialect]]
        missing = [name for name in wanted if name not in env or not _closes(name, str(env[name]), dialect)]
        if missing:
            found.append((variant, missing))
    return found


def _closes(name: str, value: str, dialect: str) -> bool:
    """Whether a value keeps the repository's out, and is none that harms by itself."""
    if name == LIFE:
        return value.isdecimal() and 0 < int(value) <= MOST_LIFE_MS
    if name in BLANK:
        return value == ""
    if name in ADDRESS.values():
        return value != ""
    if name in {"CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_SKIP_BEDROCK_AUTH"}:
        return (value.lower() in OFF) == (dialect != "bedrock")
    return value != "0" if name == "NODE_TLS_REJECT_UNAUTHORIZED" else name not in PROVIDERS or value.lower() in OFF
