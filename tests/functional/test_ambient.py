"""CI jobs and pods: `llmgw token` and `llmgw-token` without a daemon, from an identity that the machine has."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from llmgw_agent.ambient import github_token
from llmgw_agent.errors import TemporaryError
from llmgw_agent.outgoing import Outgoing, trust
from tests.functional.device import Device
from tests.lab.agent import Agent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.lab.gateway import Gateway


@pytest.fixture
def job(gateway: Gateway, tmp_path: Path) -> Agent:
    """A machine without a daemon; it is not entered."""
    machine = Agent(tmp_path / "job", gateway_url=gateway.url)
    machine.folder.mkdir()
    machine.env["LLMGW_GATEWAY_URL"] = gateway.url
    return machine


def is_good(gateway: Gateway, token: str) -> bool:
    return Device(gateway.url).request("GET", "/v1/me", token=token.strip()).status == 200


def test_a_token_from_a_variable_and_from_a_file(
    job: Agent, gateway: Gateway, sign_in: Callable[[str], str], tmp_path: Path
) -> None:
    identity = sign_in("ada")
    job.env["LLMGW_ID_TOKEN"] = identity
    for done in (job.token(), job.command("token")):
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1
        assert is_good(gateway, done.stdout)
    document = json.loads(job.command("token", "--json").stdout)
    assert is_good(gateway, document["token"]["value"])
    assert 0 < document["token"]["seconds_left"] <= 600
    del job.env["LLMGW_ID_TOKEN"]
    mounted = tmp_path / "token"
    mounted.write_text(identity + "\n")
    job.env["LLMGW_ID_TOKEN_FILE"] = str(mounted)
    assert is_good(gateway, job.token().stdout)
    assert not job.socket.exists()  # nobody was started
    assert not job.home.exists()  # and nothing is kept


@pytest.mark.parametrize(
    ("variable", "value", "code", "words"),
    [
        ("LLMGW_ID_TOKEN", "nonsense", 8, "is no JWT"),
        (
            "LLMGW_ID_TOKEN",
            "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL290aGVyIn0.",
            5,
            "accepts no identity of 'https://other'",
        ),
        ("LLMGW_ID_TOKEN_FILE", "/nowhere/token", 8, "cannot be read (FileNotFoundError)"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:9/", 5, "https://token.actions.githubusercontent.com"),
    ],
)
def test_what_is_wrong_is_one_line(job: Agent, variable: str, value: str, code: int, words: str) -> None:
    job.env[variable] = value
    for done in (job.token(), job.command("token")):
        assert (done.exit_code, done.stdout) == (code, "")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr


def test_a_token_that_the_gateway_does_not_believe(job: Agent, sign_in: Callable[[str], str]) -> None:
    head, body, signature = sign_in("ada").split(".")
    job.env["LLMGW_ID_TOKEN"] = f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    done = job.token()
    assert (done.exit_code, done.stdout) == (4, "")
    assert "look at its age" in done.stderr
    assert "llmgw login" not in done.stderr


@pytest.fixture
def github() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """What GitHub's runner offers to a job: its address, and what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            audience = parse_qs(urlsplit(self.path).query)["audience"][0]
            asked.append((self.headers["Authorization"], audience))
            is_ours = self.headers["Authorization"] == "Bearer of-the-job"
            body = json.dumps({"count": 1, "value": "the.job.token"} if is_ours else {"message": "no"}).encode()
            self.send_response(200 if is_ours else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token?api-version=2.0", asked
        server.shutdown()
        thread.join()


async def test_github_is_asked_for_a_token_of_our_audience(github: tuple[str, list[tuple[str, str]]]) -> None:
    url, asked = github
    outgoing = Outgoing(trust(None))
    environ = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job"}
    assert (await github_token(environ, "https://llm.corp.example?a&b", outgoing)).reveal() == "the.job.token"
    assert asked == [("Bearer of-the-job", "https://llm.corp.example?a&b")]
    with pytest.raises(TemporaryError, match=r"gave no token for this job \(403\)"):
        await github_token(environ | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "another"}, "x", outgoing)
    await outgoing.close()
