"""A provider whose public clients have a secret and must send it, as Google's: the gateway tells it to agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab import node
from tests.lab.agent import Agent
from tests.lab.gateway import Gateway
from tests.lab.oidc_provider import OidcProvider

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.scripted import ScriptedBedrock

SECRET = "GOCSPX-everybody-knows-this-one"


@pytest.mark.skipif(not node.available(), reason="needs Node and npm for oidc-provider")
def test_an_agent_signs_in_and_out_with_the_secret_that_the_gateway_tells(
    tmp_path: Path, scripted: ScriptedBedrock
) -> None:
    with OidcProvider(tmp_path / "provider", client_secret=SECRET) as provider:
        section = provider.issuer_section() | {"published_client_secret": SECRET, "email_domains": ["example.com"]}
        with (
            Gateway(
                tmp_path / "gateway",
                issuers=[section],
                endpoint=scripted.endpoint,
                region=scripted.region,
                credentials=scripted.key.environment(),
            ) as gateway,
            Agent(tmp_path / "agent", gateway_url=gateway.url) as agent,
        ):
            assert "Signed in as ada@example.com" in agent.sign_in(provider.person().sign_in)
            assert agent.token().exit_code == 0
            assert f"Revoked at {provider.issuer}." in agent.command("logout").stdout
