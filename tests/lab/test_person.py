"""The headless person signs in at every provider of the laboratory, and the tokens are what the gateway expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
import msal
import pytest
import requests

from tests.lab import node
from tests.lab.callback import Callback
from tests.lab.glewlwyd import RESOURCE as GLEWLWYD
from tests.lab.native_app import NativeApp, SignInError
from tests.lab.oidc_provider import CLIENT_ID, RESOURCE, RESOURCE_SCOPE, TENANT, OidcProvider, signing_key
from tests.lab.person import Person

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.glewlwyd import Glewlwyd

needs_node = pytest.mark.skipif(not node.available(), reason="needs Node and npm")
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[OidcProvider]:
    with OidcProvider(tmp_path) as server:
        yield server


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def test_canaille_gives_a_fresh_access_token_on_refresh_but_no_id_token(canaille: Canaille) -> None:
    app = NativeApp(canaille.issuer)
    first = app.sign_in(canaille.person("ada"))
    second = app.refresh(first["refresh_token"])
    token = claims(second["access_token"])
    assert "id_token" in first
    assert "id_token" not in second
    assert jwt.get_unverified_header(second["access_token"])["alg"] == "RS256"
    assert (token["sub"], token["name"], token["aud"]) == ("ada", "Ada Lovelace", ["llmgw-agent"])
    assert token["iat"] >= claims(first["access_token"])["iat"]
    assert set(token["groups"]) == {"engineering", "analysts"}
    with pytest.raises(SignInError, match="invalid_grant"):
        app.refresh(first["refresh_token"])


def test_canaille_asks_for_the_right_password(canaille: Canaille) -> None:
    with pytest.raises(SignInError, match="no code"):
        NativeApp(canaille.issuer).sign_in(Person("ada", "not her password"))


def test_canaille_refuses_a_redirect_that_leaves_the_machine(canaille: Canaille) -> None:
    with pytest.raises(SignInError, match="the last page was 400"):
        NativeApp(canaille.issuer).sign_in(canaille.person(), redirect_uri="http://127.0.0.1.example.com/callback")


def test_glewlwyd_gives_a_fresh_access_token_on_refresh_and_ends_what_was_used_twice(glewlwyd: Glewlwyd) -> None:
    app = NativeApp(glewlwyd.issuer)
    first = app.sign_in(glewlwyd.person("ada"), resource=GLEWLWYD)
    second = app.refresh(first["refresh_token"])
    identity, token = claims(first["id_token"]), claims(second["access_token"])
    assert "id_token" not in second
    assert jwt.get_unverified_header(second["access_token"])["typ"] == "at+jwt"
    assert (identity["name"], identity["aud"], identity["groups"]) == (
        "Ada Lovelace",
        "llmgw-agent",
        ["engineering", "analysts"],
    )
    assert (token["sub"], token["aud"], token["client_id"]) == (identity["sub"], GLEWLWYD, "llmgw-agent")
    assert token["groups"] == "engineering,analysts"
    for used in (first, second):
        with pytest.raises(SignInError, match="400"):
            app.refresh(used["refresh_token"])


def test_glewlwyd_confirms_a_device_code(glewlwyd: Glewlwyd) -> None:
    app = NativeApp(glewlwyd.issuer)
    device = app.device_code()
    glewlwyd.person("grace").sign_in(device["verification_uri"], user_code=device["user_code"])
    tokens = app.token(grant_type=DEVICE_GRANT, device_code=device["device_code"])
    assert claims(tokens["id_token"])["email"] == "grace@example.com"


@needs_node
def test_oidc_provider_gives_a_fresh_id_token_on_refresh(provider: OidcProvider) -> None:
    app = NativeApp(provider.issuer)
    first = app.sign_in(provider.person("grace"))
    second = app.refresh(first["refresh_token"])
    identity, access = claims(second["id_token"]), claims(second["access_token"])
    assert (identity["sub"], identity["email"], identity["aud"]) == ("grace", "grace@example.com", "llmgw-agent")
    assert (access["aud"], access["client_id"]) == (RESOURCE, "llmgw-agent")
    assert jwt.get_unverified_header(second["access_token"])["typ"] == "at+jwt"
    with pytest.raises(SignInError, match="invalid_grant"):
        app.refresh(first["refresh_token"])


@needs_node
def test_a_device_code_is_confirmed(provider: OidcProvider) -> None:
    app = NativeApp(provider.issuer)
    device = app.device_code()
    page = provider.person("ada").sign_in(device["verification_uri"], user_code=device["user_code"])
    assert "Success" in page.text
    tokens = app.token(grant_type=DEVICE_GRANT, device_code=device["device_code"])
    assert claims(tokens["id_token"])["sub"] == "ada"


@needs_node
def test_keys_rotate_while_the_address_stays(provider: OidcProvider) -> None:
    before, issuer = provider.keys[0]["kid"], provider.issuer
    provider.keys = [signing_key()]
    provider.restart()
    tokens = NativeApp(issuer).sign_in(provider.person())
    assert jwt.get_unverified_header(tokens["id_token"])["kid"] == provider.keys[0]["kid"] != before


@needs_node
def test_like_entra_it_answers_below_a_tenant_over_tls(tmp_path: Path) -> None:
    with OidcProvider.like_entra(tmp_path) as provider:
        app = NativeApp(provider.issuer, ca_file=provider.ca_file)
        tokens = app.sign_in(provider.person())
    access = claims(tokens["access_token"])
    assert provider.issuer == f"{provider.origin}/{TENANT}/v2.0" == access["iss"]
    assert (access["tid"], access["oid"]) == (TENANT, provider.accounts["ada"]["oid"])


@needs_node
def test_msal_runs_its_entra_code_path_against_it(tmp_path: Path) -> None:
    with (
        OidcProvider.like_entra(tmp_path) as provider,
        requests.Session() as session,
        Callback("localhost") as callback,
    ):
        # MSAL's own `verify` loses against variables of the machine: a session that ignores them is the remedy.
        session.trust_env, session.verify = False, str(provider.ca_file)
        authority = f"{provider.origin}/{TENANT}"
        app = msal.PublicClientApplication(
            CLIENT_ID, authority=authority, instance_discovery=False, http_client=session
        )
        flow = app.initiate_auth_code_flow([RESOURCE_SCOPE], redirect_uri=callback.url, response_mode="form_post")
        provider.person("ada").sign_in(flow["auth_uri"])
        tokens = app.acquire_token_by_auth_code_flow(flow, callback.fields)
        account = app.get_accounts()[0]
        renewed = app.acquire_token_silent([RESOURCE_SCOPE], account, force_refresh=True)
    assert claims(tokens["access_token"])["aud"] == RESOURCE
    assert renewed["access_token"] != tokens["access_token"]
