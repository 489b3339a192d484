"""Which name means which model, and where it goes: a table, and nothing that a client can write beyond it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmgw_gateway.call import Account
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.policy.models import Policy, ServedModel
from llmgw_wire.errors import ErrorCode

SONNET_ID = "anthropic.claude-sonnet-4-5-20250929-v1:0"
ARN = "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc123"


def served(
    name: str, bedrock_id: str, profiles: tuple[str, ...] = (), aliases: tuple[str, ...] = (), target: str = ""
) -> ServedModel:
    names = (name, *aliases, bedrock_id, *(f"{prefix}.{bedrock_id}" for prefix in profiles))
    return ServedModel(
        name=name,
        display_name=name.title(),
        vendor="anthropic",
        names=names + ((target,) if target else ()),
        bedrock_id=bedrock_id,
        profiles=profiles,
        max_output_tokens=64_000,
        target=target,
    )


SONNET = served("sonnet", SONNET_ID, ("us", "eu", "apac", "jp", "global"), ("sonnet-latest",))
GOV = served("gov", "anthropic.gov-v1:0", ("us-gov", "us", "global"))
PLAIN = served("plain", "anthropic.plain-v1:0")
WORLD = served("world", "anthropic.world-v1:0", ("global",))
FIXED = served("fixed", "anthropic.fixed-v1:0", ("us", "eu"), target=ARN)
MODELS = (SONNET, GOV, PLAIN, WORLD, FIXED)
NAMES = {name for model in MODELS for name in model.names}


ADA = Account("per_ada")


def invoke_id(asked: str, region: str = "eu-central-1") -> str:
    return Policy(MODELS, region, "").authorize(ADA, asked, 1).target.invoke_id


@pytest.mark.parametrize(
    ("asked", "region", "expected"),
    [
        ("sonnet", "eu-central-1", f"eu.{SONNET_ID}"),
        ("sonnet", "us-east-1", f"us.{SONNET_ID}"),
        ("sonnet", "ap-southeast-2", f"apac.{SONNET_ID}"),
        ("sonnet", "ca-central-1", f"us.{SONNET_ID}"),
        ("sonnet", "sa-east-1", f"global.{SONNET_ID}"),
        ("sonnet", "il-central-1", f"global.{SONNET_ID}"),
        ("sonnet-latest", "eu-west-3", f"eu.{SONNET_ID}"),
        # The bare id, and any profile, is what the client wants it to be.
        (SONNET_ID, "eu-central-1", SONNET_ID),
        (f"us.{SONNET_ID}", "eu-central-1", f"us.{SONNET_ID}"),
        (f"global.{SONNET_ID}", "eu-central-1", f"global.{SONNET_ID}"),
        # GovCloud is a partition of its own: no commercial profile leads there, not even the global one.
        ("gov", "us-gov-west-1", "us-gov.anthropic.gov-v1:0"),
        ("gov", "us-gov-east-1", "us-gov.anthropic.gov-v1:0"),
        ("gov", "us-west-2", "us.anthropic.gov-v1:0"),
        ("sonnet", "us-gov-west-1", SONNET_ID),
        ("world", "us-gov-west-1", "anthropic.world-v1:0"),
        ("world", "us-east-1", "global.anthropic.world-v1:0"),
        ("plain", "us-east-1", "anthropic.plain-v1:0"),
        # A target of the configuration is where every name of the model goes.
        ("fixed", "eu-central-1", ARN),
        ("anthropic.fixed-v1:0", "eu-central-1", ARN),
        ("us.anthropic.fixed-v1:0", "eu-central-1", ARN),
        (ARN, "eu-central-1", ARN),
    ],
)
def test_a_name_leads_to_its_target(asked: str, region: str, expected: str) -> None:
    assert invoke_id(asked, region) == expected


@pytest.mark.parametrize(
    ("asked", "geography"),
    [
        (f"global.{SONNET_ID}", "global"),
        (f"eu.{SONNET_ID}", "regional"),
        (SONNET_ID, "regional"),
        (ARN, "regional"),
        ("world", "global"),
    ],
)
def test_only_a_global_profile_has_the_global_price(asked: str, geography: str) -> None:
    target = Policy(MODELS, "eu-central-1", "").authorize(ADA, asked, 1).target
    assert target.geography == geography
    assert target.model in {model.name for model in MODELS}


def test_fallbacks_are_targets_of_the_same_model_without_the_one_that_is_asked_first() -> None:
    model = replace(SONNET, fallbacks=(f"global.{SONNET_ID}", f"eu.{SONNET_ID}", ARN))
    policy = Policy((model,), "eu-central-1", "")
    first = policy.authorize(ADA, "sonnet", 1)
    assert (first.target.invoke_id, [each.invoke_id for each in first.fallbacks]) == (
        f"eu.{SONNET_ID}",
        [f"global.{SONNET_ID}", ARN],
    )
    assert [each.geography for each in first.fallbacks] == ["global", "regional"]
    assert {each.model for each in first.fallbacks} == {"sonnet"}
    assert policy.authorize(ADA, f"global.{SONNET_ID}", 1).fallbacks[0].invoke_id == f"eu.{SONNET_ID}"
    assert Policy(MODELS, "eu-central-1", "").authorize(ADA, "sonnet", 1).fallbacks == ()


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (f":foundation-model/{SONNET_ID}", SONNET_ID),
        (f"123456789012:inference-profile/eu.{SONNET_ID}", f"eu.{SONNET_ID}"),
        (f":inference-profile/global.{SONNET_ID}", f"global.{SONNET_ID}"),
    ],
)
def test_an_arn_of_the_region_means_the_id_in_it(resource: str, expected: str) -> None:
    assert invoke_id(f"arn:aws:bedrock:eu-central-1:{resource}") == expected


def test_profiles_of_a_model_that_serve_the_region() -> None:
    policy = Policy(MODELS, "eu-central-1", "")
    assert policy.profiles(SONNET) == (f"eu.{SONNET_ID}", f"global.{SONNET_ID}")
    assert policy.profiles(PLAIN) == ()


HOSTILE = [
    *("", "..", "../sonnet", "sonnet/..", "%2e%2e", "sonnet%00", "sonnet\0", "sonnet\r\nX-Evil: 1", " sonnet"),
    *("sonnet ", "SONNET", "Sonnet", "sonnet/../../guardrail/1", "x/../../guardrail/1", f"{SONNET_ID}/invoke?x=1"),
    *("\uff53onnet", "sonnet\u200b", "sonn\u0435t"),
    *(f"eu.eu.{SONNET_ID}", f"xx.{SONNET_ID}", f"us-gov.{SONNET_ID}", f"evil.{SONNET_ID}", f"/{SONNET_ID}"),
    *(SONNET_ID[:-1], ARN + "x", ARN[:-1], ARN.upper()),
    f"arn:aws:bedrock:us-west-2::foundation-model/{SONNET_ID}",
    f"arn:aws:bedrock:eu-central-1::foundation-model/{SONNET_ID}/invoke",
    f"arn:aws:bedrock:eu-central-1:x:inference-profile/eu.{SONNET_ID}",
    "arn:aws:bedrock:eu-central-1::foundation-model/anthropic.unknown",
    "arn:aws:bedrock:eu-central-1:999999999999:application-inference-profile/abc123",
]


@pytest.mark.parametrize("asked", HOSTILE)
def test_a_hostile_name_means_nothing(asked: str) -> None:
    with pytest.raises(GatewayError) as caught:
        invoke_id(asked)
    assert caught.value.code is ErrorCode.MODEL_NOT_ALLOWED


suffixed = st.tuples(st.text(max_size=12), st.sampled_from(sorted(NAMES)), st.text(max_size=12)).map("".join)


@given(st.text(st.characters(), max_size=60) | suffixed)
@example("\ud800")
@example("\x1b[31m")
def test_only_the_names_of_the_table_resolve_and_no_text_of_a_client_goes_further(asked: str) -> None:
    targets = NAMES | {f"{prefix}.{model.bedrock_id}" for model in MODELS for prefix in model.profiles}
    if asked in NAMES:
        assert invoke_id(asked) in targets
        return
    with pytest.raises(GatewayError) as caught:
        invoke_id(asked)
    assert caught.value.code is ErrorCode.MODEL_NOT_ALLOWED
    assert caught.value.message.isprintable()


def test_a_refusal_says_what_is_served_and_whom_to_ask() -> None:
    with pytest.raises(GatewayError, match="'opus' is not served here") as caught:
        Policy(MODELS, "us-east-1", "#llm-help").authorize(ADA, "opus", 1)
    for word in ("sonnet", "plain", "#llm-help"):
        assert word in caught.value.message


def test_a_long_name_is_cut_in_the_refusal() -> None:
    with pytest.raises(GatewayError) as caught:
        Policy((PLAIN,), "us-east-1", "").authorize(ADA, "x" * 100_000, 1)
    assert len(caught.value.message) < 300


@given(st.integers(0, 10**7))
def test_what_is_judged_is_what_the_client_asks_for_and_without_it_the_model_s_own_cap(asked: int) -> None:
    most = Policy(MODELS, "eu-central-1", "").authorize(ADA, "sonnet", asked).max_tokens
    assert most == (asked or 64_000)


def test_every_served_model_is_shown_once() -> None:
    assert Policy(MODELS, "eu-central-1", "").models == MODELS
    assert Policy(MODELS, "eu-central-1", "").seen_by(ADA).models == MODELS
