"""Where a target is processed, and policies that allow only some places and upstreams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.call import Account, Target, split_title
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.policy.models import Policy, ServedModel
from llmgw_gateway.policy.residency import processed_in
from llmgw_gateway.sections.permitting import Permission

if TYPE_CHECKING:
    from collections.abc import Mapping

ID = "anthropic.claude-opus-5-5-v1:0"
REGIONS = {"": "eu-central-1", "oregon": "us-west-2", "tokyo": "ap-northeast-1"}
ADA = Account("per_ada", "ada@example.com")
ACCOUNT = "arn:aws:bedrock:eu-west-1:123456789012"


@pytest.mark.parametrize(
    ("title", "places"),
    [
        (f"eu.{ID}", {"eu"}),
        (f"global.{ID}", {"global"}),
        (f"us-gov.{ID}", {"us-gov"}),
        (ID, {"eu", "eu-central-1"}),
        (f"oregon/{ID}", {"us", "us-west-2"}),
        (f"oregon/global.{ID}", {"global"}),
        (f"tokyo/{ID}", {"jp", "ap-northeast-1"}),
        (f"direct/{ID}", set()),
        (f"{ACCOUNT}:inference-profile/eu.{ID}", {"eu"}),
        (f"arn:aws:bedrock:eu-west-1::foundation-model/{ID}", {"eu", "eu-west-1"}),
        (f"{ACCOUNT}:application-inference-profile/abc", set()),
        (f"{ACCOUNT}:provisioned-model/abc", {"eu", "eu-west-1"}),
    ],
)
def test_places_are_told_by_the_name_and_the_region_and_never_guessed(title: str, places: set[str]) -> None:
    upstream, name = split_title(title)
    assert processed_in(Target("bedrock", "opus", name, "regional", ID, upstream), REGIONS) == places


def policy(target: str = "", fallbacks: tuple[str, ...] = (), **entry: Any) -> Policy:
    names = ("opus", ID, *(f"{place}.{ID}" for place in ("eu", "global", "us")))
    model = ServedModel("opus", "Opus", "Anthropic", names, ID, ("eu", "global", "us"), 64_000, target, fallbacks)
    further: Mapping[str, str] = {"oregon": "us-west-2"}
    return Policy([model], "eu-central-1", "#llm", [Permission(name="resident", **entry)], "", {"claude"}, further)


def asked(judge: Policy, name: str = "opus") -> list[str]:
    grant = judge.authorize(ADA, name, 100)
    return [each.title for each in (grant.target, *grant.fallbacks)]


FALLBACKS = (f"global.{ID}", f"oregon/us.{ID}", f"claude/{ID}")


@pytest.mark.parametrize(
    ("entry", "name", "found"),
    [
        ({}, "opus", [f"eu.{ID}", *FALLBACKS]),
        ({"geographies": ("eu",)}, "opus", [f"eu.{ID}"]),
        ({"geographies": ("eu-central-1",)}, "opus", [ID]),
        ({"geographies": ("global",)}, "opus", [f"global.{ID}"]),
        ({"geographies": ("eu", "us")}, "opus", [f"eu.{ID}", f"oregon/us.{ID}"]),
        ({"upstreams": ("bedrock",)}, "opus", [f"eu.{ID}", f"global.{ID}"]),
        ({"upstreams": ("oregon", "claude")}, "opus", [f"oregon/us.{ID}", f"claude/{ID}"]),
        ({"geographies": ("us",), "upstreams": ("claude", "oregon")}, "opus", [f"oregon/us.{ID}"]),
        ({"geographies": ("eu",)}, f"eu.{ID}", [f"eu.{ID}"]),
    ],
)
def test_only_targets_that_the_policy_allows_are_asked(entry: dict[str, Any], name: str, found: list[str]) -> None:
    assert asked(policy(fallbacks=FALLBACKS, **entry), name) == found


def test_what_a_client_names_is_refused_and_never_exchanged_for_something_else() -> None:
    judge = policy(geographies=("eu",))
    with pytest.raises(GatewayError) as caught:
        asked(judge, f"global.{ID}")
    assert str(caught.value.message).startswith(
        f"The model opus as 'global.{ID}' is not allowed by policies[0] (resident): only what is processed in eu."
    )


def test_a_fixed_target_that_is_not_allowed_gives_way_to_a_fallback_or_is_refused() -> None:
    assert asked(policy(f"global.{ID}", (f"eu.{ID}",), geographies=("eu",))) == [f"eu.{ID}"]
    with pytest.raises(GatewayError) as caught:
        asked(policy(f"global.{ID}", geographies=("eu",), upstreams=("bedrock",)))
    assert "only what is processed in eu and asked at bedrock" in caught.value.message
