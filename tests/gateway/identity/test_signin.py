"""Sign-ins, checked against a real provider over HTTP: whose, for whom, how fresh, by which key."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.jwks import COOL_DOWN_SECONDS
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE
from tests.gateway.identity import forge
from tests.gateway.identity.provider import CLIENT, EC, NOW, RSA, Provider, sign_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_gateway.identity.signin import SignInVerifier

STRANGER = forge.ec_key()
INVALID, STALE, AWAY = (
    ErrorCode.SIGN_IN_INVALID,
    ErrorCode.SIGN_IN_STALE,
    ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE,
)


async def refusal(verifier: SignInVerifier, token: str, kind: str = ID_TOKEN_TYPE, code: ErrorCode = INVALID) -> str:
    with pytest.raises(GatewayError) as caught:
        await sign_in(verifier, token, kind)
    assert caught.value.code is code
    assert len(token) < 40 or token not in caught.value.message
    return caught.value.message


async def test_a_good_sign_in_says_who_it_is(provider: Provider) -> None:
    seen = await sign_in(provider.verifier(), provider.token())
    assert (seen.subject, seen.name, seen.email) == ("subject-1", "Ada Lovelace", "ada@example.com")
    assert (seen.issued_at, seen.expires_at, seen.issuer.issuer) == (NOW, NOW + 3600, provider.issuer)


@pytest.mark.parametrize(
    ("header", "key"),
    [({}, RSA), ({"alg": "ES256", "kid": "ec"}, EC), ({"typ": None}, RSA), ({"x5t": "thumb"}, RSA)],
    ids=["RS256", "ES256", "no typ", "with x5t"],
)
async def test_sign_ins_of_every_ordinary_form_are_accepted(
    provider: Provider, header: dict[str, Any], key: forge.PrivateKey
) -> None:
    assert (await sign_in(provider.verifier(), provider.token(header, key))).subject == "subject-1"


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256"])
async def test_a_key_without_an_algorithm_serves_every_configured_one(provider: Provider, algorithm: str) -> None:
    # `alg` is optional in a JWK (RFC 7517 section 4.4), and large providers leave it out.
    provider.keys = [forge.public_jwk(RSA, kid="rsa")]
    verifier = provider.verifier(algorithms=(algorithm,))
    assert (await sign_in(verifier, provider.token({"alg": algorithm}))).subject == "subject-1"


HOSTILE: dict[str, Callable[[Provider], str]] = {
    "an unknown issuer": lambda p: p.token(iss="https://evil.example"),
    "the issuer with a slash": lambda p: p.token(iss=p.issuer + "/"),
    "no issuer": lambda p: p.token(iss=None),
    "the issuer in a list": lambda p: p.token(iss=[p.issuer]),
    "another audience": lambda p: p.token(aud="other"),
    "a stranger among the audiences": lambda p: p.token(aud=[CLIENT, "other"]),
    "no audience": lambda p: p.token(aud=None),
    "an empty list of audiences": lambda p: p.token(aud=[]),
    "another authorized party": lambda p: p.token(azp="other"),
    "its authorized party a list": lambda p: p.token(azp=[CLIENT]),
    "an access token": lambda p: p.token({"typ": "at+jwt"}),
    "an access token, by its media type": lambda p: p.token({"typ": "application/at+jwt"}),
    "an access token in capitals": lambda p: p.token({"typ": "AT+JWT"}),
    "an algorithm that is not configured": lambda p: p.token({"alg": "RS512"}),
    "alg none": lambda p: p.token({"alg": "none"}, EC),
    "alg NoNe": lambda p: p.token({"alg": "NoNe"}, EC),
    "alg a list": lambda p: p.token({"alg": ["RS256"]}, EC),
    "alg missing": lambda p: p.token({"alg": None}, EC),
    "HS256 with the public PEM": lambda p: p.token({"alg": "HS256"}, EC),
    "RS256 under an elliptic key": lambda p: p.token({"alg": "RS256", "kid": "ec"}, EC),
    "ES256 under an RSA key": lambda p: p.token({"alg": "ES256", "kid": "rsa"}, EC),
    "a stranger's key": lambda p: p.token({"alg": "ES256", "kid": "ec"}, STRANGER),
    "an unpublished key": lambda p: p.token({"alg": "ES256", "kid": "new"}, STRANGER),
    "no kid": lambda p: p.token({"kid": None}),
    "kid a path": lambda p: p.token({"kid": "../../dev/null"}),
    "kid a list": lambda p: p.token({"kid": ["rsa"]}),
    "r and s zero": lambda p: forge.resigned(p.token({"alg": "ES256", "kid": "ec"}, EC), bytes(64)),
    "an embedded key": lambda p: p.token({"jwk": forge.public_jwk(STRANGER)}, STRANGER),
    "jku": lambda p: p.token({"jku": "https://evil.example/keys"}),
    "crit": lambda p: p.token({"crit": ["exp"]}),
    "tampered": lambda p: p.token()[:-90] + ("AAAA" if p.token()[-90:-86] != "AAAA" else "BBBB") + p.token()[-86:],
    "unsigned": lambda p: p.token().rpartition(".")[0] + ".",
    "padded": lambda p: p.token() + "==",
    "sub twice": lambda p: forge.token(
        {"alg": "ES256", "kid": "ec"}, forge.raw(p.claims()).replace(b'"sub"', b'"sub":"root","sub"'), EC
    ),
    "no sub": lambda p: p.token(sub=None),
    "sub empty": lambda p: p.token(sub=""),
    "sub a number": lambda p: p.token(sub=1),
    "sub with NUL": lambda p: p.token(sub="a\0"),
    "sub with a line break": lambda p: p.token(sub="a\nb"),
    "sub a lone surrogate": lambda p: p.token(sub="\ud800"),
    "sub too long": lambda p: p.token(sub="s" * 257),
    "no iat": lambda p: p.token(iat=None),
    "iat a string": lambda p: p.token(iat=str(NOW)),
    "iat true": lambda p: p.token(iat=True),
    "iat one hour ahead": lambda p: p.token(iat=NOW + 3600, exp=NOW + 7200),
    "nbf one hour ahead": lambda p: p.token(nbf=NOW + 3600),
    "nbf a string": lambda p: p.token(nbf="0"),
    "no exp": lambda p: p.token(exp=None),
    "auth_time a string": lambda p: p.token(auth_time=str(NOW)),
    "auth_time infinite": lambda p: p.token(auth_time=float("inf")),
    "auth_time one hour ahead": lambda p: p.token(auth_time=NOW + 3600),
    "auth_time NaN": lambda p: p.token(auth_time=float("nan")),
    "auth_time true": lambda p: p.token(auth_time=True),
    "exp a string": lambda p: p.token(exp=str(NOW + 3600)),
    "exp infinite": lambda p: p.token(exp=float("inf")),
    "exp NaN": lambda p: p.token(exp=float("nan")),
    "exp true": lambda p: p.token(exp=True),
    "JSON 60,000 deep": lambda _: forge.token({"alg": "ES256", "kid": "ec"}, b"[" * 60_000, EC),
    "JSON as deep as fits": lambda _: forge.token({"alg": "ES256", "kid": "ec"}, b'{"a":' + b"[" * 20_000, EC),
    "no token": lambda _: "",
    "an opaque token": lambda _: "abcdef",
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_sign_in_is_refused(provider: Provider, case: str) -> None:
    verifier = provider.verifier()
    await sign_in(verifier, provider.token())  # the keys are known: nothing is refused for want of them
    await refusal(verifier, HOSTILE[case](provider))


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iat": NOW - 299}, None),
        ({"iat": NOW - 300}, STALE),
        ({"iat": NOW - 86_400}, STALE),
        ({"exp": NOW - 59}, None),
        ({"exp": NOW - 60}, STALE),
        ({"iat": NOW + 60}, None),
        ({"iat": NOW + 61}, INVALID),
        ({"nbf": NOW + 60}, None),
        ({"nbf": NOW + 61}, INVALID),
    ],
)
async def test_a_sign_in_holds_while_it_is_fresh(
    provider: Provider, claims: dict[str, Any], code: ErrorCode | None
) -> None:
    verifier = provider.verifier(freshness_seconds=300)
    if code is None:
        assert (await sign_in(verifier, provider.token(**claims))).subject == "subject-1"
    else:
        await refusal(verifier, provider.token(**claims), code=code)


async def test_a_stale_sign_in_is_told_apart_from_a_wrong_one(provider: Provider) -> None:
    # The agent refreshes at the provider for one, and asks the person to sign in again for the other.
    message = await refusal(provider.verifier(), provider.token(iat=NOW - 400), code=STALE)
    assert "300 s" in message


async def test_a_stale_sign_in_with_a_wrong_signature_is_wrong(provider: Provider) -> None:
    token = provider.token({"alg": "ES256", "kid": "ec"}, STRANGER, iat=NOW - 86_400)
    await refusal(provider.verifier(), token)


async def test_each_kind_of_token_is_accepted_only_where_it_is_wanted(provider: Provider) -> None:
    await refusal(provider.verifier(), provider.token(), ACCESS_TOKEN_TYPE)
    await refusal(provider.verifier(subject_token="access_token"), provider.token())
    wants_access = provider.verifier(subject_token="access_token", audience="api://llmgw")
    access = provider.token({"typ": "at+jwt"}, aud="api://llmgw", client_id=CLIENT)
    assert (await sign_in(wants_access, access, ACCESS_TOKEN_TYPE)).subject == "subject-1"


API = "api://llmgw"


@pytest.mark.parametrize("name", ["azp", "client_id", "appid", "cid"])
async def test_an_access_token_of_our_client_is_accepted_however_the_provider_names_it(
    provider: Provider, name: str
) -> None:
    verifier = provider.verifier(subject_token="access_token", audience=API)
    claims: dict[str, Any] = {name: CLIENT}
    access = provider.token({"typ": "at+jwt"}, aud=API, **claims)
    assert (await sign_in(verifier, access, ACCESS_TOKEN_TYPE)).subject == "subject-1"


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"nonce": "n", "azp": CLIENT},
        {"at_hash": "h", "azp": CLIENT},
        {"azp": "other"},
        {"client_id": "other"},
        {"appid": "other"},
        {"cid": "other"},
        {"azp": CLIENT, "client_id": "other"},
        {"azp": [CLIENT]},
        {"azp": ""},
    ],
)
async def test_an_id_token_or_a_stranger_s_does_not_pass_for_an_access_token(
    provider: Provider, claims: dict[str, Any]
) -> None:
    # Every app of the company may hold access tokens for an API: one that leaks there must be worth nothing here.
    verifier = provider.verifier(subject_token="access_token", audience=API)
    await sign_in(verifier, provider.token(aud=API, azp=CLIENT), ACCESS_TOKEN_TYPE)
    await refusal(verifier, provider.token(aud=API, **claims), ACCESS_TOKEN_TYPE)


async def test_an_access_token_for_the_client_itself_says_by_that_whose_it_is(provider: Provider) -> None:
    verifier = provider.verifier(subject_token="access_token", audience=CLIENT)
    assert (await sign_in(verifier, provider.token(), ACCESS_TOKEN_TYPE)).subject == "subject-1"
    await refusal(verifier, provider.token(azp="other"), ACCESS_TOKEN_TYPE)
    await refusal(verifier, provider.token(aud=[CLIENT, API]), ACCESS_TOKEN_TYPE)


@pytest.mark.parametrize("said", [{}, {"auth_time": 0}])
async def test_a_provider_that_does_not_know_when_somebody_signed_in_says_nothing_or_zero(
    provider: Provider, said: dict[str, Any]
) -> None:
    seen = await sign_in(provider.verifier(), provider.token(**said))
    assert seen.authenticated_at is None
    assert seen.is_recent(NOW, 1)


@pytest.mark.parametrize("auth_time", [NOW - 60, NOW - 60.4])
async def test_when_the_person_signed_in_is_known_where_the_provider_says_so(
    provider: Provider, auth_time: float
) -> None:
    seen = await sign_in(provider.verifier(), provider.token(auth_time=auth_time))
    assert (seen.is_recent(NOW, 61), seen.is_recent(NOW, 59)) == (True, False)
    assert (await sign_in(provider.verifier(), provider.token())).is_recent(NOW, 1)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, ()),
        ({"groups": ["a"]}, ("a",)),
        ({"groups": "a"}, ("a",)),
        ({"groups": ""}, ()),
        ({"groups": 5}, ()),
        ({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph"}}}, None),
        ({"hasgroups": True}, None),
        ({"hasgroups": "true"}, None),
        ({"_claim_names": {"other": "src1"}}, ()),
        ({"groups": [str(number) for number in range(501)]}, None),
    ],
)
async def test_groups_that_the_token_does_not_hold_are_unknown_and_not_none(
    provider: Provider, claims: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    assert (await sign_in(provider.verifier(), provider.token(**claims))).groups == expected


async def test_a_provider_s_token_with_two_hundred_groups_is_read_and_one_without_end_is_not(
    provider: Provider,
) -> None:
    groups = [f"{number:08d}-0000-0000-0000-000000000000" for number in range(200)]
    long = provider.token(groups=groups)
    assert 8192 < len(long) < 32_000
    assert (await sign_in(provider.verifier(), long)).groups == tuple(groups)
    await refusal(provider.verifier(), provider.token(name="n" * 32_000))


async def test_a_person_of_entra_is_known_by_tenant_and_object_never_by_sub(provider: Provider) -> None:
    verifier = provider.verifier(kind="entra")
    assert (await sign_in(verifier, provider.token(tid="tenant", oid="object"))).subject == "tenant/object"
    incomplete: list[dict[str, Any]] = [{"tid": "tenant"}, {"oid": "object"}, {"tid": "", "oid": "object"}]
    for claims in incomplete:
        await refusal(verifier, provider.token(**claims))


@given(st.text(st.characters(), max_size=300))
def test_names_reach_people_without_control_characters(name: str) -> None:
    async def shown() -> str:
        async with Provider() as provider:
            return (
                await sign_in(provider.verifier(), provider.token({"alg": "ES256", "kid": "ec"}, EC, name=name))
            ).name

    seen = asyncio.run(shown())
    assert seen.isprintable()
    assert len(seen) <= 256
    if name.isprintable() and 0 < len(name) <= 256:
        assert seen == name


@pytest.mark.parametrize("value", [None, 5, ["a"], {"a": 1}])
async def test_a_name_that_is_no_text_is_no_name(provider: Provider, value: object) -> None:
    seen = await sign_in(provider.verifier(), provider.token(name=value, email=value, preferred_username="ada"))
    assert (seen.name, seen.email) == ("ada", "")
    nameless = await sign_in(provider.verifier(), provider.token(name=value, email=value))
    assert (nameless.name, nameless.email) == ("subject-1", "")


VOUCHED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, "ada@example.com"),
    ({}, {"email_verified": "true"}, "ada@example.com"),
    ({}, {"email_verified": None}, ""),
    ({}, {"email_verified": False}, ""),
    ({}, {"email_verified": "false"}, ""),
    ({}, {"email_verified": None, "preferred_username": "ada@example.com"}, ""),
    ({}, {"email": "ada@exa\x00mple.com"}, ""),
    ({}, {"email_verified": None, "xms_edov": True}, ""),
    ({"kind": "entra"}, {"email_verified": None, "xms_edov": True}, "ada@example.com"),
    ({"kind": "entra"}, {"email_verified": None, "xms_edov": "1"}, "ada@example.com"),
    ({"kind": "entra"}, {"email_verified": None, "xms_edov": False}, ""),
    ({"email_claim": "email"}, {"email_verified": None}, "ada@example.com"),
    ({"email_claim": "email"}, {"email": None, "preferred_username": "ada"}, ""),
    ({"email_claim": "preferred_username"}, {"preferred_username": "ada@example.org"}, "ada@example.org"),
    ({"email_claim": "preferred_username"}, {}, ""),
]


@pytest.mark.parametrize(("configured", "claims", "email"), VOUCHED)
async def test_an_address_decides_only_where_somebody_vouches_for_it(
    provider: Provider, configured: dict[str, Any], claims: dict[str, Any], email: str
) -> None:
    # People write what they like into their own profiles: a colleague's address, too.
    token = provider.token(**({"tid": "tenant", "oid": "object"} | claims))
    assert (await sign_in(provider.verifier(**configured), token)).email == email
    strict = provider.verifier(names_people=True, **configured)
    if email:
        assert (await sign_in(strict, token)).email == email
    else:
        await refusal(strict, token)


async def test_who_is_not_named_is_told_what_is_missing(provider: Provider) -> None:
    with pytest.raises(GatewayError) as caught:
        await sign_in(provider.verifier(names_people=True), provider.token(email_verified=None))
    for words in ("knows people by e-mail", provider.issuer, "email_verified", "issuers.email_claim"):
        assert words in caught.value.message


async def test_a_provider_that_is_down_before_its_keys_were_seen_is_no_fault_of_the_person(provider: Provider) -> None:
    token = provider.token()
    await provider.stop()
    await refusal(provider.verifier(), token, code=AWAY)


async def test_a_provider_that_goes_down_later_is_not_missed(provider: Provider) -> None:
    verifier = provider.verifier()
    token = provider.token()
    await sign_in(verifier, token)
    await provider.stop()
    assert (await sign_in(verifier, token)).subject == "subject-1"
    await refusal(verifier, provider.token({"alg": "ES256", "kid": secrets.token_hex(4)}, STRANGER))


async def test_five_thousand_random_key_ids_cause_at_most_one_fetch_in_each_cool_down(provider: Provider) -> None:
    began = time.monotonic()
    verifier = provider.verifier()
    good = provider.token()
    await sign_in(verifier, good)
    for _ in range(50):
        tokens = [forge.unverifiable(good, kid=secrets.token_hex(8)) for _ in range(100)]
        await asyncio.gather(*(refusal(verifier, token) for token in tokens))
    assert provider.fetches <= 1 + (time.monotonic() - began) // COOL_DOWN_SECONDS
    assert (await sign_in(verifier, good)).subject == "subject-1"


async def test_sign_ins_that_arrive_during_a_fetch_wait_for_it_and_cause_no_other(provider: Provider) -> None:
    verifier = provider.verifier()
    token = provider.token()
    seen = await asyncio.gather(*(sign_in(verifier, token) for _ in range(200)), return_exceptions=True)
    assert provider.fetches == 1
    assert [each for each in seen if isinstance(each, Exception)] == []
