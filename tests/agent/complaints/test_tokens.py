"""What users of other tools complain of when they ask for a token, or look at how things stand."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import llmgw_agent
from llmgw_agent.cli import main
from llmgw_agent.outgoing import Outgoing, trust
from llmgw_agent.vault import Keyring, Vault
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret
from tests.agent.test_sign_in import get_token, needs_node, say
from tests.lab import certificates
from tests.lab.agent import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click

    from tests.agent.small_gateway import SmallGateway
    from tests.lab.agent import Agent
    from tests.lab.oidc_provider import OidcProvider

SWITCHES = ("DEVMODE", "VERBOSE", "PROFILEIMPORTTIME", "FAULTHANDLER", "MALLOCSTATS", "TRACEMALLOC", "INSPECT", "UTF8")
LOUD = {f"PYTHON{name}": "1" for name in (*SWITCHES, "ASYNCIODEBUG")}
LOUD |= {"PYTHONWARNINGS": "error", "PYTHONIOENCODING": "utf-16", "LC_ALL": "xx_XX"}
MOST_BYTES = 64
"""Of an item in a keyring. Windows takes 2560, some take less."""
WITHOUT_JSON = {"run", "completion", "daemon", "forward ssh"}
"""Commands whose output is not theirs to shape, or is made for a shell."""
SECONDS = 30


@needs_node
@pytest.mark.parametrize("running", [True, False], ids=["warm", "cold"])
async def test_aws_guidance_28_with_every_warning_switched_on_a_token_is_all_there_is(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider, *, running: bool
) -> None:
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    agent.env |= LOUD
    if not running:
        await asyncio.to_thread(agent.program.terminate)
    try:
        answer = await get_token(agent)
    finally:
        if not running:
            await say(agent, "daemon", "stop")
    assert len(gateway.exchanges) == 1
    if running:
        assert (answer.exit_code, len(answer.stdout.split()), answer.stderr) == (0, 1, "")
    else:  # without a keyring the sign-in ended with the agent that was there
        assert (answer.exit_code, answer.stdout, answer.stderr.count("\n")) == (4, "", 1)


class SmallKeyring(Keyring):
    """A keyring in memory."""

    def __init__(self, profile: str) -> None:
        super().__init__(profile)
        self.items: dict[str, str] = {}

    async def _call(self, request: dict[str, str]) -> str | None:
        if request["verb"] == "set":
            self.items[request["item"]] = request["value"]
        return self.items.get(request["item"])


async def test_aws_guidance_348_what_lies_in_the_keyring_is_small_however_large_the_sign_in(tmp_path: Path) -> None:
    """Groups and claims make tokens of many kilobytes. (aws 381, 427, 453; kubelogin 1257; keyring 619)"""
    vault, keyring = Vault(tmp_path / "vault.bin", "profile"), SmallKeyring("profile")
    vault._keyring = keyring
    await vault.open()
    items = set(keyring.items)
    for size in (10, 100_000, 1_000_000):
        await vault.put(sign_in="x" * size)
        await vault.close()
        assert set(keyring.items) == items | {"counter"}, "no item for each token"
        assert max(len(value) for value in keyring.items.values()) <= MOST_BYTES
    assert vault.get("sign_in") == "x" * 1_000_000


@pytest.fixture
def interceptor(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server behind a proxy that makes its certificates without key identifiers, as many do."""
    files = certificates.issue(tmp_path / "tls", identifiers=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://localhost:{server.server_port}/", files.ca
        server.shutdown()
        thread.join()


async def test_azure_cli_32108_a_company_s_authority_needs_no_key_identifiers(interceptor: tuple[str, Path]) -> None:
    """Newer Pythons refuse such certificates in their default context. (azure-cli 28050, 30468, 20921)"""
    url, ca_file = interceptor
    outgoing = Outgoing(trust(ca_file))
    try:
        assert (await outgoing.get(url)).status == 501, "it was reached: the server knows no GET"
    finally:
        await outgoing.close()


@needs_node
async def test_aws_guidance_768_a_refusal_ends_when_the_gateway_says_so(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    """Nothing is written down that would go on refusing. (aws 606, 666, 657, 677)"""
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    await say(agent, "daemon", "stop")
    await asyncio.to_thread(agent.program.wait, seconds=SECONDS)
    await asyncio.to_thread(agent.restart)
    gateway.refusals = [ErrorCode.PERSON_DISABLED]
    login = asyncio.create_task(asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in))
    with pytest.raises(Exception, match="the gateway refused: Said no"):
        await login
    deadline = time.monotonic() + SECONDS
    while (token := await get_token(agent)).exit_code != 0:
        assert (token.exit_code, token.stdout) == (5, "")
        assert time.monotonic() < deadline
    assert (await say(agent, "status")).exit_code == 0


def commands(group: click.Command, words: tuple[str, ...] = ()) -> list[tuple[str, click.Command]]:
    """Every command that does something by itself."""
    inner = getattr(group, "commands", {})
    own = [(" ".join(words), group)] if words and (not inner or getattr(group, "invoke_without_command", False)) else []
    return own + [found for name in inner for found in commands(inner[name], (*words, name))]


def test_cli_8637_every_command_can_be_read_by_a_program() -> None:
    """(cli 8845, 9326, 9434, jumpstarter 1037)"""
    without = {name for name, command in commands(main) if "--json" not in [o for p in command.params for o in p.opts]}
    assert without == WITHOUT_JSON


@pytest.mark.parametrize("words", ["status", "whoami", "usage", "token", "login --no-browser", "forward", "netcheck"])
def test_cli_8637_a_failure_is_one_object_with_a_schema_and_a_code(environ: dict[str, str], words: str) -> None:
    done = subprocess.run(
        [installed("llmgw"), *words.split(), "--json"], env=environ, capture_output=True, text=True, check=False
    )
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert document["error"]["exit_code"] == done.returncode == 8


def test_aws_guidance_649_nothing_that_is_compiled_is_shipped() -> None:
    """What scanners quarantine are programs that they do not know; these are texts. (aws 470)"""
    package = Path(llmgw_agent.__file__).parent
    kinds = {path.suffix for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds == {".py"}
    assert installed("llmgw-token").read_bytes().startswith(b"#!/bin/sh\n")


async def test_keyring_457_the_key_alone_opens_nothing_and_the_file_alone_neither(tmp_path: Path) -> None:
    """A program that may read the keychain item finds a key in it, no token. (flyte-sdk 1300, aws-vault 188, 219)"""
    vault, keyring = Vault(tmp_path / "vault.bin", "profile"), SmallKeyring("profile")
    vault._keyring = keyring
    await vault.open()
    await vault.put(sign_in="canary-token")
    await vault.close()
    assert "canary" not in str(keyring.items)
    assert b"canary" not in (tmp_path / "vault.bin").read_bytes()
    other, stranger = Vault(tmp_path / "vault.bin", "profile"), SmallKeyring("profile")
    stranger.items = dict(keyring.items) | {"key": Secret("A" * 43 + "=").reveal()}
    other._keyring = stranger
    await other.open()
    assert other.get("sign_in") is None
