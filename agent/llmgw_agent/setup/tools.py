"""What stands in the configuration of each tool so that its model calls go through the gateway.

Tools that can run a command take their token from `llmgw-token`; the others go through the forwarder with its local
secret, in files that nobody else may read. Pure: nothing is read or written here.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent import system
from llmgw_agent.claude_code import OTHER_PROVIDERS, SHADOWS
from llmgw_agent.errors import RefusedError, UsageError
from llmgw_agent.setup.edits import Block, Edit, Member, RootKey
from llmgw_agent.setup.files import Target
from llmgw_agent.token_stub import profile_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REFRESH_MS: Final = 240_000
"""How long tools keep a token: it has at least 300 s left when it is handed out."""
REGION: Final = "us-east-1"
"""AWS clients insist on one; the gateway does not look at it."""
STATUS_LINE: Final = {"type": "command", "command": "llmgw statusline"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the edits are made of."""

    environ: Mapping[str, str]
    gateway_url: str
    helper: tuple[str, ...]
    """What runs `llmgw-token`: its whole path, as a rule."""
    command: tuple[str, ...]
    """What runs `llmgw`."""
    dialect: str = "bedrock"
    """Which one Claude Code speaks."""
    forwarder: Mapping[str, Any] | None = None
    """The daemon's answer to `POST /forward`."""
    models: tuple[str, ...] = ()
    """What the gateway lets this person use."""

    @property
    def home(self) -> Path:
        """The user's home folder."""
        return system.home(self.environ)

    @property
    def door(self) -> Mapping[str, Any]:
        """Address and secret of the forwarder."""
        if self.forwarder is None:
            raise UsageError("the forwarder was not asked for")
        return self.forwarder

    def words(self, command: Sequence[str]) -> list[str]:
        """A command of ours for a tool that runs it without a shell; it acts for this profile."""
        return system.words_for(command, profile_of(dict(self.environ)))

    def line(self, *words: str) -> str:
        """A command of ours as a shell takes it; it acts for this profile whatever shell that is."""
        return system.line_for(words, profile_of(dict(self.environ)))

    def need(self, dialect: str) -> None:
        """RefusedError if the gateway does not speak it."""
        if self.forwarder is not None and dialect not in self.forwarder["dialects"]:
            spoken = ", ".join(self.forwarder["dialects"])
            raise RefusedError(f"the gateway does not speak the dialect {dialect} ({spoken})", "Ask its operator")


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that can be set up."""

    title: str
    targets: Callable[[Facts], list[Target]]
    note: str
    """What its user has to know or do afterwards."""
    forwards: bool = True
    """It goes through the forwarder, so the daemon is asked for its address."""
    wants_models: bool = False
    """Its configuration names the models, so the gateway is asked which there are."""


def claude(facts: Facts) -> list[Target]:
    """Claude Code: settings.json of the user. Only the variables that have to be set, or blanked, are touched."""
    folder = Path(facts.environ.get("CLAUDE_CONFIG_DIR") or facts.home / ".claude")
    variables = {"CLAUDE_CODE_API_KEY_HELPER_TTL_MS": str(REFRESH_MS)} | dict.fromkeys(SHADOWS, "")
    if facts.dialect == "bedrock":
        variables |= {
            "CLAUDE_CODE_USE_BEDROCK": "1",
            "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
            "ANTHROPIC_BEDROCK_BASE_URL": f"{facts.gateway_url}/bedrock",
            "AWS_REGION": facts.environ.get("AWS_REGION") or REGION,
        }
    else:
        variables |= {"ANTHROPIC_BASE_URL": facts.gateway_url, "CLAUDE_CODE_USE_BEDROCK": ""}
    variables |= {name: "" for name in OTHER_PROVIDERS if facts.environ.get(name)}
    edits: list[Edit] = [Member(("apiKeyHelper",), facts.line(*facts.helper))]
    edits += [Member(("env", name), value) for name, value in variables.items()]
    edits.append(Member(("statusLine",), STATUS_LINE | {"command": facts.line(*facts.command, "statusline")}))
    return [Target(folder / "settings.json", tuple(edits))]


def codex(facts: Facts) -> list[Target]:
    """Codex: a provider that runs `llmgw-token`, and the choice of it."""
    facts.need("openai")
    folder = Path(facts.environ.get("CODEX_HOME") or facts.home / ".codex")
    program, *arguments = facts.words(facts.helper)
    content = "\n".join(
        [
            "[model_providers.llmgw]",
            'name = "llmgw"',
            f"base_url = {json.dumps(facts.gateway_url + '/openai/v1')}",
            'wire_api = "responses"',
            "[model_providers.llmgw.auth]",
            f"command = {json.dumps(program)}",
            *([f"args = {json.dumps(arguments)}"] if arguments else []),
            "timeout_ms = 10000",
            f"refresh_interval_ms = {REFRESH_MS}",
        ]
    )
    # Its web search runs on OpenAI's servers: a gateway to other models refuses it.
    keys = (RootKey('model_provider = "llmgw"'), RootKey('web_search = "disabled"'))
    return [Target(folder / "config.toml", (*keys, Block("codex", content)))]


def continue_dev(facts: Facts) -> list[Target]:
    """Continue: one entry for each model, first in its list."""
    facts.need("anthropic")
    entries = [
        f"- name: {json.dumps(f'{model} (llmgw)')}\n  provider: anthropic\n  model: {json.dumps(model)}\n"
        f"  apiBase: {json.dumps(facts.door['url'] + '/v1/')}\n  apiKey: {json.dumps(facts.door['secret'])}"
        for model in facts.models
    ]
    folder = Path(facts.environ.get("CONTINUE_GLOBAL_DIR") or facts.home / ".continue")
    path = folder / "config.yaml"
    return [Target(path, (Block("continue", "\n".join(entries), "models"),), is_private=True)]


def cursor(facts: Facts) -> list[Target]:
    """Cursor: the variables of the Claude Code extension in it. Its own models are asked by its servers, not from here.

    The extension does not run a helper in every version, so it goes through the forwarder.
    """
    facts.need("anthropic")
    variables = {
        "ANTHROPIC_BASE_URL": facts.door["url"],
        "ANTHROPIC_AUTH_TOKEN": facts.door["secret"],
        "NO_PROXY": "127.0.0.1,localhost",
    }
    value = [{"name": name, "value": text} for name, text in variables.items()]
    edits = (Member(("claudeCode.environmentVariables",), value), Member(("claudeCode.disableLoginPrompt",), True))  # noqa: FBT003 -- the setting's value
    folder = system.programs_folder(facts.environ)
    return [Target(folder / "Cursor" / "User" / "settings.json", edits, is_private=True)]


def opencode(facts: Facts) -> list[Target]:
    """opencode: a provider of its own, beside those that are there."""
    facts.need("anthropic")
    provider = {
        "npm": "@ai-sdk/anthropic",
        "name": "llmgw",
        "options": {"baseURL": f"{facts.door['url']}/v1", "apiKey": facts.door["secret"]},
        "models": {model: {"name": model} for model in facts.models},
    }
    folder = Path(facts.environ.get("XDG_CONFIG_HOME") or facts.home / ".config") / "opencode"
    path = folder / "opencode.jsonc" if (folder / "opencode.jsonc").exists() else folder / "opencode.json"
    return [Target(path, (Member(("provider", "llmgw"), provider),), is_private=True)]


def aws_sdk(facts: Facts) -> list[Target]:
    """AWS SDKs and CLI: a profile whose Bedrock runtime is the forwarder and whose session token is its secret."""
    facts.need("bedrock")
    path = Path(facts.environ.get("AWS_CONFIG_FILE") or facts.home / ".aws" / "config")
    content = "\n".join(
        [
            "[profile llmgw]",
            f"region = {facts.environ.get('AWS_REGION') or REGION}",
            "aws_access_key_id = llmgw",
            "aws_secret_access_key = llmgw",
            f"aws_session_token = {facts.door['secret']}",
            "services = llmgw",
            "[services llmgw]",
            "bedrock_runtime =",
            f"  endpoint_url = {facts.door['url']}/bedrock",
        ]
    )
    return [Target(path, (Block("aws-sdk", content),), is_private=True)]


def openai_sdk(facts: Facts) -> list[Target]:
    """OpenAI SDKs know variables only: a file of ours holds them, one line in the shell's own file reads it."""
    facts.need("openai")
    if not system.HAS_SHELL_FILES:
        raise RefusedError("shells of Windows read no file of variables", "Use: llmgw run -- COMMAND")
    shell = Path(facts.environ.get("SHELL") or "/bin/sh").name
    config = Path(facts.environ.get("XDG_CONFIG_HOME") or facts.home / ".config")
    values = {"OPENAI_BASE_URL": f"{facts.door['url']}/openai/v1", "OPENAI_API_KEY": facts.door["secret"]}
    if shell == "fish":
        content = "\n".join(f"set -gx {name} {shlex.quote(value)}" for name, value in values.items())
        return [Target(config / "fish" / "conf.d" / "llmgw.fish", (Block("openai-sdk", content),), is_private=True)]
    mine = config / "llmgw" / "openai.sh"
    content = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())
    profile = {"bash": ".bashrc", "zsh": ".zshrc"}.get(shell, ".profile")
    quoted = shlex.quote(str(mine))
    return [
        Target(mine, (Block("openai-sdk", content),), is_private=True),
        Target(facts.home / profile, (Block("openai-sdk", f"[ -r {quoted} ] && . {quoted}"),)),
    ]


ANEW: Final = "Start it anew"
TOOLS: Final = {
    "claude": Tool("Claude Code", claude, f"{ANEW}, then look with: llmgw doctor", forwards=False),
    "codex": Tool(
        "Codex",
        codex,
        f"{ANEW} with a model of this gateway (codex -m MODEL; see: llmgw whoami). Its agents need tools that the "
        "gateway does not know: write multi_agent = false below [features] in the same file",
    ),
    "continue": Tool("Continue", continue_dev, "It reads its file by itself", wants_models=True),
    "cursor": Tool(
        "Cursor",
        cursor,
        "This is for Claude Code inside Cursor. Cursor's own models are asked by Cursor's servers, which cannot reach "
        "this machine",
    ),
    "opencode": Tool("opencode", opencode, f"{ANEW} and choose a model of llmgw", wants_models=True),
    "aws-sdk": Tool("AWS SDKs", aws_sdk, "Use it with: AWS_PROFILE=llmgw"),
    "openai-sdk": Tool("OpenAI SDKs", openai_sdk, "Open a new shell"),
}
