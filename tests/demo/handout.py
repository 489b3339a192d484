"""What the demo leaves for other terminals: `.demo/env` for scripts, settings files for `claude`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from tests.lab.claude import Mode, gateway_environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.demo.stage import Stage

# Variables of somebody's shell that would beat `apiKeyHelper` and send another credential.
STALE = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS", "AWS_BEARER_TOKEN_BEDROCK")
HELPER_CACHE = {"CLAUDE_CODE_API_KEY_HELPER_TTL_MS": "240000", "NO_PROXY": "127.0.0.1,localhost"}
MODES: tuple[Mode, ...] = ("anthropic", "bedrock")
INSTALL_CLAUDE = "npm install -g @anthropic-ai/claude-code"


def write_env(stage: Stage) -> Path:
    """Shell assignments; any shell can read them with `. .demo/env`."""
    values = {
        "LLMGW_GATEWAY_URL": stage.gateway.url,
        "LLMGW_HOME": str(stage.agent.home),
        "LLMGW_TOKEN_COMMAND": stage.agent.token_command,
        "LLMGW_UPSTREAM_URL": stage.upstream_url,
        "LLMGW_PIDS": " ".join(str(program.pid) for program in stage.programs),
    }
    path = stage.folder / "env"
    path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()), encoding="utf-8")
    return path


def write_claude_settings(stage: Stage, mode: Mode) -> Path:
    """A settings file with which `claude` goes through this gateway, whatever the shell holds."""
    other = {"CLAUDE_CODE_USE_BEDROCK": ""} if mode == "anthropic" else {}
    environment = gateway_environment(mode, stage.gateway.url) | HELPER_CACHE | other | dict.fromkeys(STALE, "")
    path = stage.folder / f"claude-{mode}.json"
    settings = {"apiKeyHelper": stage.agent.token_command, "env": environment}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return path
