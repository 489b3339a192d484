"""A gateway that wants newer agents: it says so to those that ask, and trades nothing for those that do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llmgw_agent import __version__
from tests.functional.device import Device
from tests.lab.agent import Agent
from tests.lab.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.scripted import ScriptedBedrock


def test_an_older_agent_is_told_to_update(
    tmp_path: Path, canaille: Canaille, scripted: ScriptedBedrock, sign_in: Callable[[str], str]
) -> None:
    gateway = Gateway(
        tmp_path / "gateway",
        issuers=[canaille.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
    )
    # Tokens that are soon over, so that the agent soon trades again, knowing no minimum yet.
    gateway.document["tokens"]["life_seconds"] = 2
    agent = Agent(tmp_path / "agent", gateway_url=gateway.url)
    with gateway, agent:
        agent.sign_in(canaille.person("ada").sign_in)
        assert agent.token().exit_code == 0
        gateway.document["tokens"]["minimum_agent_version"] = "99.1"
        gateway.restart()
        asked = Device(gateway.url).request("GET", "/.well-known/llmgw", token="")
        assert asked.json["minimum_agent_version"] == "99.1"
        reply = Device(gateway.url).try_exchange(sign_in("ada"))
        assert (reply.status, reply.json["code"]) == (400, "agent_outdated")
        refused = agent.token()
        while refused.exit_code == 0:
            refused = agent.token()
        assert (refused.exit_code, refused.stdout) == (5, "")
        assert f"wants an agent of version 99.1 or later, this is {__version__}. Update llmgw" in refused.stderr
        codes = [json.loads(line).get("code") for line in gateway.audit.read_text(encoding="utf-8").splitlines()]
        assert codes.count("agent_outdated") >= 1
