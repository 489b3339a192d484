"""Entra ID's own path: MSAL in the agent, access tokens for the gateway's API, people known by tenant and object id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.functional.device import Device
from tests.lab import node
from tests.lab.agent import Agent
from tests.lab.gateway import Gateway
from tests.lab.oidc_provider import ACCOUNTS, OidcProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.scripted import ScriptedBedrock

pytestmark = pytest.mark.skipif(not node.available(), reason="needs Node and npm for oidc-provider")


@pytest.fixture
def entra(tmp_path: Path) -> Iterator[OidcProvider]:
    with OidcProvider.like_entra(tmp_path / "entra") as provider:
        yield provider


@pytest.fixture
def company(tmp_path: Path, entra: OidcProvider, scripted: ScriptedBedrock) -> Iterator[Gateway]:
    with Gateway(
        tmp_path / "gateway",
        issuers=[entra.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
    ) as running:
        yield running


def test_msal_signs_in_and_the_gateway_knows_tenant_and_object_id(
    tmp_path: Path, entra: OidcProvider, company: Gateway
) -> None:
    with Agent(tmp_path / "agent", gateway_url=company.url, ca_file=entra.ca_file) as agent:
        agent.sign_in(entra.person("ada").sign_in)
        token = agent.token()
        assert token.exit_code == 0, token.stderr
        device = Device(company.url)
        device.token = token.stdout.strip()
        assert device.ask().status == 200
        assert device.me()["name"] == ACCOUNTS["ada"]["name"]
        assert agent.command("logout").exit_code == 0
        assert agent.token().exit_code == 4
        assert device.ask().status == 401, "the logout ended the session at the gateway, too"
