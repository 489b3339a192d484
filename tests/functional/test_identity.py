"""The gateway's front door for identity: a real provider signs in, and what is not quite right is refused."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.functional import ledger
from tests.functional.device import BEDROCK_MODEL, Device, read_to_end
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.shop import Shop
    from tests.lab.gateway import Gateway

BEDROCK_PATH = f"/bedrock/model/{unquote(BEDROCK_MODEL)}/invoke-with-response-stream"


def test_a_sign_in_becomes_a_token_that_answers_a_prompt(ada: Device, scripted: ScriptedBedrock) -> None:
    reply = ada.ask()
    assert reply.status == 200
    assert reply.json["content"][0]["text"] == scripted.default.text
    assert ada.me()["budgets"][0]["limit"] == 20_000_000


def test_the_same_device_keeps_its_session_and_another_gets_its_own(
    gateway: Gateway, ada: Device, sign_in: Callable[[str], str]
) -> None:
    first = ada.me()
    ada.exchange(sign_in("ada"))
    other = Device(gateway.url)
    other.exchange(sign_in("ada"))
    assert ada.me()["session"] == first["session"]
    assert other.me()["session"] != first["session"]
    assert other.me()["person"] == first["person"]


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})


def _hostile(token: str) -> dict[str, str]:
    """Variants of a good gateway token that must all be refused."""
    header, claims = _parts(token)
    own = ec.generate_private_key(ec.SECP256R1())
    kid = header["kid"]

    def signed(changed: dict[str, Any], key: Any = own, algorithm: str = "ES256", **more: Any) -> str:
        return jwt.encode(claims | changed, key, algorithm, headers={"kid": kid, "typ": "at+jwt"} | more)

    head, payload, signature = token.split(".")
    altered = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "per_other"}).encode()).rstrip(b"=").decode()
    unsigned = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "at+jwt", "kid": kid}).encode())
    return {
        "another key": signed({}),
        "unknown kid": signed({}, kid="unknown"),
        "algorithm none": f"{unsigned.rstrip(b'=').decode()}.{payload}.",
        "algorithm HS256": signed({}, "x" * 64, "HS256"),
        "algorithm RS256": signed({}, rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        "tampered payload": f"{head}.{altered}.{signature}",
        "truncated": token[:-2],
        "padded": f"{token}==",
        "not a token": "abc",
    }


def test_hostile_tokens_get_401_and_leave_nothing_in_the_ledger(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    for name, token in _hostile(ada.token).items():
        for reply in (ada.ask(token=token), ada.ask_bedrock(token=token), ada.ask(stream=True, token=token)):
            assert reply.status == 401, name
            assert reply.error["type"] == "authentication_error", name
            assert "x-should-retry" not in reply.headers, "the client must run its helper again"
    assert scripted.calls == []
    assert ledger.rows(gateway.db) == []


def test_a_provider_token_is_no_gateway_token(ada: Device, sign_in: Callable[[str], str]) -> None:
    assert ada.ask(token=sign_in("ada")).status == 401


@pytest.mark.configured(tokens={"life_seconds": 2})
def test_an_expired_token_gets_401(ada: Device, sign_in: Callable[[str], str]) -> None:
    ada.exchange(sign_in("ada"))
    expires = ada.me()["token_expires_at"]
    while time.time() < expires + 6:  # the leeway between replicas has to pass, too
        time.sleep(0.1)
    reply = ada.ask()
    assert (reply.status, reply.error["code"]) == (401, "token_expired")
    assert "x-should-retry" not in reply.headers


@pytest.mark.parametrize(
    ("headers", "code", "names"),
    [
        ({}, "credential_missing", "llmgw login"),
        ({"authorization": "Bearer "}, "credential_missing", "llmgw login"),
        ({"authorization": "Basic abc"}, "credential_missing", "llmgw login"),
        ({"authorization": "Bearer abc", "x-api-key": "def"}, "credential_ambiguous", "ANTHROPIC_AUTH_TOKEN"),
    ],
)
def test_a_request_without_one_clear_credential_says_what_to_do(
    shop: Shop, headers: dict[str, str], code: str, names: str
) -> None:
    reply = shop.ada.request("POST", "/v1/messages", b"{}", headers, token="")
    assert (reply.status, reply.error["code"]) == (401, code)
    assert names in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false"


def test_the_helpers_value_is_accepted_in_either_header_or_both(shop: Shop) -> None:
    bearer, key = {"authorization": f"Bearer {shop.ada.token}"}, {"x-api-key": shop.ada.token}
    for headers in (bearer, key, bearer | key):
        assert shop.ada.request("GET", "/v1/models", headers=headers, token="").status == 200


@pytest.fixture
def forged(sign_in: Callable[[str], str]) -> Callable[..., str]:
    """Sign-ins that look like the provider's and are not."""
    header, claims = _parts(sign_in("ada"))
    own = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def forge(key: Any = own, algorithm: str = "RS256", **changed: Any) -> str:
        return jwt.encode(claims | changed, key, algorithm, headers={"kid": header.get("kid", ""), "typ": "at+jwt"})

    return forge


def test_hostile_sign_ins_are_refused_at_the_exchange(
    gateway: Gateway, forged: Callable[..., str], sign_in: Callable[[str], str]
) -> None:
    device = Device(gateway.url)
    genuine = sign_in("ada")
    hostile = {
        "signed by another key": forged(),
        "another issuer": forged(iss="https://evil.example"),
        "another audience": forged(aud="someone-else"),
        "symmetric": forged("x" * 64, "HS256"),
        "expired": forged(exp=1),
        "tampered": genuine[:-6] + "AAAAAA",
        "empty": "",
        "not a token": "abc",
    }
    for name, token in hostile.items():
        reply = device.try_exchange(token)
        assert (reply.status, reply.json["error"]) == (401, "invalid_grant"), name
    assert device.try_exchange(genuine).status == 200


def test_a_sign_in_alone_is_not_enough_without_a_fresh_proof_of_the_device(
    gateway: Gateway, sign_in: Callable[[str], str]
) -> None:
    device, genuine = Device(gateway.url), sign_in("ada")
    used = device.proof()
    assert device.try_exchange(genuine, proof=used).status == 200
    for proof in (used, "abc", device.proof(htm="GET"), device.proof(htu="https://evil.example"), device.proof(iat=1)):
        reply = device.try_exchange(genuine, proof=proof)
        assert (reply.status, reply.json["error"]) == (401, "invalid_dpop_proof")


def test_a_restart_invalidates_no_token(gateway: Gateway, ada: Device) -> None:
    gateway.restart()
    assert ada.ask().status == 200


def test_a_key_without_the_cluster_secret_is_not_believed(gateway: Gateway, ada: Device) -> None:
    """Whoever can write to the store still cannot add a key: another secret makes all rows foreign."""
    gateway.terminate()
    (gateway.folder / "cluster.secret").write_text("z" * 48)
    gateway.restart()
    assert ada.ask().status == 401


def test_a_revoked_token_and_its_session_end_at_once_and_the_device_can_sign_in_again(
    ada: Device, sign_in: Callable[[str], str]
) -> None:
    session = ada.me()["session"]
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert ada.request("POST", "/oauth/revoke", f"token={ada.token}".encode(), form, token="").status == 200
    assert ada.ask().status == 401
    assert ada.request("POST", "/oauth/revoke", b"token=nonsense", form, token="").status == 200
    ada.exchange(sign_in("ada"))
    assert ada.me()["session"] != session
    assert ada.ask().status == 200


@pytest.mark.parametrize("dialect", ["anthropic", "bedrock"])
def test_revocation_ends_a_running_answer_and_settles_it_exactly(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, sign_in: Callable[[str], str], dialect: str
) -> None:
    scripted.default = Answer(usage=Usage(100, 400), hold_after=1)
    form = {"content-type": "application/x-www-form-urlencoded"}
    with ada.streaming(dialect) as stream:
        assert stream.status == 200
        assert ada.request("POST", "/oauth/revoke", f"token={ada.token}".encode(), form, token="").status == 200
        rest = read_to_end(stream)
    assert b"llmgw login" in rest
    scripted.release_all()
    (entry,) = ledger.settled(gateway.db, 1)
    assert (entry.outcome, entry.estimated, ledger.usage_of(entry)) == ("revoked", False, Usage(100, 400))
    assert gateway.audited("/v1/messages" if dialect == "anthropic" else BEDROCK_PATH, outcome="revoked")
    scripted.default = Answer()
    ada.exchange(sign_in("ada"))
    assert ada.ask().status == 200


def test_a_whole_answer_that_arrives_after_the_session_has_ended_is_paid_and_not_delivered(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.default = Answer(hold_after=0)
    form = {"content-type": "application/x-www-form-urlencoded"}
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ada.ask)
        while not scripted.calls:
            ada.request("GET", "/healthz")
        ada.request("POST", "/oauth/revoke", f"token={ada.token}".encode(), form, token="")
        scripted.release_all()
        reply = asking.result(timeout=30)
    assert (reply.status, reply.error["code"]) == (401, "token_invalid")
    (entry,) = ledger.settled(gateway.db, 1)
    assert not entry.estimated
    assert entry.cost > 0
