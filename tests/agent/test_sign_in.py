"""Whole sign-ins with the real commands and a certified provider; only the gateway is ours to command."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import ACCESS_TOKEN_TYPE, IssuerOffer
from tests.lab import node
from tests.lab.agent import Agent, installed
from tests.lab.oidc_provider import CLIENT_ID, RESOURCE_SCOPE, OidcProvider
from tests.lab.process import Finished

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.agent.small_gateway import SmallGateway

needs_node = pytest.mark.skipif(not node.available(), reason="needs Node and npm")
pytestmark = needs_node


def offer_of(provider: OidcProvider) -> IssuerOffer:
    return IssuerOffer(issuer=provider.issuer, client_id=CLIENT_ID)


@pytest.fixture(scope="module")
def entra_like(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    with OidcProvider.like_entra(tmp_path_factory.mktemp("entra")) as running:
        yield running


@pytest.fixture
async def agent(tmp_path: Path, gateway: SmallGateway, oidc_provider: OidcProvider) -> AsyncIterator[Agent]:
    gateway.offers = (offer_of(oidc_provider),)
    running = Agent(tmp_path, gateway_url=gateway.url)
    await asyncio.to_thread(running.__enter__)
    yield running
    await asyncio.to_thread(running.__exit__, None, None, None)


async def say(agent: Agent, *words: str) -> Finished:
    return await asyncio.to_thread(agent.command, *words)


async def get_token(agent: Agent) -> Finished:
    return await asyncio.to_thread(agent.token)


async def test_sign_in_token_status_and_sign_out(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    printed = await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    assert f"Signed in as ada@example.com ({oidc_provider.issuer})." in printed
    assert len(gateway.exchanges) == 1, "the first exchange is part of the sign-in"
    assert gateway.exchanges[0]["subject_token_type"].endswith(":id_token")

    token = await get_token(agent)
    assert (token.exit_code, token.stderr) == (0, "")
    assert token.stdout.startswith("gw.")

    screen = await say(agent, "status")
    assert (screen.exit_code, screen.stderr) == (0, "")
    assert "monthly (user): $15.00 left, resets in " in screen.stdout
    assert "[#####---------------]  25%  $5.00 of $20.00\n" in screen.stdout
    assert "request limit (user): 1,197 of 1,200 requests a minute left" in screen.stdout
    document = json.loads((await say(agent, "status", "--json")).stdout)
    assert document["schema"] == 1
    assert document["ok"] is document["signed_in"] is document["gateway"]["reachable"] is True
    assert document["account"]["email"] == "ada@example.com"
    assert document["budgets"][0]["remaining"] == 15_000_000
    assert document["limits"][0]["remaining"] == 1_197
    assert 590 <= document["token"]["seconds_left"] <= 600
    assert "Person        per_1" in (await say(agent, "whoami")).stdout

    out = await say(agent, "logout")
    assert out.exit_code == 0
    assert f"Revoked at {oidc_provider.issuer}." in out.stdout
    assert gateway.revoked == [token.stdout.strip()]
    assert await get_token(agent) == type(token)(4, "", "llmgw: you are not signed in. Run: llmgw login\n")
    assert (await say(agent, "status")).exit_code == 4
    assert await say(agent, "logout") == type(token)(0, "You were not signed in.\n", "")
    log = (agent.home / "agent.log").read_text()
    for secret in (token.stdout.strip(), gateway.exchanges[0]["subject_token"]):
        assert secret not in log


async def test_fifty_tools_at_once_after_the_token_has_aged(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    gateway.life = 1
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    gateway.life, gateway.delay = 600, 1.0
    await asyncio.sleep(0.6)
    commands = [
        await asyncio.create_subprocess_exec(
            installed("llmgw-token"), env=agent.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(50)
    ]
    outputs = {output for output, _ in await asyncio.gather(*(command.communicate() for command in commands))}
    assert len(outputs) == 1
    assert outputs.pop().startswith(b"gw.")
    assert len(gateway.exchanges) == 2


async def test_a_stale_sign_in_is_renewed_at_the_provider(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    gateway.life = 1
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    gateway.life = 600
    gateway.refusals = [ErrorCode.SIGN_IN_STALE]
    await asyncio.sleep(1.1)
    assert (await get_token(agent)).exit_code == 0
    shown = [exchange["subject_token"] for exchange in gateway.exchanges]
    assert len(shown) == 3
    assert shown[1] == shown[0]
    assert shown[2] != shown[1]


async def test_a_sign_out_beside_an_exchange_revokes_what_the_exchange_brings(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    gateway.life = 1
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    gateway.life = 600
    gateway.open.clear()
    tool = asyncio.create_task(get_token(agent))
    while len(gateway.exchanges) < 2:  # the token of one second is too old now, or soon
        await asyncio.sleep(0.01)
        tool = asyncio.create_task(get_token(agent)) if tool.done() else tool
    out = asyncio.create_task(say(agent, "logout"))
    gateway.open.set()
    assert f"Revoked at {gateway.url}." in (await out).stdout
    token = await tool
    assert token.exit_code != 0 or gateway.revoked == [token.stdout.strip()]
    assert (await get_token(agent)).exit_code == 4


async def test_a_provider_that_is_away_ends_the_sign_in_at_once(
    tmp_path: Path, agent: Agent, gateway: SmallGateway
) -> None:
    """Also when its metadata was read a moment ago: nobody is sent to a page that does not open."""
    with OidcProvider(tmp_path / "own") as provider:
        gateway.offers = (offer_of(provider),)
        await asyncio.to_thread(agent.sign_in, provider.person().sign_in)
    assert await say(agent, "login", "--no-browser") == Finished(
        *(6, ""),
        f"llmgw: {urlsplit(provider.issuer).netloc} cannot be reached (ClientConnectorError). "
        "Check the network (VPN?) and try again\n",
    )


async def test_a_refusal_by_the_gateway_is_the_outcome_of_the_sign_in(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    gateway.refusals = [ErrorCode.PERSON_DISABLED] * 3
    login = await start_login(agent)
    url = (await read_url(login))[-1]
    await asyncio.to_thread(oidc_provider.person().sign_in, url)
    stdout, stderr = await login.communicate()
    assert (login.returncode, stdout) == (5, b"")
    assert stderr.endswith(b"llmgw: the gateway refused: Said no. Ask whoever runs the gateway\n")


async def test_two_terminals_share_one_sign_in(agent: Agent, oidc_provider: OidcProvider) -> None:
    logins = [await start_login(agent) for _ in range(2)]
    urls = {(await read_url(login))[-1] for login in logins}
    assert len(urls) == 1
    await asyncio.to_thread(oidc_provider.person().sign_in, urls.pop())
    for login in logins:
        stdout, _ = await login.communicate()
        assert stdout == f"Signed in as ada@example.com ({oidc_provider.issuer}).\n".encode()


async def test_a_pasted_address_signs_in(agent: Agent, oidc_provider: OidcProvider) -> None:
    """The person's browser is elsewhere: it stops at the last redirect, whose address is brought back by hand."""
    login = await start_login(agent, "--method", "paste")
    url = (await read_url(login))[-1]
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert query["code_challenge_method"] == "S256"
    assert len(query["state"]) == len(query["nonce"]) == 43
    assert login.stdin is not None
    login.stdin.write(b"http://127.0.0.1/callback?state=wrong&code=x\n")
    login.stdin.write(
        f"{query['redirect_uri']}?state={query['state']}&error=access_denied&iss={oidc_provider.issuer}\n".encode()
    )
    stdout, stderr = await login.communicate()
    assert (login.returncode, stdout) == (5, b"")
    assert b"that is not the address of this sign-in" in stderr
    assert stderr.endswith(
        f"llmgw: {oidc_provider.issuer} did not sign you in (access_denied). Run: llmgw login\n".encode()
    )


async def test_an_answer_of_another_issuer_is_refused(agent: Agent, oidc_provider: OidcProvider) -> None:
    """RFC 9207: the provider announces that it names itself, so an answer without or with another name is none."""
    login = await start_login(agent, "--method", "paste")
    query = parse_qs(urlsplit((await read_url(login))[-1]).query)
    assert login.stdin is not None
    login.stdin.write(f"http://x/?state={query['state'][0]}&code=x&iss=https://evil.example\n".encode())
    _, stderr = await login.communicate()
    assert login.returncode == 5
    assert f"did not come from {oidc_provider.issuer}".encode() in stderr


async def test_an_issuer_that_the_gateway_does_not_accept(agent: Agent, oidc_provider: OidcProvider) -> None:
    refused = await say(agent, "login", "--issuer", "https://evil.example")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"It accepts: {oidc_provider.issuer}" in refused.stderr


def entra_offer(provider: OidcProvider) -> IssuerOffer:
    return IssuerOffer(
        issuer=provider.issuer,
        client_id=CLIENT_ID,
        kind="entra",
        scopes=(RESOURCE_SCOPE, "offline_access"),
        subject_token_type=ACCESS_TOKEN_TYPE,
        redirect_host="localhost",
        response_mode="form_post",
    )


async def test_entra_through_msal(tmp_path: Path, gateway: SmallGateway, entra_like: OidcProvider) -> None:
    gateway.offers = (entra_offer(entra_like),)
    gateway.life = 1
    agent = Agent(tmp_path, gateway_url=gateway.url, ca_file=entra_like.ca_file)
    await asyncio.to_thread(agent.__enter__)
    try:
        printed = await asyncio.to_thread(agent.sign_in, entra_like.person().sign_in)
        assert "Signed in as ada@example.com" in printed
        document = json.loads((await say(agent, "status", "--json")).stdout)
        assert document["account"]["subject"].count("/") == 1
        gateway.refusals = [ErrorCode.SIGN_IN_STALE]
        await asyncio.sleep(1.1)
        assert (await get_token(agent)).exit_code == 0
        assert len({exchange["subject_token"] for exchange in gateway.exchanges}) == 2
    finally:
        await asyncio.to_thread(agent.__exit__, None, None, None)


async def test_a_code_that_is_typed_in_elsewhere_signs_in(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    refused = await say(agent, "login", "--method", "device")
    assert refused == Finished(
        5, "", "llmgw: signing in by device is not allowed here. Run: llmgw login --method browser\n"
    )
    await allow(agent, "device")
    await sign_in_by_code(agent, oidc_provider)
    token = await get_token(agent)
    assert (token.exit_code, len(gateway.exchanges)) == (0, 1)
    pasted = await say(agent, "login", "--method", "paste")
    assert (pasted.exit_code, "signing in by paste is not allowed" in pasted.stderr) == (5, True)
    assert f"Revoked at {oidc_provider.issuer}." in (await say(agent, "logout")).stdout


async def test_a_code_that_its_reader_declines(agent: Agent, oidc_provider: OidcProvider) -> None:
    await allow(agent, "device")
    login = await start_login(agent, "--method", "device")
    code, url = await read_code(login)
    await asyncio.to_thread(oidc_provider.person().sign_in, url, user_code=code, declines=True)
    _, stderr = await login.communicate()
    assert login.returncode == 5
    assert stderr.endswith(
        f"llmgw: {oidc_provider.issuer} did not sign you in (access_denied). Run: llmgw login\n".encode()
    )


async def test_another_way_to_sign_in_takes_the_place_of_the_one_before(
    agent: Agent, oidc_provider: OidcProvider
) -> None:
    await allow(agent, "browser", "device")
    first = await start_login(agent)
    await read_url(first)
    second = await start_login(agent, "--method", "device")
    await read_url(second)
    _, stderr = await first.communicate()
    assert (first.returncode, b"another sign-in was started instead" in stderr) == (2, True)
    third = await start_login(agent, "--method", "device")
    code, url = await read_code(third)
    await asyncio.to_thread(oidc_provider.person().sign_in, url, user_code=code)
    for login in (second, third):
        await login.communicate()
        assert login.returncode == 0, "both hold the same code"


async def test_entra_by_code_and_by_a_pasted_address(
    tmp_path: Path, gateway: SmallGateway, entra_like: OidcProvider
) -> None:
    gateway.offers = (entra_offer(entra_like),)
    gateway.life = 1
    agent = Agent(tmp_path, gateway_url=gateway.url, ca_file=entra_like.ca_file)
    agent.settings["sign_in_methods"] = ["device", "paste"]
    await asyncio.to_thread(agent.__enter__)
    try:
        await sign_in_by_code(agent, entra_like)
        gateway.refusals = [ErrorCode.SIGN_IN_STALE]
        while len(gateway.exchanges) < 3:  # as soon as the token of one second is too old
            assert (await get_token(agent)).exit_code == 0
        shown = [exchange["subject_token"] for exchange in gateway.exchanges]
        assert shown[2] not in shown[:2], "what MSAL kept of the code's answer renews the sign-in"
        login = await start_login(agent, "--method", "paste")
        page = await asyncio.to_thread(
            entra_like.person(unreachable="http://localhost").sign_in, (await read_url(login))[-1]
        )
        stdout, stderr = await login.communicate(f"{page.url}\n".encode())
        assert (login.returncode, stdout.startswith(b"Signed in as ada@example.com")) == (0, True), stderr
    finally:
        await asyncio.to_thread(agent.__exit__, None, None, None)


async def test_the_daemon_drains_on_sigterm(agent: Agent) -> None:
    assert await asyncio.to_thread(agent.program.terminate) == 0
    assert not agent.socket.exists()


async def test_a_provider_that_forgot_everybody_ends_the_session(
    tmp_path: Path, agent: Agent, gateway: SmallGateway
) -> None:
    gateway.life = 1
    with OidcProvider(tmp_path / "own") as provider:
        gateway.offers = (offer_of(provider),)
        await asyncio.to_thread(agent.sign_in, provider.person().sign_in)
        await asyncio.to_thread(provider.restart)
        gateway.refusals = [ErrorCode.SIGN_IN_STALE]
        await asyncio.sleep(1.1)
        ended = f"llmgw: {provider.issuer} ended the sign-in (invalid_grant). Run: llmgw login\n"
        for _ in range(2):
            assert await get_token(agent) == type(await get_token(agent))(4, "", ended)
        notices = [line for line in (agent.home / "agent.log").read_text().splitlines() if " notice: " in line]
        assert [line.partition(" notice: ")[2] for line in notices] == [ended.strip().removeprefix("llmgw: ")]
        assert await say(agent, "statusline") == Finished(0, ended, "")
    assert json.loads((await say(agent, "status", "--json")).stdout)["signed_in"] is False


async def test_a_gateway_that_is_gone_leaves_the_sign_in_alone(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    gateway.life = 1
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    await gateway._runner.cleanup()
    await asyncio.sleep(1.1)
    token = await get_token(agent)
    assert (token.exit_code, token.stdout) == (6, "")
    status = json.loads((await say(agent, "status", "--json")).stdout)
    assert (status["signed_in"], status["gateway"]["reachable"], status["error"]["exit_code"]) == (True, False, 6)


async def allow(agent: Agent, *methods: str) -> None:
    """Other ways to sign in than those that the daemon was started with."""
    agent.settings["sign_in_methods"] = list(methods)
    await asyncio.to_thread(agent.restart)


async def sign_in_by_code(agent: Agent, provider: OidcProvider) -> None:
    login = await start_login(agent, "--method", "device")
    code, url = await read_code(login)
    await asyncio.to_thread(provider.person().sign_in, url, user_code=code)
    stdout, stderr = await login.communicate()
    assert (login.returncode, stdout) == (0, f"Signed in as ada@example.com ({provider.issuer}).\n".encode()), stderr


async def read_code(login: asyncio.subprocess.Process) -> tuple[str, str]:
    """The code and the page that wants it."""
    words, url = await read_url(login)
    found = re.search(r"enter the code (\S+) ", words)
    assert found, words
    assert found[1] not in url, "a link that holds the code is how people are phished"
    return found[1], url


async def start_login(agent: Agent, *words: str) -> asyncio.subprocess.Process:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = words or ("--no-browser",)
    return await asyncio.create_subprocess_exec(installed("llmgw"), "login", *words, env=agent.env, **pipes)  # type: ignore[arg-type] # three equal types


async def read_url(login: asyncio.subprocess.Process) -> list[str]:
    assert login.stdout is not None
    return [(await login.stdout.readline()).decode().strip() for _ in range(2)]
