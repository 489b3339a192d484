"""What the composition root refuses to compose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import settings
from llmgw_gateway.call import Account
from llmgw_gateway.errors import ConfigurationError
from llmgw_gateway.money.catalogues import built_in, extended
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


UPSTREAMS: dict[str, Any] = {
    "regions": [{"name": "west", "region": "us-west-2"}, {"name": "gov", "region": "us-gov-west-1"}],
    "anthropic": [{"key_file": "good.key"}],
}


def offered(path: Path, *models: dict[str, object], prices: str = "") -> Policy:
    document = configuration.good() | UPSTREAMS | {"models": list(models)}
    catalogue = built_in(embeddings=True)
    if prices:
        catalogue = extended(catalogue, prices.encode(), "prices")
    return policy(settings.load(configuration.write(configuration.folder(path), document)), catalogue)


def test_targets_name_where_they_are_asked_and_at_which_price(tmp_path: Path) -> None:
    fallbacks = ["west/us.x", "anthropic/claude-sonnet-5-5", "arn:aws:bedrock:us-east-1:1:inference-profile/x"]
    model: dict[str, object] = {
        "name": "claude-sonnet-5-5",
        "target": "west/global.anthropic.claude-sonnet-5-5",
        "fallbacks": fallbacks,
    }
    grant = offered(tmp_path, model).authorize(Account("per_1"), "claude-sonnet-5-5", 1)
    assert [
        (each.upstream, each.invoke_id, each.provider, each.geography) for each in (grant.target, *grant.fallbacks)
    ] == [
        ("west", "global.anthropic.claude-sonnet-5-5", "bedrock", "global"),
        ("west", "us.x", "bedrock", "regional"),
        ("anthropic", "claude-sonnet-5-5", "anthropic", "direct"),
        ("", fallbacks[2], "bedrock", "regional"),
    ]
    assert [each.title for each in (grant.target, *grant.fallbacks)] == [model["target"], *fallbacks]


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (
            {"name": "claude-opus-4-1", "target": "anthropic/x"},
            "models[0].target: 'claude-opus-4-1' has no price there",
        ),
        (
            {"name": "titan-embed-text-v2", "target": "anthropic/x"},
            "models[0].target: 'anthropic/x' speaks the Anthropic",
        ),
        (
            {"name": "claude-sonnet-5-5", "fallbacks": ["anthropic/claude-haiku-4-5"]},
            "models[0].fallbacks: 'anthropic/claude-haiku-4-5' is claude-haiku-4-5, which has other prices",
        ),
        (
            {"name": "claude-sonnet-5-5", "fallbacks": ["gov/x"]},
            "models[0].name: 'claude-sonnet-5-5' is priced for the",
        ),
    ],
    ids=["no direct price", "embeddings", "another model", "GovCloud"],
)
def test_what_would_be_charged_wrongly_elsewhere_stops_the_start(
    tmp_path: Path, model: dict[str, object], fault: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        offered(tmp_path, model)
    (said,) = caught.value.faults
    assert said.startswith(fault)


def test_a_price_of_the_operators_lets_it_start(tmp_path: Path) -> None:
    rows = """
        [[models]]
        name = "claude-opus-4-1"
        [[models.prices]]
        from = 2026-01-01
        geography = "direct"
        input = 1
        output = 1
        cache_read = 1
        cache_write_5m = 1
        cache_write_1h = 1
    """
    served = offered(tmp_path, {"name": "claude-opus-4-1", "target": "anthropic/x"}, prices=rows)
    assert served.authorize(Account("per_1"), "claude-opus-4-1", 1).target.geography == "direct"
