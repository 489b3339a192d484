"""`llmgw doctor` with the real daemon: each trouble is made, found, and told with its remedy."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_agent import claude_code
from llmgw_agent import doctor as examination
from tests.agent.test_sign_in import needs_node, offer_of
from tests.lab import certificates
from tests.lab.agent import Agent, installed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.agent.small_gateway import SmallGateway
    from tests.lab.certificates import ServerCertificate
    from tests.lab.oidc_provider import OidcProvider


@pytest.fixture
async def agent(tmp_path: Path, gateway: SmallGateway) -> AsyncIterator[Agent]:
    running = Agent(tmp_path, gateway_url=gateway.url)
    await asyncio.to_thread(running.__enter__)
    yield running
    await asyncio.to_thread(running.__exit__, None, None, None)


async def doctor(agent: Agent, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    done = await asyncio.to_thread(agent.command, "doctor", "--json", *words)
    document = json.loads(done.stdout)
    assert (document["schema"], done.stderr) == (1, "")
    assert document["ok"] is (done.exit_code == 0)
    return done.exit_code, {check["name"]: check for check in document["checks"]}


async def states(agent: Agent) -> dict[str, str]:
    return {name: check["state"] for name, check in (await doctor(agent))[1].items()}


@needs_node
async def test_a_laptop_that_works(agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider) -> None:
    gateway.offers = (offer_of(oidc_provider),)
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    code, checks = await doctor(agent)
    assert code == 0
    assert {name for name, check in checks.items() if check["state"] != "ok"} == {"keyring", "certificate", "claude"}
    assert checks["sign-in"]["found"] == f"ada@example.com ({oidc_provider.issuer})"
    assert checks["token"]["found"].startswith(f"{installed(claude_code.HELPER)} printed one in ")
    assert (await doctor(agent, "--strict"))[0] == 1, "the keyring is warned about"
    assert len(gateway.exchanges) == 1, "looking costs nothing"


async def test_the_screen(agent: Agent) -> None:
    done = await asyncio.to_thread(agent.command, "doctor")
    assert (done.exit_code, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    place = lines.index("fail  sign-in            you are not signed in")
    assert lines[place + 1 : place + 3] == [f"{'':24} right: signed in", f"{'':24} fix: Run: llmgw login"]
    assert lines[-1] == f"{len([line for line in lines[:-2] if line[0] != ' '])} checks: 1 failed, 1 to be looked at."


async def test_faulty_settings_come_before_everything_else(agent: Agent) -> None:
    (agent.home / "config.toml").write_text("gateway = 1")
    code, checks = await doctor(agent)
    assert (code, set(checks)) == (1, {"settings", "agent"})
    assert "'gateway' is not a setting" in checks["settings"]["found"]


async def test_a_gateway_that_is_away(agent: Agent, gateway: SmallGateway) -> None:
    await gateway._runner.cleanup()
    found = await states(agent)
    assert (found["gateway"], found.get("clock")) == ("fail", None)


async def test_a_clock_that_is_wrong(agent: Agent, gateway: SmallGateway) -> None:
    gateway.clock_offset = 600
    _, checks = await doctor(agent)
    assert checks["clock"]["state"] == "warn"
    assert re.fullmatch(r"(599|600|601)(\.\d)? s behind the gateway's", checks["clock"]["found"])


async def test_files_that_others_can_change(agent: Agent) -> None:
    (agent.home / "config.toml").chmod(0o666)
    _, checks = await doctor(agent)
    assert checks["files"]["fix"] == f"chmod go-w '{agent.home}/config.toml'"


async def test_a_command_that_is_not_on_the_path(agent: Agent) -> None:
    llmgw = installed("llmgw")
    agent.env["PATH"] = "/usr/bin:/bin"
    done = await asyncio.to_thread(agent.command, "doctor", "--json")
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}["token command"]
    assert (found["state"], found["right"]) == ("warn", f"{llmgw.with_name(claude_code.HELPER)} on your PATH")


@needs_node
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo gw.canary; echo hello", "something else than one token"),
        ("echo gw.canary hello", "something else than one token"),
        ("exit 0", "something else than one token"),
        ("echo 'llmgw: the cat is away. Wait' >&2; exit 6", "the cat is away"),
        ("echo gw.canary; echo warned >&2", "warned"),
    ],
)
async def test_a_token_command_that_tools_cannot_use(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider, script: str, words: str
) -> None:
    """Such as a wrapper that somebody put on the PATH."""
    gateway.offers = (offer_of(oidc_provider),)
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    wrapper = agent.folder / "bin" / claude_code.HELPER
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\n{script}\n")
    wrapper.chmod(0o755)
    agent.env["PATH"] = f"{wrapper.parent}:{agent.env['PATH']}"
    _, checks = await doctor(agent)
    assert checks["token"]["state"] == "fail"
    assert words in checks["token"]["found"]
    assert "canary" not in str(checks)


@pytest.mark.parametrize(
    ("spared", "state"), [("", "warn"), ("localhost", "warn"), ("localhost, 127.0.0.1,corp.example", "ok")]
)
async def test_a_proxy_is_named_and_its_password_is_not(agent: Agent, spared: str, state: str) -> None:
    agent.env |= {"HTTPS_PROXY": "http://user:canary@proxy.example:3128", "NO_PROXY": spared}
    _, checks = await doctor(agent)
    assert checks["proxy"]["state"] == state
    assert "canary" not in str(checks)


def test_another_version_that_still_runs() -> None:
    status: dict[str, Any] = {
        "daemon": {"version": "0.0.9", "pid": 1},
        "storage": {"persistent": True, "description": "encrypted file"},
    }
    assert [(check.name, check.state.value) for check in examination._agent(status)] == [
        ("agent", "fail"),
        ("keyring", "ok"),
    ]


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, ServerCertificate]]:
    """A server with a certificate of the laboratory's authority."""
    files = certificates.issue(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # whoever does not trust it hangs up
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}", files
        server.shutdown()
        thread.join()


@pytest.fixture
async def unstarted(tmp_path: Path) -> AsyncIterator[Callable[..., Agent]]:
    """Makes laptops whose agent is started by whatever command needs it; it ends with the test, however that ends."""
    made: list[Agent] = []

    def make(name: str, url: str, **more: Path | None) -> Agent:
        (tmp_path / name).mkdir(mode=0o700)
        made.append(Agent(tmp_path / name, gateway_url=url, **more))
        made[-1].prepare()
        return made[-1]

    yield make
    for agent in made:
        await asyncio.to_thread(agent.command, "daemon", "stop")


async def test_the_issuer_that_is_seen_is_named(
    unstarted: Callable[..., Agent], tls: tuple[str, ServerCertificate]
) -> None:
    url, files = tls
    check = (await doctor(unstarted("a", url)))[1]["certificate"]
    assert check["state"] == "fail"
    assert check["found"].startswith("issued by CN=llmgw lab authority, good for ")
    assert "TLSv1.3, and not trusted (" in check["found"]
    check = (await doctor(unstarted("b", url, ca_file=files.ca)))[1]["certificate"]
    assert check["state"] == "ok"
    assert check["found"].startswith("issued by CN=llmgw lab authority, good for ")
