"""A provider that rotates refresh tokens takes a second use of one for theft, and ends everything. It never sees one.

The agent is killed at every place around a renewal but one: between the provider's answer and the disk nothing can save
a sign-in from SIGKILL. Whoever ends the agent in an orderly way (SIGTERM) may do so at any moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmgw_wire.errors import ErrorCode
from tests.agent.test_sign_in import get_token, needs_node, offer_of, say
from tests.lab import secret_service
from tests.lab.agent import Agent
from tests.lab.secret_service import SecretService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.agent.small_gateway import SmallGateway
    from tests.lab.oidc_provider import OidcProvider
    from tests.lab.process import Finished

pytestmark = [
    needs_node,
    pytest.mark.skipif(not secret_service.available(), reason="needs D-Bus and gnome-keyring"),
]
TOOLS = 4
MOST_AT_ONCE = 50
SECONDS = 60
LONG_SECONDS = 1800


class Laptop:
    """An agent with a keyring, started by whatever asks; every question of a tool leads to the provider."""

    def __init__(self, agent: Agent, gateway: SmallGateway) -> None:
        self.agent = agent
        self.gateway = gateway
        self.renewals = 0

    async def pid(self) -> int:
        document = json.loads((await say(self.agent, "status", "--json")).stdout)
        assert document["signed_in"], document["error"]
        assert document["storage"]["persistent"]
        return int(document["daemon"]["pid"])

    async def end(self, number: signal.Signals) -> None:
        """End the agent, and wait until it has gone."""
        pid = await self.pid()
        os.kill(pid, number)
        await gone(pid)

    async def ask(self, tools: int = TOOLS) -> None:
        """So many tools at once: one refresh at the provider, and a token for each."""
        before = len(self.gateway.exchanges)
        self.gateway.refusals = [ErrorCode.SIGN_IN_STALE]
        deadline = time.monotonic() + SECONDS
        answers = await self.tokens(tools)
        # Until the refusal was met and overcome: a token from before may have been good for a moment.
        while (
            {each.exit_code for each in answers} != {0}
            or self.gateway.refusals
            or len(self.gateway.exchanges) == before
        ):
            assert time.monotonic() < deadline, (answers[0], (self.agent.home / "agent.log").read_text()[-3000:])
            answers = await self.tokens(tools)
        self.renewals += 1

    async def tokens(self, tools: int) -> list[Finished]:
        return await asyncio.gather(*(get_token(self.agent) for _ in range(tools)))

    async def killed_when_the_renewed_one_is_shown(self) -> None:
        """SIGKILL as soon as the gateway sees the renewed sign-in: its refresh token must be on disk by then."""
        pid = await self.pid()
        self.gateway.refusals = [ErrorCode.SIGN_IN_STALE]
        self.gateway.close_after(1)
        tool = asyncio.create_task(self.until_held())
        await self.gateway.held.wait()
        os.kill(pid, signal.SIGKILL)
        self.gateway.open.set()
        await gone(pid)
        await tool

    async def until_held(self) -> None:
        while not self.gateway.held.is_set():  # a token from before may have been good for a moment
            await get_token(self.agent)

    async def ended_at_any_moment(self) -> None:
        """SIGTERM somewhere in a renewal: the agent finishes what it has begun."""
        pid = await self.pid()
        self.gateway.refusals = [ErrorCode.SIGN_IN_STALE]
        tool = asyncio.create_task(get_token(self.agent))
        await asyncio.sleep(random.uniform(0, 0.2))  # noqa: S311 -- any moment will do
        os.kill(pid, signal.SIGTERM)
        await gone(pid)
        await tool

    async def killed_while_nothing_happens(self) -> None:
        await self.end(signal.SIGKILL)

    async def rests(self) -> None:
        """It gives back its memory (rest.py), and is another program when it wakes."""
        await asyncio.to_thread(self.agent.rest)

    async def killed_while_it_rests(self) -> None:
        pid = await asyncio.to_thread(self.agent.rest)
        os.kill(pid, signal.SIGKILL)
        await gone(pid)


async def gone(pid: int) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)  # nobody tells when a process ends that is not ours


@pytest.fixture
async def laptop(gateway: SmallGateway, oidc_provider: OidcProvider) -> AsyncIterator[Laptop]:
    gateway.offers = (offer_of(oidc_provider),)
    gateway.life = 1
    with tempfile.TemporaryDirectory(prefix="llmgw-") as name:  # short: a bus and a socket lie in it
        folder = Path(name)
        keyring = SecretService(folder / "k")
        (folder / "k").mkdir()
        await asyncio.to_thread(keyring.__enter__)
        agent = Agent(folder, gateway_url=gateway.url)
        agent.prepare()
        agent.env |= keyring.environment
        try:
            await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
            yield Laptop(agent, gateway)
        finally:
            await say(agent, "daemon", "stop")
            await asyncio.to_thread(keyring.__exit__, None, None, None)


async def round_of(laptop: Laptop) -> None:
    """Everything once, in any order, with questions in between."""
    harms: list[Callable[[], Awaitable[None]]] = [
        laptop.killed_when_the_renewed_one_is_shown,
        laptop.ended_at_any_moment,
        laptop.killed_while_nothing_happens,
        laptop.rests,
        laptop.killed_while_it_rests,
    ]
    random.shuffle(harms)
    for harm in harms:
        await harm()
        await laptop.ask()


@pytest.mark.parametrize("seconds", [0, pytest.param(LONG_SECONDS, marks=pytest.mark.long)])
async def test_railway_991_refresh_tokens_are_used_once_whatever_is_killed(laptop: Laptop, seconds: float) -> None:
    """(claude-code 88947, 91009, 91708; opencode 49439; buildkite 852; githits 164)"""
    deadline = time.monotonic() + seconds
    await round_of(laptop)
    while time.monotonic() < deadline:
        await round_of(laptop)
    await laptop.ask(MOST_AT_ONCE)
    assert await laptop.pid()
    print(f"{laptop.renewals} renewals and more")
