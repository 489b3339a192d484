"""What ends sign-ins of other tools without need: sleep, clocks, networks, outages."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from llmgw_wire.errors import ErrorCode
from tests.agent.test_sign_in import get_token, needs_node, offer_of, say
from tests.lab.agent import Agent
from tests.lab.clock import Clock
from tests.lab.oidc_provider import OidcProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.agent.small_gateway import SmallGateway

pytestmark = [
    needs_node,
    pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler for the clock"),
]
HOUR = 3600
SECONDS = 30


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
async def agent(
    tmp_path: Path, gateway: SmallGateway, oidc_provider: OidcProvider, clock: Clock
) -> AsyncIterator[Agent]:
    """A laptop that lives by a clock of its own; gateway and provider have the right time."""
    gateway.offers = (offer_of(oidc_provider),)
    running = Agent(tmp_path, gateway_url=gateway.url)
    running.set_environment(**clock.environment)
    await asyncio.to_thread(running.__enter__)
    yield running
    await asyncio.to_thread(running.__exit__, None, None, None)


def notices(agent: Agent) -> list[str]:
    return [line for line in (agent.home / "agent.log").read_text().splitlines() if " notice: " in line]


async def test_pizauth_48_after_a_sleep_the_first_token_is_a_new_one(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider, clock: Clock
) -> None:
    """The process stands still while the clock goes on, and nothing was scheduled meanwhile. (CLIProxyAPI 5584)"""
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    before = (await get_token(agent)).stdout
    for hours in (1, 8, 24 * 7):
        agent.program.send_signal(signal.SIGSTOP)
        clock.set(hours * HOUR)
        agent.program.send_signal(signal.SIGCONT)
        after = await get_token(agent)
        assert (after.exit_code, after.stderr) == (0, "")
        assert after.stdout != before, "the token from before the sleep has ended"
        before = after.stdout
    assert len(gateway.exchanges) == 4
    assert notices(agent) == [], "nobody was bothered (claude-code 74016)"


@pytest.mark.parametrize("ahead", [600, -600, 86_400 * 400, -86_400 * 400], ids=["10min", "-10min", "400d", "-400d"])
async def test_azure_cli_20388_a_clock_that_is_wrong_costs_no_sign_in(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider, clock: Clock, ahead: int
) -> None:
    """Sign-in, exchange and renewal go by the clocks of those who judge. (zitadel 5322, globus-cli 830, hawk 1009)"""
    clock.set(ahead)
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    gateway.refusals = [ErrorCode.SIGN_IN_STALE]
    clock.set(ahead + HOUR)
    assert (await get_token(agent)).exit_code == 0
    assert len(gateway.exchanges) == 3
    assert "is not used" not in (agent.home / "agent.log").read_text(), "the renewed ID token was believed"
    status = await say(agent, "status")
    assert "clocks differ by " in status.stdout


async def test_azure_cli_20388_a_clock_that_is_set_while_the_agent_runs_costs_nothing(
    agent: Agent, oidc_provider: OidcProvider, clock: Clock
) -> None:
    await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
    for ahead in (HOUR, -HOUR, 0, -10 * HOUR, 60):
        clock.set(ahead)
        token = await get_token(agent)
        assert (token.exit_code, token.stderr) == (0, "")
    assert "not renewed" not in (agent.home / "agent.log").read_text()
    assert notices(agent) == []


@pytest.mark.parametrize("silent", [False, pytest.param(True, marks=pytest.mark.long)], ids=["gateway", "both"])
async def test_claude_code_92764_an_outage_needs_no_restart_and_no_sign_in(
    tmp_path: Path, agent: Agent, gateway: SmallGateway, clock: Clock, *, silent: bool
) -> None:
    """What is in hand is served meanwhile; afterwards it goes on by itself. (dorabot 42, opencode-claude-auth 273)"""
    with OidcProvider(tmp_path / "own") as provider:
        gateway.offers = (offer_of(provider),)
        await asyncio.to_thread(agent.sign_in, provider.person().sign_in)
        pid = agent.pid
        await gateway.go()
        assert (await get_token(agent)).exit_code == 0, "the token in hand is good"
        clock.set(HOUR)
        assert (await get_token(agent)).exit_code == 6
        gateway.refusals = [ErrorCode.SIGN_IN_STALE]  # so that the provider has to be asked
        if silent:
            provider.program.send_signal(signal.SIGSTOP)  # connections, and no answer: the worst kind of outage
            await gateway.come_back()
            while gateway.refusals:
                assert (await get_token(agent)).exit_code == 6
            provider.program.send_signal(signal.SIGCONT)
        else:
            await gateway.come_back()
        await until_token(agent)
    assert agent.pid == pid
    assert agent.program.exit_code is None
    assert notices(agent) == []


async def until_token(agent: Agent) -> None:
    """Wait until there is a token again: after failures the agent pauses for some seconds."""
    deadline = time.monotonic() + SECONDS
    while (token := await get_token(agent)).exit_code != 0:
        assert token.exit_code == 6, token
        assert time.monotonic() < deadline
