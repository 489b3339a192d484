"""A third identity provider, in C, with ways of its own: the whole product signs in there and goes on refreshing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.functional.device import Device
from tests.lab.gateway import Gateway
from tests.lab.glewlwyd import RESOURCE
from tests.lab.native_app import NativeApp
from tests.lab.oidc_provider import ACCESS_TOKEN, ID_TOKEN
from tests.lab.system import System

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.glewlwyd import Glewlwyd
    from tests.lab.scripted import ScriptedBedrock

TYPES = {kind: f"urn:ietf:params:oauth:token-type:{kind}" for kind in (ID_TOKEN, ACCESS_TOKEN)}


def gateway_of(folder: Path, provider: Glewlwyd, cloud: ScriptedBedrock, subject: str) -> Gateway:
    return Gateway(
        folder,
        issuers=[provider.issuer_section(subject)],
        endpoint=cloud.endpoint,
        region=cloud.region,
        credentials=cloud.key.environment(),
    )


def test_the_agent_signs_in_there_refreshes_by_rotation_and_signs_out(
    tmp_path: Path, glewlwyd: Glewlwyd, scripted: ScriptedBedrock
) -> None:
    whole = System(tmp_path, provider=glewlwyd, cloud=scripted)
    whole.gateway.document["tokens"]["life_seconds"] = 2  # the agent wants a fresh token at half of it
    with whole as system:
        system.sign_in("ada")
        tokens: set[str] = set()
        device = Device(system.gateway.url)
        while len(tokens) < 2:
            token = system.agent.token()
            assert token.exit_code == 0, token.stderr
            device.token = token.stdout.strip()
            assert device.me()["name"] == "Ada Lovelace"
            tokens.add(device.token)
        assert device.ask().status == 200
        assert system.agent.command("logout").exit_code == 0
        assert device.ask().status == 401


@pytest.mark.parametrize("wanted", [ID_TOKEN, ACCESS_TOKEN])
def test_either_token_is_exchanged_where_it_is_wanted_and_nowhere_else(
    tmp_path: Path, glewlwyd: Glewlwyd, scripted: ScriptedBedrock, wanted: str
) -> None:
    group = "engineering" if wanted == ID_TOKEN else "engineering,analysts"
    company = gateway_of(tmp_path / "gateway", glewlwyd, scripted, wanted)
    company.document["policies"] = [{"groups": [group], "models": ["claude-sonnet-4-5"]}]
    with company as gateway:
        app = NativeApp(glewlwyd.issuer)
        tokens = app.sign_in(glewlwyd.person("ada"), resource=RESOURCE)
        device = Device(gateway.url)
        other = {ID_TOKEN: ACCESS_TOKEN, ACCESS_TOKEN: ID_TOKEN}[wanted]
        for token, kind in ((other, other), (other, wanted), (wanted, other)):
            reply = device.try_exchange(tokens[token], subject_token_type=TYPES[kind])
            assert reply.status in {400, 401}, (token, kind)
        reply = device.try_exchange(tokens[wanted], subject_token_type=TYPES[wanted])
        assert reply.status == 200, reply.body
        device.token = reply.json["access_token"]
        assert device.ask().status == 200
        assert device.me()["name"] == "Ada Lovelace"
        elsewhere = app.sign_in(glewlwyd.person("ada"))["access_token"]
        reply = device.try_exchange(elsewhere, subject_token_type=TYPES[ACCESS_TOKEN])
        assert reply.status in {400, 401}, "it is for no API of ours: its audience are scopes"
