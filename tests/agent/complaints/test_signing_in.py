"""What users of other tools complain of when they sign in; docs/agent-complaints.md has them all."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from llmgw_agent.outgoing import Outgoing, trust
from llmgw_agent.session.callback import Callback
from llmgw_agent.session.entra import EntraProvider
from llmgw_agent.session.id_token import Discovery
from llmgw_agent.session.oidc import OidcProvider as OwnFlow
from tests.agent.test_sign_in import (
    allow,
    entra_like,
    entra_offer,
    get_token,
    needs_node,
    offer_of,
    read_code,
    read_url,
    say,
    sign_in_by_code,
    start_login,
)
from tests.lab.process import Finished

if TYPE_CHECKING:
    from pathlib import Path

    from tests.agent.small_gateway import SmallGateway
    from tests.lab.agent import Agent
    from tests.lab.oidc_provider import OidcProvider

__all__ = ["entra_like"]
pytestmark = needs_node
HELPERS = 20
NOBODY = Finished(4, "", "llmgw: you are not signed in. Run: llmgw login\n")


async def test_kubelogin_904_tools_open_no_browser_however_many_ask(agent: Agent, browser: Path) -> None:
    """Nor does anything that only looks. (kubelogin 1330, teleport 67310)"""
    agent.env |= {"BROWSER": str(browser), "DISPLAY": ":99", "CLAUDE_HELPER_CONTEXT": "interactive"}
    answers = await asyncio.gather(*(get_token(agent) for _ in range(HELPERS)))
    assert set(answers) == {NOBODY}
    for words in ("token", "status", "whoami", "usage", "statusline", "doctor", "status --json"):
        await say(agent, *words.split())
    assert not (browser.parent / "opened").exists()
    notices = [line for line in (agent.home / "agent.log").read_text().splitlines() if " notice: " in line]
    assert len(notices) <= 1, "one notification for the incident"


async def test_gcm_178_what_a_browser_prints_is_in_no_output(
    agent: Agent, browser: Path, oidc_provider: OidcProvider
) -> None:
    agent.env |= {"BROWSER": str(browser), "DISPLAY": ":99"}
    login = await start_login(agent, "--method", "browser", "--json")
    assert login.stderr is not None
    await login.stderr.readuntil(b"Waiting")  # the browser has ended by then
    (url,) = (browser.parent / "opened").read_text().split()
    await asyncio.to_thread(oidc_provider.person().sign_in, url)
    stdout, stderr = await login.communicate()
    assert json.loads(stdout)["account"]["email"] == "ada@example.com"
    assert b"hello" not in stderr
    assert b"warning" not in stderr


async def test_claude_code_96161_one_sign_in_heals_every_tool_that_runs(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    """Nothing is started anew: the next question of each is answered. (claude-code 23399)"""
    curl = ("run", "--", "sh", "-c", 'curl -s -H "x-api-key: $ANTHROPIC_AUTH_TOKEN" $ANTHROPIC_BASE_URL/v1/models')
    assert [await get_token(agent) for _ in range(3)] == [NOBODY] * 3
    assert "llmgw: you are not signed in. Run: llmgw login" in (await say(agent, *curl)).stdout
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    tokens = await asyncio.gather(*(get_token(agent) for _ in range(3)))
    assert {token.exit_code for token in tokens} == {0}
    assert (await say(agent, *curl)).stdout == "42"
    assert len(gateway.exchanges) == 1


async def test_aws_cli_9098_what_was_asked_for_and_worked_is_the_way_from_then_on(
    agent: Agent, oidc_provider: OidcProvider
) -> None:
    """A flag that this machine needs is given once, not every morning."""
    await allow(agent, "browser", "paste", "device")
    await sign_in_by_code(agent, oidc_provider)
    await say(agent, "logout")
    login = await start_login(agent, "--method", "auto")
    await read_code(login)
    login.terminate()
    await login.communicate()


async def test_aws_cli_9098_what_is_not_allowed_is_passed_over(agent: Agent) -> None:
    """MDM says which ways there are; nobody has to know it to sign in."""
    await allow(agent, "device")
    login = await start_login(agent, "--method", "auto")
    await read_code(login)
    login.terminate()
    await login.communicate()


async def test_kubelogin_389_no_port_is_wanted_twice() -> None:
    """Two sign-ins beside each other, of two users perhaps, never wait for a port."""
    callbacks = [Callback(host="127.0.0.1", path="/callback") for _ in range(8)]
    try:
        for callback in callbacks:
            await callback.start()
        assert len({callback.redirect_uri for callback in callbacks}) == len(callbacks)
    finally:
        for callback in callbacks:
            await callback.close()


async def test_kubelogin_1474_the_provider_asks_for_the_account_if_it_is_wanted(
    entra_like: OidcProvider, oidc_provider: OidcProvider
) -> None:
    outgoing = Outgoing(trust(entra_like.ca_file))
    discovery = Discovery(outgoing)
    try:
        for provider, offer in (
            (OwnFlow(outgoing, discovery), offer_of(oidc_provider)),
            (EntraProvider(discovery, trust(entra_like.ca_file)), entra_offer(entra_like)),
        ):
            for choose, prompt in ((True, ["select_account"]), (False, [])):
                attempt = await provider.begin(offer, "http://127.0.0.1:1/callback", choose_account=choose)
                assert parse_qs(urlsplit(attempt.url).query).get("prompt", []) == prompt
    finally:
        await outgoing.close()


async def test_kubelogin_1474_another_account_is_another_sign_in(agent: Agent) -> None:
    first = await start_login(agent, "--no-browser")
    await read_url(first)
    second = await start_login(agent, "--no-browser", "--choose-account")
    url = (await read_url(second))[-1]
    assert parse_qs(urlsplit(url).query)["prompt"] == ["select_account"]
    _, stderr = await first.communicate()
    assert (first.returncode, b"another sign-in was started instead" in stderr) == (2, True)
    await say(agent, "logout")  # ends the one under way, and with it the command
    await second.communicate()


@pytest.mark.skipif(os.name != "posix", reason="a shell script in place of a browser")
async def test_claude_code_75428_the_reason_comes_at_once_when_nobody_is_signed_in(agent: Agent) -> None:
    """Asked as Claude Code asks: through a shell, with nothing on its standard input."""
    child = await asyncio.create_subprocess_shell(
        agent.token_command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=agent.env,
    )
    stdout, stderr = await child.communicate()
    assert Finished(child.returncode or 0, stdout.decode(), stderr.decode()) == NOBODY
