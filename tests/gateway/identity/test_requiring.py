"""What a provider's sign-ins must say: second factors, domains, app roles; CI jobs of one repository and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.sections.requiring import SHARED, required_faults
from llmgw_wire.errors import ErrorCode
from tests.gateway.identity.provider import NOW, Provider, sign_in

if TYPE_CHECKING:
    from llmgw_gateway.identity.signin import SignInVerifier


async def refusal(verifier: SignInVerifier, token: str) -> str:
    with pytest.raises(GatewayError) as caught:
        await sign_in(verifier, token)
    assert caught.value.code is ErrorCode.SIGN_IN_INVALID
    return caught.value.message


SECOND_FACTOR = {"amr": ("mfa", "hwk"), "acr": ("phr",)}
METHODS: list[tuple[dict[str, Any], str]] = [
    ({"amr": ["pwd", "mfa"], "acr": "phr"}, ""),
    ({"amr": ["hwk"], "acr": "phr"}, ""),
    ({"amr": "mfa", "acr": "phr"}, ""),
    ({"amr": ["pwd"], "acr": "phr"}, "'amr' says mfa or hwk"),
    ({"amr": [], "acr": "phr"}, "'amr'"),
    ({"acr": "phr"}, "'amr'"),
    ({"amr": "pwd mfa", "acr": "phr"}, "'amr'"),
    ({"amr": ["MFA"], "acr": "phr"}, "'amr'"),
    ({"amr": [["mfa"]], "acr": "phr"}, "'amr'"),
    ({"amr": {"mfa": True}, "acr": "phr"}, "'amr'"),
    ({"amr": True, "acr": "phr"}, "'amr'"),
    ({"amr": ["mfa"], "acr": "1"}, "'acr' says phr"),
    ({"amr": ["mfa"]}, "'acr'"),
]


@pytest.mark.parametrize(("claims", "missing"), METHODS)
async def test_a_sign_in_without_a_second_factor_is_refused_where_one_is_required(
    provider: Provider, claims: dict[str, Any], missing: str
) -> None:
    verifier = provider.verifier(required=SECOND_FACTOR)
    token = provider.token(**claims)
    if missing:
        assert missing in await refusal(verifier, token)
    else:
        assert (await sign_in(verifier, token)).subject == "subject-1"


@pytest.mark.parametrize(
    ("claims", "is_in"),
    [
        ({}, True),
        ({"email": "Ada@EXAMPLE.com"}, True),
        ({"email": "ada@mail.example.com"}, False),
        ({"email": "ada@evilexample.com"}, False),
        ({"email": "ada@example.com@evil.com"}, False),
        ({"email": "example.com"}, False),
        ({"email_verified": False}, False),
        ({"email": None}, False),
    ],
)
async def test_only_people_with_a_verified_address_of_the_company_are_let_in(
    provider: Provider, claims: dict[str, Any], *, is_in: bool
) -> None:
    verifier = provider.verifier(email_domains=("example.com", "example.org"))
    token = provider.token(**claims)
    if is_in:
        assert (await sign_in(verifier, token)).subject == "subject-1"
    else:
        assert "e-mail" in await refusal(verifier, token)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"roles": ["llm.opus"], "groups": ["a"]}, ("llm.opus",)),
        ({"groups": ["a"]}, ()),
        ({"roles": ["llm.opus"], "_claim_names": {"groups": "src1"}, "hasgroups": True}, ("llm.opus",)),
        ({"_claim_names": {"groups": "src1"}, "hasgroups": True}, ()),
        ({"_claim_names": {"roles": "src1"}}, None),
    ],
)
async def test_app_roles_stand_for_groups_where_the_configuration_says_so(
    provider: Provider, claims: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    # Entra ID puts app roles into the token however many groups somebody is in: an overage does not concern them.
    verifier = provider.verifier(groups_claim="roles")
    assert (await sign_in(verifier, provider.token(**claims))).groups == expected


GITHUB: dict[str, Any] = {
    "sub": "repo:example/payments:environment:production",
    "repository": "example/payments",
    "repository_owner": "example",
    "repository_id": "74",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "environment": "production",
    "event_name": "push",
    "job_workflow_ref": "example/payments/.github/workflows/review.yml@refs/heads/main",
    "runner_environment": "github-hosted",
    "jti": "example-id",
    "nbf": NOW - 300,
    "name": None,
    "email": None,
    "email_verified": None,
}
"""What GitHub documents of a job's token."""
GITLAB: dict[str, Any] = {
    "sub": "project_path:example/payments:ref_type:branch:ref:main",
    "namespace_path": "example",
    "project_path": "example/payments",
    "project_id": "22",
    "user_email": "ada@example.com",
    "pipeline_source": "push",
    "ref": "main",
    "ref_type": "branch",
    "ref_protected": "true",
    "environment": "production",
    "environment_protected": "true",
    "jti": "235b3a54",
    "nbf": NOW - 5,
    "name": None,
    "email": "ada@example.com",
}
"""What GitLab documents; `email` is no claim of its own, and has to count for nothing if it becomes one."""
JOBS: dict[str, tuple[dict[str, Any], dict[str, tuple[str, ...]], list[dict[str, Any]]]] = {
    "GitHub": (
        GITHUB,
        {"repository": ("example/payments",), "ref": ("refs/heads/main",), "environment": ("production",)},
        [
            {"repository": "example/other"},
            {"repository": "Example/Payments"},
            {"repository": "example/payments2"},
            {"repository": None},
            {"ref": "refs/pull/7/merge"},
            {"ref": "refs/heads/main2"},
            {"environment": None},
            {"environment": "staging"},
            {"aud": "https://github.com/example"},
            {"aud": ["llmgw-client", "sts.amazonaws.com"]},
        ],
    ),
    "GitLab": (
        GITLAB,
        {"project_path": ("example/payments", "example/web"), "ref_protected": ("true",)},
        [
            {"project_path": "evil/payments"},
            {"ref_protected": "false"},
            {"ref_protected": None},
            {"ref_protected": True},
            {"aud": "https://vault.example.com"},
        ],
    ),
}


@pytest.mark.parametrize("issuer", JOBS)
async def test_a_job_is_let_in_by_exactly_its_repository_ref_environment_and_audience(
    provider: Provider, issuer: str
) -> None:
    claims, required, others = JOBS[issuer]
    claim = "repository" if issuer == "GitHub" else "project_path"
    # Somebody is named by e-mail in this configuration: a machine has no address, and is let in without one.
    verifier = provider.verifier(names_people=True, kind="workload", required=required, groups_claim=claim)
    seen = await sign_in(verifier, provider.token({"x5t": "thumb"}, **claims))
    assert (seen.subject, seen.name, seen.email, seen.groups) == (claims["sub"],) * 2 + ("", ("example/payments",))
    for other in others:
        await refusal(verifier, provider.token(**(claims | other)))


@pytest.mark.parametrize("issuer", SHARED)
@pytest.mark.parametrize("kind", ["oidc", "workload"])
def test_an_issuer_of_all_the_world_needs_an_owner(issuer: str, kind: str) -> None:
    for required in ({}, {"environment": ("production",)}, {"job_workflow_ref": ("example/x",)}):
        assert "anybody can get a token" in required_faults(issuer, kind, required)[0]
    assert required_faults(issuer, kind, {SHARED[issuer][0]: ("example",)}) == []
