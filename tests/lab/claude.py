"""The real `claude` CLI, with a HOME of its own and nothing of the machine's settings.

`bedrock` and `anthropic` are the two ways in which a company points it at a gateway (reference: claude-code.md 2).
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tests.lab import namespace, node
from tests.lab.environment import clean_environment
from tests.lab.process import Finished, run

if TYPE_CHECKING:
    from pathlib import Path

Mode = Literal["bedrock", "anthropic"]
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
    # Two retries show what a client does with an answer; ten would show it for three minutes.
    "CLAUDE_CODE_MAX_RETRIES": "2",
}


@dataclass(frozen=True)
class Answered:
    """What `claude -p` left: its own words, and the result object of `--output-format json`."""

    finished: Finished
    result: dict[str, Any]

    @property
    def text(self) -> str:
        """The answer, or the error as the user reads it."""
        return str(self.result.get("result", "")) or self.finished.stdout + self.finished.stderr


def executable_path() -> Path:
    """Where the self-contained binary of the pinned package lies on this machine, once it is installed."""
    system, machine = platform.system().lower(), MACHINES.get(platform.machine().lower(), platform.machine())
    return node.CACHE / "node_modules" / "@anthropic-ai" / f"claude-code-{system}-{machine}" / "claude"


def executable() -> Path:
    """The same; installs it on first use."""
    node.modules()
    return executable_path()


def gateway_environment(mode: Mode, gateway_url: str) -> dict[str, str]:
    """The variables of a gateway's user; the token comes from `apiKeyHelper`, never from a variable."""
    if mode == "anthropic":
        return {"ANTHROPIC_BASE_URL": gateway_url}
    return {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": f"{gateway_url}/bedrock",
        "AWS_REGION": "us-east-1",
    }


class Claude:
    """One user's installation: home, settings, and a project folder to work in."""

    def __init__(self, folder: Path, *, helper: str = "", **environment: str) -> None:
        self.home = folder / "claude-home"
        self.project = folder / "project"
        self.project.mkdir(parents=True, exist_ok=True)
        config = self.home / ".claude"
        config.mkdir(parents=True, exist_ok=True)
        self._settings = config / "settings.json"
        self.environment = clean_environment(self.home, CLAUDE_CONFIG_DIR=str(config), **QUIET, **environment)
        self.write_settings({"apiKeyHelper": helper} if helper else {})
        self.managed: Path | None = None
        """A folder whose files lie in /etc for this installation alone (`namespace.write` fills one)."""

    @classmethod
    def through(cls, folder: Path, mode: Mode, gateway_url: str, *, helper: str, **environment: str) -> Claude:
        """An installation that goes through a gateway and takes its token from `helper`."""
        return cls(folder, helper=helper, **gateway_environment(mode, gateway_url), **environment)

    def write_settings(self, settings: dict[str, Any]) -> None:
        self._settings.write_text(json.dumps(settings), encoding="utf-8")

    def ask(
        self, prompt: str, *, model: str = "", tools: tuple[str, ...] = (), seconds: float = 120, **environment: str
    ) -> Answered:
        """`claude -p PROMPT`; `tools` are allowed without a question, such as "Bash(echo:*)"."""
        argv: list[str | Path] = [executable(), "-p", prompt, "--output-format", "json"]
        argv += ["--model", model] if model else []
        argv += ["--allowedTools", ",".join(tools)] if tools else []
        finished = self.run(*argv, seconds=seconds, **environment)
        return Answered(finished, _result(finished.stdout))

    def run(self, *argv: str | Path, seconds: float = 120, **environment: str) -> Finished:
        """Any command as this user, in the project, under the managed settings."""
        command = list(argv) if self.managed is None else namespace.enter(self.managed, argv)
        return run(command, env=self.environment | environment, folder=self.project, seconds=seconds)


def _result(stdout: str) -> dict[str, Any]:
    """The last JSON line; empty when the CLI printed something else."""
    for line in reversed(stdout.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}
