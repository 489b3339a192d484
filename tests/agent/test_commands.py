"""`llmgw` as its user sees it, where no sign-in is needed: words, streams, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import __version__, errors, output, screens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
VIEW = {
    "name": "monthly",
    "level": "user",
    "model": None,
    "limit": 20_000_000,
    "spent": 5_000_000,
    "held": 1_000_000,
    "remaining": 14_000_000,
    "resets_at": "2026-12-01T00:00:00Z",
}


def llmgw(environ: dict[str, str], *words: str) -> tuple[int, str, str]:
    argv = [sys.executable, "-c", "from llmgw_agent.cli import main; main()", *words]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def configured(environ: dict[str, str], home: Path) -> Iterator[dict[str, str]]:
    (home / "config.toml").write_text('gateway_url = "http://127.0.0.1:9"\n')
    yield environ
    llmgw(environ, "daemon", "stop")


def test_version_and_help(environ: dict[str, str]) -> None:
    assert llmgw(environ, "--version") == (0, f"llmgw, version {__version__}\n", "")
    code, stdout, stderr = llmgw(environ, "--help")
    assert (code, stderr) == (0, "")
    assert all(word in stdout for word in ("login", "logout", "token", "status", "whoami", "daemon"))


@pytest.mark.parametrize(
    ("line", "helps"),
    [
        ("nonsense", "llmgw"),
        ("status --nonsense", "llmgw status"),
        ("login --method telepathy", "llmgw login"),
        ("completion", "llmgw completion"),
        ("forward container box --ttl soon", "llmgw forward container"),
    ],
)
def test_usage_errors_are_one_line(environ: dict[str, str], line: str, helps: str) -> None:
    code, stdout, stderr = llmgw(environ, *line.split())
    assert (code, stdout) == (2, "")
    assert stderr.startswith("llmgw: ")
    assert stderr.endswith(f". Run: {helps} --help\n")
    assert stderr.count("\n") == 1


def test_a_usage_error_is_one_object_for_programs(environ: dict[str, str]) -> None:
    code, stdout, _ = llmgw(environ, "setup", "claude", "--nonsense", "--json")
    error = {
        "code": "usage",
        "message": "No such option '--nonsense'",
        "hint": "Run: llmgw setup --help",
        "exit_code": 2,
    }
    assert (code, json.loads(stdout)) == (2, {"schema": 1, "ok": False, "error": error})


def test_without_settings_every_command_says_what_is_missing(environ: dict[str, str], home: Path) -> None:
    expected = (
        f"llmgw: no gateway is set (gateway_url in {home}/config.toml, or LLMGW_GATEWAY_URL). "
        "Correct this and repeat the command\n"
    )
    for words in (("token",), ("status",), ("login", "--no-browser"), ("daemon",)):
        assert llmgw(environ, *words) == (8, "", expected)
    assert llmgw(environ, "daemon", "stop") == (0, "The agent is not running.\n", "")


def test_nobody_is_signed_in(configured: dict[str, str]) -> None:
    assert llmgw(configured, "token") == (4, "", "llmgw: you are not signed in. Run: llmgw login\n")
    code, stdout, _ = llmgw(configured, "status", "--json")
    document = json.loads(stdout)
    assert code == document["error"]["exit_code"] == 4
    assert document["schema"] == 1
    assert document["gateway"]["reachable"] is False
    assert document["storage"]["description"].startswith("memory only: no desktop session")
    assert llmgw(configured, "whoami")[0] == 4
    code, stdout, stderr = llmgw(configured, "login", "--no-browser")
    assert (code, stdout) == (6, "")
    assert stderr.startswith("llmgw: 127.0.0.1:9 cannot be reached")


def test_a_second_daemon_steps_back(configured: dict[str, str]) -> None:
    assert llmgw(configured, "token")[0] == 4
    assert llmgw(configured, "daemon") == (0, "", "The agent is already running.\n")


def test_stopping_removes_the_socket(configured: dict[str, str], socket_path: Path) -> None:
    assert llmgw(configured, "token")[0] == 4
    code, stdout, _ = llmgw(configured, "daemon", "stop")
    assert (code, stdout.startswith("The agent (process ")) == (0, True)
    deadline = time.monotonic() + 5
    while socket_path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_cli_imports_nothing_heavy() -> None:
    heavy = {"aiohttp", "cryptography", "jwt", "keyring", "msal"}
    code = f"import sys, llmgw_agent.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_daemon_loads_only_what_it_needs_at_once() -> None:
    """Without the sign-in at Entra ID, and what brings it, an idle agent is a sixth smaller."""
    heavy = {"msal", "requests", "urllib3", "keyring", "truststore._macos"}
    code = f"import sys, llmgw_agent.daemon; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_daemon_keeps_others_out_of_its_memory() -> None:
    code = (
        "import ctypes, resource; from llmgw_agent.system import harden; harden(); "
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("0 (0, 0)\n" if sys.platform == "linux" else done.stdout)


def test_a_budget_is_a_sentence_and_a_bar() -> None:
    assert screens.budget(VIEW, NOW) == "monthly (user): $14.00 left, resets in 9 d 12 h"
    assert screens.bar(VIEW) == "[######--------------]  30%  $6.00 of $20.00"
    assert screens.bar(VIEW | {"limit": 0}) == "[####################] 100%  $6.00 of $0.00"
    tokens = {"unit": "tokens", "limit": 5_000_000, "spent": 1_200_000, "held": 50_000, "remaining": 3_750_000}
    assert screens.budget(VIEW | tokens | {"model": "opus"}, NOW) == (
        "monthly (user, opus): 3,750,000 tokens left, resets in 9 d 12 h"
    )
    assert screens.bar(VIEW | tokens) == "[#####---------------]  25%  1,250,000 of 5,000,000"


def test_the_status_line_takes_a_short_way_to_the_same_words(configured: dict[str, str]) -> None:
    code = "import sys; sys.argv[1:] = ['statusline']; from llmgw_agent.entry import main; main(); sys.stdout.flush()"
    seen = f"{code}; print('click' in sys.modules, file=sys.stderr)"
    away = subprocess.run([sys.executable, "-c", seen], env=configured, capture_output=True, text=True, check=False)
    assert away.stdout == "llmgw: the agent is not running\n"  # the long way, which ends the process itself
    assert llmgw(configured, "token")[0] == 4
    done = subprocess.run([sys.executable, "-c", seen], env=configured, capture_output=True, text=True, check=True)
    assert done.stderr == "False\n"
    assert done.stdout == "llmgw: you are not signed in. Run: llmgw login\n"
    assert llmgw(configured, "statusline") == (0, done.stdout, "")


def test_exit_codes_are_a_contract() -> None:
    assert {kind.code: kind.exit_code for kind in errors.CLASSES.values()} == {
        "internal": 1,
        "usage": 2,
        "sign_in_required": 4,
        "refused": 5,
        "temporary": 6,
        "daemon": 7,
        "configuration": 8,
    }


def test_an_error_is_always_one_line() -> None:
    failure = errors.RefusedError("first\nsecond\x1b[31m", "Run: llmgw login")
    assert output.error(failure) == "llmgw: first second [31m. Run: llmgw login"
