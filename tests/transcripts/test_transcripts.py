"""Every command as its user sees it, in the states that a laptop is in. What is compared with lies beside this file."""

from __future__ import annotations

import json
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import click
import pytest

from llmgw_agent.cli import main
from tests.functional import ledger
from tests.lab.agent import installed
from tests.lab.environment import clean_environment
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.transcripts.transcript import HERE, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.system import System

HELP = "help"
REMOTE = Path(__file__).parent.parent / "functional" / "remote_host.py"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: it is in what is printed, and sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="llmgw-") as folder:
        yield Path(folder)


def rules(folder: Path) -> list[tuple[str, str]]:
    return [(re.escape(str(folder)), "/FOLDER"), (re.escape(str(installed("llmgw").parent)), "/BIN")]


def commands(group: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command there is."""
    inner = getattr(group, "commands", {})
    return [words] + [found for name in sorted(inner) for found in commands(inner[name], (*words, name))]


def named(words: list[str]) -> tuple[tuple[str, ...], click.Command]:
    """The command that a line names, without its options and arguments."""
    words = words[2:] if words[:1] == ["-p"] else words
    command: click.Command = main
    found: list[str] = []
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words, found = command.commands[words[0]], words[1:], [*found, words[0]]
    return tuple(found), command


def test_every_command_has_a_transcript_piped_and_on_a_terminal() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.txt")) if path.stem != HELP]
    lines = [line.split() for text in texts for line in text.splitlines() if line.startswith(("$ llmgw", "% llmgw"))]
    shown = {(line[0], named(line[2:])[0]) for line in lines}
    wanted = {(sign, words) for words in commands(main) for sign in "$%"}
    assert sorted(wanted - shown) == []


def test_help(tmp_path: Path) -> None:
    transcript = Transcript(clean_environment(tmp_path), tmp_path, rules(tmp_path))
    for words in commands(main):
        transcript.run(*words, "--help", terminal=len(words) == 0)
    transcript.check(HELP)


def test_what_is_typed_wrongly(tmp_path: Path) -> None:
    env = clean_environment(tmp_path, LLMGW_HOME=str(tmp_path / "h"))
    transcript = Transcript(env, tmp_path, rules(tmp_path))
    for words in commands(main):
        command = named(list(words))[1]
        if isinstance(command, click.Group) and not command.invoke_without_command:
            transcript.run(*words)
    for line in (
        *("--version", "nonsense", "setup nonsense", "-p Work status", "login --method smoke", "profile add", "run"),
        *("completion", "completion tcsh", "forward container box --ttl soon", "forward ssh -- -oProxyCommand=x"),
        *("forward revoke ../x", "mdm render missing.toml", "mdm lint missing.json", "setup claude --nonsense --json"),
    ):
        transcript.run(*line.split())
    transcript.check("typed-wrongly")


def test_completion(tmp_path: Path) -> None:
    transcript = Transcript(clean_environment(tmp_path), tmp_path, rules(tmp_path))
    for shell in ("bash", "zsh", "fish", "powershell"):
        transcript.run("completion", shell, terminal=shell == "bash")
    transcript.wide.clear()  # for shells, not for readers
    transcript.check("completion")


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
            "service install",
            "service status",
            "service uninstall",
            "daemon stop",
            "daemon rest",
        ),
        *("profile list", "daemon", "status --json", "setup codex --undo --json", "mdm show"),
    ):
        on_both = {"token", "status", "doctor", "status --json", "daemon", "daemon stop", "daemon rest", "mdm show"}
        transcript.run(*line.split(), terminal=line in on_both)
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
            on_both = {"login --no-browser", "status", "doctor", "token --json", "profile list", "profile remove work"}
            transcript.run(*line.split(), terminal=line in on_both or line.startswith("profile add work"))
        transcript.run("daemon", "stop", terminal=False)
    transcript.check("gateway-away")


@pytest.mark.skipif(sys.platform != "linux", reason="systemd")
def test_a_service(tmp_path: Path) -> None:
    """A service manager that says yes: what it is told, and what systemd thinks of it, is in test_service.py."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho active\n")
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    env = clean_environment(tmp_path, LLMGW_HOME=str(tmp_path / "h"), LLMGW_GATEWAY_URL="http://127.0.0.1:9")
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    transcript = Transcript(env, tmp_path, rules(tmp_path))
    for line in ("service status", "service install", "service status", "service status --json", "service uninstall"):
        transcript.run(*line.split())
    transcript.check("service")


def test_signing_in_and_out(system: System) -> None:
    env, folder = system.agent.env | {"TZ": "UTC"}, system.agent.folder
    transcript = Transcript(env, folder, [*hosts(system), *rules(folder), *rules(system.folder)])

    def signs_in(url: str) -> None:
        system.provider.person().sign_in(url)

    def brings_back_the_wrong_address(url: str) -> str:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        return (
            f"http://127.0.0.1:1/callback?code=x\n{asked['redirect_uri']}?state={asked['state']}&error=access_denied\n"
        )

    transcript.run("logout")
    transcript.run("login", "--no-browser", visit=signs_in)
    transcript.run("login", "--no-browser", "--json", piped=False, visit=signs_in)
    transcript.run("logout", "--local-only", piped=False)
    transcript.run("login", "--method", "paste", piped=False, visit=brings_back_the_wrong_address)
    transcript.run("login", "--method", "device")
    transcript.run("login", "--issuer", "https://other.example")
    transcript.check("signing-in")


def hosts(system: System) -> list[tuple[str, str]]:
    """What is called by a name that is the same each time."""
    issuer = re.escape(system.provider.issuer_section()["issuer"])
    return [
        (rf"{issuer}/\S+\?\S+", "https://ISSUER/..."),
        (issuer, "https://ISSUER"),
        (r"\?code=\S+|\?state=\S+", "?..."),
    ]


def test_signed_in(system: System, scripted: ScriptedBedrock) -> None:
    scripted.default = Answer("Hello.")
    env, folder = system.agent.env | {"TZ": "UTC"}, system.agent.folder
    transcript = Transcript(env, folder, [*hosts(system), *rules(folder), *rules(system.folder)])
    body = '{"model": "claude-sonnet-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}'
    ask = ["curl", "-sS", "--fail-with-body", "-w", "%{stderr}%{http_code}", "-d", body]
    ask += ["-o", str(folder / "answer.json"), "-H", "content-type: application/json"]
    script = (
        " ".join(f"'{word}'" for word in ask) + ' -H "x-api-key: $ANTHROPIC_AUTH_TOKEN" $ANTHROPIC_BASE_URL/v1/messages'
    )
    said = transcript.run("run", "--", "sh", "-c", script, terminal=False)
    # Here, and not later as a missing entry: whoever refused the prompt says why.
    assert said.code == 0, (said, (folder / "answer.json").read_text(), system.gateway.program.tail())
    ledger.settled(system.gateway.db, 1)
    for line in (
        *("status", "whoami", "statusline", "usage", "forward", "doctor", "netcheck", "config explain"),
        *("version --check", "version --check --json", "setup claude --dry-run", "setup claude", "setup opencode"),
        *("setup cursor", "setup aws-sdk", "setup continue", "setup codex", "setup openai-sdk", "setup --list"),
        *("setup claude --undo", "setup aws-sdk --undo", "run -- nonsense-command", "token", "forward list"),
        *("daemon", "daemon rest"),
    ):
        transcript.run(*line.split())
    transcript.run("bugreport", "-o", "report.txt")
    transcript.check("signed-in")


def test_elsewhere(system: System) -> None:
    """What is forwarded to other machines; "the host" is another home on this one."""
    folder = system.agent.folder
    (folder / "bin").mkdir()
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {sys.executable} {REMOTE} "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    (folder / "host" / "run").mkdir(parents=True)
    env = system.agent.env | {"TZ": "UTC", "REMOTE_HOME": str(folder / "host")}
    env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
    transcript = Transcript(env, folder, [*hosts(system), *rules(folder), *rules(system.folder)])
    transcript.run("forward", "container", "devbox", "--ttl", "4h")
    passes = json.loads(transcript.run("forward", "list", "--json", terminal=False).stdout)["passes"]
    transcript.run("forward", "list")
    for made, is_terminal in zip(passes, (False, True), strict=True):
        transcript.run("forward", "revoke", made["id"], piped=not is_terminal, terminal=is_terminal)
    transcript.run("forward", "revoke", passes[0]["id"])
    transcript.run("forward", "list", terminal=False)
    transcript.run("forward", "ssh", "build-host", "--ttl", "1s")
    transcript.run("forward", "ssh", "nowhere")
    transcript.check("elsewhere")


def test_for_whoever_manages_laptops(system: System) -> None:
    folder = system.agent.folder
    transcript = Transcript(system.agent.env, folder, [*hosts(system), *rules(folder), *rules(system.folder)])
    transcript.run("mdm", "init", system.gateway.url)
    for line in ("mdm render org.toml", "mdm lint dist/linux", "mdm lint dist/linux --json"):
        transcript.run(*line.split(), terminal="--json" not in line)
    (folder / "bad.json").write_text('{"env": {"ANTHROPIC_BASE_URL": "http://evil.example"}}')
    transcript.run("mdm", "lint", "bad.json")
    transcript.check("mdm")
