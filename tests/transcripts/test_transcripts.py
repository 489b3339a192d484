"""Every command as its user sees it, in the states that a laptop is in. What is compared with lies beside this file."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from llmgw_agent.cli import main
from tests.functional import ledger
from tests.lab.agent import installed
from tests.lab.environment import clean_environment
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from tests.lab.system import System


def rules(folder: Path) -> list[tuple[str, str]]:
    return [(re.escape(str(folder)), "/FOLDER"), (re.escape(str(installed("llmgw").parent)), "/BIN")]


def commands(group: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command there is."""
    inner = getattr(group, "commands", {})
    return [words] + [found for name in sorted(inner) for found in commands(inner[name], (*words, name))]


def test_help(tmp_path: Path) -> None:
    transcript = Transcript(clean_environment(tmp_path), tmp_path, rules(tmp_path))
    for words in commands(main):
        transcript.run(*words, "--help", terminal=len(words) == 0)
    transcript.run("--version")
    transcript.run("nonsense")
    transcript.check("help")


def test_nothing_is_set(tmp_path: Path) -> None:
    home = tmp_path / "h"
    transcript = Transcript(clean_environment(tmp_path, LLMGW_HOME=str(home)), tmp_path, rules(tmp_path))
    for line in (
        *("login --no-browser", "logout", "token", "status", "whoami", "usage", "statusline", "forward", "run -- true"),
        *(
            "doctor",
            "netcheck",
            "config explain",
            "version",
            "version --check",
            "setup",
            "setup claude",
            "setup --list",
        ),
        *(
            "setup claude --undo",
            "service status",
            "daemon stop",
            "profile list",
            "daemon",
            "status --json",
            "setup codex --undo --json",
        ),
    ):
        transcript.run(*line.split(), terminal=line in {"token", "status", "doctor", "status --json"})
    transcript.check("nothing-set")


def test_the_gateway_is_away_and_nobody_is_signed_in(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers there
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        env = clean_environment(tmp_path, LLMGW_HOME=str(tmp_path / "h"), LLMGW_GATEWAY_URL=url, TZ="UTC")
        transcript = Transcript(env, tmp_path, rules(tmp_path))
        transcript.run("token")
        for line in (
            *("login --no-browser", "logout", "token", "token --json", "status", "status --json", "whoami", "usage"),
            *("statusline", "statusline --json", "forward", "run -- true", "doctor", "netcheck", "netcheck --json"),
            *("config explain", "config explain --json", "version --check", "setup claude --dry-run", "setup aws-sdk"),
            *("login --method device", "daemon", "profile add work --gateway http://127.0.0.1:9", "-p work status"),
            *("profile list", "profile list --json", "profile add Work --gateway x", "profile remove work"),
        ):
            transcript.run(*line.split(), terminal=line in {"login --no-browser", "status", "doctor", "token --json"})
        transcript.run("daemon", "stop", terminal=False)
    transcript.check("gateway-away")


def test_signed_in(system: System, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer("Hello.")
    env, folder = system.agent.env | {"TZ": "UTC"}, system.agent.folder
    host = re.escape(system.provider.issuer_section()["issuer"])
    transcript = Transcript(env, folder, [(host, "https://ISSUER"), *rules(folder), *rules(system.folder)])
    body = '{"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}'
    # What came back is in the transcript: a prompt that was refused shows here why, and not later as a missing entry.
    ask = ["curl", "-sS", "--fail-with-body", "-w", "%{stderr}%{http_code}", "-d", body]
    ask += ["-o", str(folder / "answer.json"), "-H", "content-type: application/json"]
    script = (
        " ".join(f"'{word}'" for word in ask) + ' -H "x-api-key: $ANTHROPIC_AUTH_TOKEN" $ANTHROPIC_BASE_URL/v1/messages'
    )
    transcript.run("run", "--", "sh", "-c", script, terminal=False)
    ledger.settled(system.gateway.db, 1)
    for line in (
        *("status", "whoami", "statusline", "usage", "forward", "doctor", "netcheck", "config explain"),
        *("version --check", "version --check --json", "setup claude --dry-run", "setup claude", "setup opencode"),
        *("setup cursor", "setup aws-sdk", "setup continue", "setup codex", "setup openai-sdk", "setup --list"),
        *("setup claude --undo", "setup aws-sdk --undo", "run -- nonsense-command", "token", "forward list"),
    ):
        transcript.run(*line.split())
    transcript.run("bugreport", "-o", "report.txt")
    transcript.run("logout", terminal=False)
    transcript.run("logout")
    transcript.check("signed-in")
