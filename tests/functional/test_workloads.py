"""A CI job from its own token to an answer: the issuer's documents over HTTP, the gateway, and the agent's command."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from tests.functional.device import Device
from tests.gateway.identity.provider import CLIENT, Provider
from tests.gateway.identity.test_requiring import GITHUB
from tests.lab.agent import Agent
from tests.lab.gateway import Gateway
from tests.lab.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.scripted import ScriptedBedrock

SONNET, HAIKU = "claude-sonnet-4-5", "claude-haiku-4-5"
POLICIES = [{"name": "reviews", "groups": ["example/payments"], "models": [HAIKU]}]


async def test_a_job_of_the_repository_gets_an_answer_and_a_pull_request_none(
    tmp_path: Path, scripted: ScriptedBedrock
) -> None:
    async with Provider() as issuer:
        await asyncio.to_thread(work, issuer, tmp_path, scripted)


def work(issuer: Provider, folder: Path, scripted: ScriptedBedrock) -> None:
    def job(**changed: Any) -> str:
        now = int(time.time())
        return issuer.token(**(GITHUB | {"iat": now, "nbf": now - 300, "exp": now + 600} | changed))

    section = {
        "issuer": issuer.issuer,
        "client_id": CLIENT,
        "kind": "workload",
        "groups_claim": "repository",
        "required": {"repository": ["example/payments"], "ref": ["refs/heads/main"], "environment": ["production"]},
    }
    with Gateway(
        folder / "gateway",
        issuers=[section],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
        changes={"policies": POLICIES},
    ) as gateway:
        machine = Agent(folder / "job", gateway_url=gateway.url)
        machine.folder.mkdir()
        machine.env |= {"LLMGW_GATEWAY_URL": gateway.url, "LLMGW_ID_TOKEN": job()}
        done = machine.token()
        assert (done.exit_code, done.stderr) == (0, "")
        device = Device(gateway.url)
        device.token = done.stdout.strip()
        assert device.ask(model=HAIKU).status == 200
        assert device.ask(model=SONNET).error["code"] == "model_not_allowed"
        for changed in ({"ref": "refs/pull/7/merge"}, {"environment": "staging"}, {"repository": "example/fork"}):
            (name,) = changed
            machine.env["LLMGW_ID_TOKEN"] = job(**changed)
            refused = machine.token()
            assert (refused.exit_code, refused.stdout) == (4, ""), refused.stderr
            assert f"requires that its '{name}' says" in refused.stderr
        explain = [*gateway.command("policy")[:-1], "explain", gateway.config, device.me()["person"], HAIKU]
        explained = run(explain, env=gateway.program.env, folder=gateway.folder, seconds=60)
        assert "is allowed by policies[0] (reviews)" in explained.stdout
