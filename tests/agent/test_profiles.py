"""Profiles with the real commands: gateways and accounts beside each other, and never one's token for another."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from llmgw_agent import profiles, service, settings
from llmgw_agent.client import Client
from llmgw_agent.errors import ConfigurationError, UsageError
from llmgw_agent.setup.tools import Facts, claude, codex
from llmgw_agent.token_stub import socket_path
from tests.agent.small_gateway import SmallGateway
from tests.agent.test_sign_in import needs_node, offer_of, read_url
from tests.lab.agent import Agent, installed
from tests.lab.process import Finished, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.lab.oidc_provider import OidcProvider


@pytest.fixture
async def agent(tmp_path: Path, gateway: SmallGateway, oidc_provider: OidcProvider) -> AsyncIterator[Agent]:
    """A laptop with the first profile only."""
    gateway.offers = (offer_of(oidc_provider),)
    made = Agent(tmp_path, gateway_url=gateway.url)
    made.prepare()
    yield made
    await say(made, "daemon", "stop")
    await say(made, "-p", "work", "daemon", "stop")


async def say(agent: Agent, *words: str) -> Finished:
    return await asyncio.to_thread(agent.command, *words)


async def sign_in(agent: Agent, provider: OidcProvider, profile: str, user: str) -> None:
    login = await asyncio.create_subprocess_exec(
        *(installed("llmgw"), "-p", profile, "login", "--no-browser"),
        env=agent.env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    url = (await read_url(login))[-1]
    await asyncio.to_thread(provider.person(user).sign_in, url)
    await login.communicate()
    assert login.returncode == 0


async def token(agent: Agent, profile: str) -> Finished:
    env = agent.env | {"LLMGW_PROFILE": profile}
    return await asyncio.to_thread(run, [installed("llmgw-token")], env=env, folder=agent.folder, seconds=30)


def test_an_agent_that_nobody_reaps_has_ended_all_the_same(tmp_path: Path) -> None:
    """In many containers the first process reaps nobody; here it is this one, which does not look meanwhile."""
    with Agent(tmp_path, gateway_url="http://127.0.0.1:9") as running:
        Client(running.env).end()


@needs_node
async def test_two_accounts_at_two_gateways_never_mix(
    agent: Agent, gateway: SmallGateway, oidc_provider: OidcProvider
) -> None:
    async with SmallGateway(offers=(offer_of(oidc_provider),)) as other:
        made = await say(agent, "profile", "add", "work", "--gateway", other.url)
        assert made == Finished(0, f"The profile work goes to {other.url}. Sign in: llmgw -p work login\n", "")
        # A shell that names the first gateway does not move the second profile there.
        agent.env["LLMGW_GATEWAY_URL"] = gateway.url
        await sign_in(agent, oidc_provider, "default", "ada")
        await sign_in(agent, oidc_provider, "work", "grace")
        tokens = [(await token(agent, name)).stdout for name in ("default", "work", "")]
        assert tokens[0] == tokens[2] != tokens[1]
        assert (len(gateway.exchanges), len(other.exchanges)) == (1, 1)
        assert gateway.devices != other.devices
        document = json.loads((await say(agent, "profile", "list", "--json")).stdout)
        assert [(p["name"], p["gateway_url"], p["account"]["email"]) for p in document["profiles"]] == [
            ("default", gateway.url, "ada@example.com"),
            ("work", other.url, "grace@example.com"),
        ]
        status = await say(agent, "-p", "work", "status")
        assert "Profile       work\n" in status.stdout
        assert "Profile" not in (await say(agent, "status")).stdout

        gone = await say(agent, "profile", "remove", "work")
        assert f"Revoked at {other.url}." in gone.stdout
        assert other.revoked == [tokens[1].strip()]
        assert gateway.revoked == []
        assert not (agent.home / "profiles" / "work").exists()
        assert (await token(agent, "default")).exit_code == 0


@needs_node
async def test_what_is_to_be_typed_next_names_the_profile(agent: Agent, gateway: SmallGateway) -> None:
    await say(agent, "profile", "add", "work", "--gateway", gateway.url)
    said = "llmgw: you are not signed in. Run: llmgw -p work login\n"
    assert await token(agent, "work") == Finished(4, "", said)
    assert await say(agent, "-p", "work", "token") == Finished(4, "", said)
    document = json.loads((await say(agent, "-p", "work", "token", "--json")).stdout)
    assert document["error"]["hint"] == "Run: llmgw -p work login"
    assert "nobody. Run: llmgw -p work login\n" in (await say(agent, "-p", "work", "status")).stdout


@needs_node
@pytest.mark.parametrize("name", ["Work", "-x", "a/b", "..", "a" * 33, "ä", "a b", "a\n"])
async def test_a_name_that_is_none_is_refused_everywhere(agent: Agent, name: str) -> None:
    said = "a profile's name (-p, LLMGW_PROFILE) has at most 32 of a-z, 0-9 and -. Run: llmgw profile list\n"
    assert await token(agent, name) == Finished(8, "", f"llmgw: {said}")
    assert await say(agent, "--profile", name, "status") == Finished(8, "", f"llmgw: {said}")


@needs_node
async def test_a_profile_that_nobody_made_has_no_gateway(agent: Agent) -> None:
    answer = await token(agent, "nobody-made-it")
    assert (answer.exit_code, answer.stdout) == (8, "")
    assert "no gateway is set" in answer.stderr


def test_nothing_is_overwritten_and_the_first_one_stays(environ: dict[str, str]) -> None:
    profiles.add(environ, "work", "https://llm.example", "")
    for name in ("work", "default"):
        with pytest.raises(UsageError):
            profiles.add(environ, name, "https://evil.example", "")
    with pytest.raises(UsageError, match="must begin with https"):
        profiles.add(environ, "other", "http://llm.example", "")
    for name in ("default", "unknown", "../x"):
        with pytest.raises(UsageError, match="to remove"):
            profiles.require(environ, name)
    assert [(each.name, each.gateway_url) for each in profiles.listed(environ)] == [
        ("default", ""),
        ("work", "https://llm.example"),
    ]


def test_places_without_llmgw_home_are_apart_from_each_other(environ: dict[str, str]) -> None:
    del environ["LLMGW_HOME"]
    environ["XDG_RUNTIME_DIR"] = "/run/user/1"
    first, work = (settings.places(profiles.environment(environ, name)) for name in ("default", "work"))
    assert str(work.socket).endswith("/llmgw@work/agent.sock")
    assert {work.home, work.config, work.log, work.socket}.isdisjoint({first.home, first.config, first.log})
    assert work.socket.parent != first.socket.parent
    assert socket_path(environ, 1) == str(first.socket)


def test_a_company_s_gateway_beats_that_of_every_profile(environ: dict[str, str], tmp_path: Path) -> None:
    profiles.add(environ, "work", "https://own.example", "")
    managed = tmp_path / "managed.toml"
    managed.write_text('gateway_url = "https://llm.corp.example"\n')
    managed.chmod(0o644)
    given = settings.load(profiles.environment(environ, "work"), [managed], managed.stat().st_uid)
    assert given.gateway_url == "https://llm.corp.example"
    given = settings.load(profiles.environment(environ | {"LLMGW_GATEWAY_URL": "https://shell.example"}, "work"), [])
    assert given.gateway_url == "https://own.example"
    with pytest.raises(ConfigurationError, match="no gateway is set"):
        settings.load(environ, [])


def test_tools_are_set_up_for_the_profile(environ: dict[str, str]) -> None:
    facts = Facts(environ | {"LLMGW_PROFILE": "work"}, "https://x.example", ("/o p/llmgw-token",), ("/o p/llmgw",))
    (target,) = claude(facts)
    written = {edit.path[-1]: edit.value for edit in target.edits}  # type: ignore[union-attr] # all are members
    assert written["apiKeyHelper"] == "env LLMGW_PROFILE=work '/o p/llmgw-token'"
    assert written["statusLine"]["command"] == "env LLMGW_PROFILE=work '/o p/llmgw' statusline"
    (target,) = codex(facts)
    assert 'command = "env"\nargs = ["LLMGW_PROFILE=work", "/o p/llmgw-token"]' in str(target.edits[-1].content)  # type: ignore[union-attr] # a block


def test_a_service_for_each(environ: dict[str, str]) -> None:
    made = service.units(settings.places(environ).socket, environ | {"LLMGW_PROFILE": "work"}, "/usr/bin/python3")
    assert set(made) == {"llmgw-work.socket", "llmgw-work.service"}
    assert 'Environment="LLMGW_PROFILE=work"' in made["llmgw-work.service"]
    assert "Requires=llmgw-work.socket" in made["llmgw-work.service"]
    assert service.label(environ | {"LLMGW_PROFILE": "work"}) == "com.llmgw.agent.work"
