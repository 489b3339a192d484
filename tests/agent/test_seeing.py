"""What `llmgw` shows of the network, of its settings and of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_agent import bugreport, netcheck, screens, settings
from llmgw_agent.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server:
    """Answers what it is told, and tells a time of its own."""

    def __init__(self) -> None:
        self.status, self.body, self.date = 200, b'{"issuers": []}', ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(outer.status)
                if outer.date:
                    self.send_header("Date", outer.date)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.http:
        thread = threading.Thread(target=made.http.serve_forever)
        thread.start()
        yield made
        made.http.shutdown()
        thread.join()


def examine(url: str, home: Path, **environ: str) -> dict[str, Any]:
    given = settings.load({"LLMGW_HOME": str(home), "LLMGW_GATEWAY_URL": url}, company=())
    return {check.name: check for check in netcheck.examine(given, environ)}


def test_every_step_up_to_the_first_that_fails(server: Server, home: Path) -> None:
    checks = examine(server.url, home)
    assert {name: check.state.value for name, check in checks.items()} == {
        "gateway name": "ok",
        "gateway port": "ok",
        "gateway answer": "ok",
        "gateway clock": "skip",
        "proxy": "ok",
        "sign-in": "skip",
    }
    checks = examine("https://no-such-host.invalid", home)
    assert checks["gateway name"].state.value == "fail"
    assert set(checks) == {"gateway name", "proxy", "sign-in"}


def test_a_portal_of_the_network_is_told_from_a_gateway(server: Server, home: Path) -> None:
    for status, body in ((302, b""), (200, b"<html>please sign in</html>"), (200, b"[]")):
        server.status, server.body = status, body
        check = examine(server.url, home)["gateway answer"]
        assert check.state.value == "fail"
        assert str(status) in check.found


def test_a_clock_that_is_wrong_is_told(server: Server, home: Path) -> None:
    server.date = "Sat, 01 Jan 2000 00:00:00 GMT"
    check = examine(server.url, home)["gateway clock"]
    assert check.state.value == "warn"
    assert "ahead" in check.found


def test_identity_providers_that_the_gateway_names_are_tried(server: Server, home: Path) -> None:
    server.body = json.dumps({"issuers": [{"issuer": server.url}, {"issuer": 1}, "x"]}).encode()
    checks = examine(server.url, home)
    assert checks["sign-in answer"].state.value == "ok"


def test_each_setting_says_where_it_comes_from(home: Path, tmp_path: Path) -> None:
    (home / "config.toml").write_text('gateway_url = "https://mine.example"\nforward_port = 4711\nnonsense = 1\n')
    company = tmp_path / "managed.toml"
    company.write_text('gateway_url = "https://company.example"\n')
    environ = {"LLMGW_HOME": str(home), "LLMGW_GATEWAY_URL": "https://shell.example"}
    found, faults = settings.explain(environ, [company], os.getuid())
    assert [(layer.value, layer.kind) for layer in found["gateway_url"]] == [
        ("https://mine.example", "user"),
        ("https://shell.example", "variable"),
        ("https://company.example", "company"),
    ]
    assert len(faults) == 1
    text = screens.settings(found, settings.DEFAULTS, faults)
    assert f"https://company.example ({company}, set by your company)" in text
    assert "overrules https://shell.example (LLMGW_GATEWAY_URL)" in text
    assert "sign_in_methods     browser,paste (default)" in text
    assert "Fault: " in text
    document = screens.settings_json(found, settings.DEFAULTS, faults)
    assert document["ok"] is False
    assert document["settings"][0]["managed"] is True
    assert set(settings.DEFAULTS) == set(found)


def test_a_bug_report_has_no_credential_and_no_name(home: Path, environ: dict[str, str], tmp_path: Path) -> None:
    canary = "llmgw-local-canary"
    home.joinpath("config.toml").write_text('gateway_url = "http://127.0.0.1:9"\n')
    home.joinpath("agent.log").write_text(f"said {canary}\nAuthorization: Bearer canary-token-1\n" * 3)
    environ |= {"ANTHROPIC_AUTH_TOKEN": "canary-token-2", "HTTPS_PROXY": "http://me:canary@p:1", "HOME": str(tmp_path)}
    sections = bugreport.collect(environ, tmp_path)
    stop = [sys.executable, "-c", "from llmgw_agent.cli import main; main()", "daemon", "stop"]
    subprocess.run(stop, env=environ, check=True)
    text = bugreport.text(sections)
    assert "canary" not in text
    assert "ANTHROPIC_AUTH_TOKEN" in sections["variables that are set (names only)"]
    assert "said [hidden]" in sections["the agent's log"]
    assert str(tmp_path) not in text
    path = tmp_path / "report.txt"
    bugreport.write(path, text)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError, match="cannot be made"):
        bugreport.write(path, text)


def test_names_that_are_known_are_taken_out() -> None:
    assert bugreport._without("Ada Lovelace <ada@corp.example>, A", ["Ada Lovelace", "ada@corp.example", "A"], "") == (
        "[hidden] <[hidden]>, A"
    )


COMPLETE = "from llmgw_agent.cli import main; main(prog_name='llmgw')"


@pytest.mark.parametrize(
    ("shell", "variables", "expected"),
    [
        ("bash", {"COMP_WORDS": "llmgw setup cl", "COMP_CWORD": "2"}, "plain,claude\n"),
        ("zsh", {"COMP_WORDS": "llmgw setup cl", "COMP_CWORD": "2"}, "plain\nclaude\n_\n"),
        ("fish", {"COMP_WORDS": "llmgw setup cl", "COMP_CWORD": "cl"}, "plain,claude\n"),
        ("powershell", {"COMP_WORDS": "llmgw setup cl", "COMP_WORD": "cl"}, "claude\n"),
        ("powershell", {"COMP_WORDS": "llmgw netc", "COMP_WORD": "netc"}, "netcheck\tTry the way to the gateway"),
        ("powershell", {"COMP_WORDS": "llmgw config ", "COMP_WORD": ""}, "explain\t"),
    ],
)
def test_completion(environ: dict[str, str], shell: str, variables: dict[str, str], expected: str) -> None:
    asked = environ | variables | {"_LLMGW_COMPLETE": f"{shell}_complete"}
    done = subprocess.run([sys.executable, "-c", COMPLETE], env=asked, capture_output=True, text=True, check=False)
    assert (done.stdout.startswith(expected), done.stderr) == (True, ""), done.stdout
    script = subprocess.run(
        [sys.executable, "-c", COMPLETE, "completion", shell], env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert "_LLMGW_COMPLETE" in script
    assert "%(" not in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
