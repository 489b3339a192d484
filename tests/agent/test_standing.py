"""What is known without asking, and the line that is drawn from it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_agent import screens
from llmgw_agent.broker import Broker
from llmgw_agent.errors import SignInRequiredError, TemporaryError
from llmgw_agent.exchange import Gateway
from llmgw_agent.session.current import CurrentSession
from llmgw_agent.standing import Standing
from llmgw_agent.vault import Vault
from tests.agent.test_broker import ScriptedProvider, sign_in, until
from tests.agent.test_sign_in import needs_node, offer_of
from tests.lab.agent import Agent

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_agent.outgoing import Outgoing
    from tests.agent.small_gateway import SmallGateway
    from tests.lab.oidc_provider import OidcProvider

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
VIEW: dict[str, Any] = {
    "name": "monthly",
    "model": None,
    "limit": 20_000_000,
    "remaining": 14_000_000,
    "resets_at": "2026-12-01T00:00:00Z",
}


@pytest.fixture
async def standing(home: Path, gateway: SmallGateway, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch) -> Standing:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    vault = Vault(home / "vault.bin", "profile")
    session = CurrentSession(vault, {"oidc": ScriptedProvider()})
    far = Gateway(gateway.url, outgoing, vault)
    await session.begin(sign_in())
    return Standing(Broker(session, far), far, session)


async def test_a_glance_waits_for_nobody_and_the_next_one_knows(standing: Standing, gateway: SmallGateway) -> None:
    gateway.open.clear()
    assert standing.glance() == (None, None)
    await until(lambda: gateway.exchanges)
    assert standing.glance() == (None, None)
    gateway.open.set()
    await until(lambda: standing.glance()[0])
    me, problem = standing.glance()
    assert (me.budgets[0].name if me else "", problem) == ("monthly", None)
    assert len(gateway.exchanges) == 1


async def test_a_gateway_that_goes_leaves_what_was_seen_and_says_so(standing: Standing, gateway: SmallGateway) -> None:
    await standing.ask()
    await gateway._runner.cleanup()
    with pytest.raises(TemporaryError):
        await standing.ask()
    me, problem = standing.glance()
    assert me is not None
    assert type(problem) is TemporaryError


async def test_what_was_seen_of_one_session_is_not_shown_for_another(standing: Standing) -> None:
    await standing.ask()
    await standing._session.end()
    me, problem = standing.glance()
    assert me is None
    assert type(problem) is SignInRequiredError
    await standing._session.begin(replace(sign_in(), session="s2"))
    assert standing.glance() == (None, None)
    await standing.close()


def test_the_line_names_the_budget_of_which_least_is_left() -> None:
    other = VIEW | {"name": "daily", "model": "opus", "remaining": 2_000_000}
    glance = {"budgets": [VIEW, other, VIEW | {"limit": 0}], "error": None}
    assert screens.statusline(glance, NOW) == "llmgw: $2.00 of $20.00 left (daily, opus), resets in 9 d 12 h"
    assert screens.statusline({"budgets": [], "error": None}, NOW) == "llmgw: signed in"
    error = {"message": "the gateway is away", "hint": ""}
    assert screens.statusline({"budgets": [VIEW], "error": error}, NOW) == "llmgw: the gateway is away."


@needs_node
async def test_the_command(tmp_path: Path, gateway: SmallGateway, oidc_provider: OidcProvider) -> None:
    """Never a failure, never a start of the agent: it is drawn all the time."""
    gateway.offers = (offer_of(oidc_provider),)
    agent = Agent(tmp_path, gateway_url=gateway.url)
    agent.prepare()

    async def line() -> str:
        done = await asyncio.to_thread(agent.command, "statusline")
        assert (done.exit_code, done.stderr, done.stdout.count("\n")) == (0, "", 1)
        return done.stdout.strip()

    assert await line() == "llmgw: the agent is not running"
    assert not agent.socket.exists()
    await asyncio.to_thread(agent.__enter__)
    try:
        assert await line() == "llmgw: you are not signed in. Run: llmgw login"
        await asyncio.to_thread(agent.sign_in, oidc_provider.person().sign_in)
        assert await line() == "llmgw: signed in"
        await asyncio.to_thread(agent.command, "whoami")
        assert (await line()).startswith("llmgw: $15.00 of $20.00 left (monthly), resets in ")
    finally:
        await asyncio.to_thread(agent.__exit__, None, None, None)
