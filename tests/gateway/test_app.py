"""What the composition root refuses to compose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llmgw_gateway import settings
from llmgw_gateway.call import Account
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.money.prices import built_in
from llmgw_gateway.offer import policy
from tests.gateway import configuration

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.policy.models import Policy


def composed(path: Path, region: str, *models: str) -> Policy:
    document = configuration.good() | {"models": [{"name": name} for name in models]}
    document["bedrock"]["region"] = region
    return policy(settings.load(configuration.write(configuration.folder(path), document)), built_in())


@pytest.mark.parametrize("key", ["target", "fallbacks"])
def test_another_models_target_would_be_charged_wrongly_and_stops_the_start(tmp_path: Path, key: str) -> None:
    other = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
    model = {"name": "claude-sonnet-4-5", key: other if key == "target" else ["arn:aws:bedrock:us-east-1:1:x/y", other]}
    document = configuration.good() | {"models": [model]}
    path = configuration.write(configuration.folder(tmp_path), document)
    with pytest.raises(ConfigurationError) as caught:
        policy(settings.load(path), built_in())
    (fault,) = caught.value.faults
    assert fault == f"models[0].{key}: '{other}' is claude-haiku-4-5, which has other prices than claude-sonnet-4-5"


def test_in_govcloud_nothing_is_served_below_its_price(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        composed(tmp_path, "us-gov-west-1", "claude-sonnet-4-5-us-gov", "claude-sonnet-4-5")
    (fault,) = caught.value.faults
    assert fault.startswith("models[1].name: 'claude-sonnet-4-5' is priced for the other regions")
    assert "such as claude-sonnet-4-5-us-gov" in fault
    served = composed(tmp_path, "us-gov-west-1", "claude-sonnet-4-5-us-gov")
    assert served.authorize(Account("per_1"), "claude-sonnet-4-5-us-gov", 1).target.invoke_id.startswith("us-gov.")
    composed(tmp_path, "us-east-1", "claude-sonnet-4-5")
