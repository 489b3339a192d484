"""From headers to a caller: one credential, and what is said when it is none, empty, double, or not what it was."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import tokens
from llmgw_gateway.identity.authenticate import Authenticator, credential
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.ring import Ring
from llmgw_wire.errors import ErrorCode
from tests.gateway.identity import forge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from llmgw_gateway.store.database import Database

ISSUER, AUDIENCE = "https://gateway.example", "llmgw"
# Before anything was published or revoked; neither asks its store for that.
NO_STORE: Any = None
NO_KEYS, NOTHING_REVOKED = Ring(NO_STORE, ISSUER, b"s" * 32), Revocations(NO_STORE)
AMBIGUOUS, MISSING = ErrorCode.CREDENTIAL_AMBIGUOUS, ErrorCode.CREDENTIAL_MISSING


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        [("Authorization", "Bearer tok")],
        [("authorization", "bearer tok")],
        [("Authorization", "BEARER  tok ")],
        [("x-api-key", "tok")],
        [("X-Api-Key", " tok ")],
        [("Authorization", "Bearer tok"), ("x-api-key", "tok")],
        [("Authorization", "Bearer "), ("x-api-key", "tok")],
        [("Authorization", "Bearer"), ("x-api-key", "tok")],
        [("Authorization", "Bearer tok"), ("x-api-key", "")],
    ],
    ids=str,
)
def test_one_value_in_either_header_or_in_both_is_the_credential(pairs: list[tuple[str, str]]) -> None:
    assert credential(headers(*pairs)).reveal() == "tok"


@pytest.mark.parametrize(
    ("pairs", "code", "words"),
    [
        ([], MISSING, ["llmgw login"]),
        ([("Authorization", "")], MISSING, ["llmgw login"]),
        ([("Authorization", "Bearer")], MISSING, ["llmgw login"]),
        ([("Authorization", "Bearer    ")], MISSING, ["llmgw login"]),
        ([("x-api-key", "  ")], MISSING, ["llmgw login"]),
        ([("Authorization", "Basic dG9rOnRvaw==")], MISSING, []),
        ([("Authorization", "tok")], MISSING, []),
        (
            [("Authorization", "Bearer stale"), ("x-api-key", "tok")],
            AMBIGUOUS,
            ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"],
        ),
        ([("Authorization", "Bearer tok"), ("Authorization", "Bearer tok")], AMBIGUOUS, ["more than once"]),
        ([("x-api-key", "tok"), ("x-api-key", "other")], AMBIGUOUS, ["more than once"]),
    ],
    ids=str,
)
def test_a_credential_that_cannot_be_used_is_refused_with_what_to_do(
    pairs: list[tuple[str, str]], code: ErrorCode, words: list[str]
) -> None:
    with pytest.raises(GatewayError) as caught:
        credential(headers(*pairs))
    assert caught.value.code is code
    assert all(word in caught.value.message for word in words)
    assert "stale" not in caught.value.message


@dataclass
class Bench:
    """A gateway's own view: its keys, its revocations, its authenticator."""

    ring: Ring
    revocations: Revocations

    def authenticator(self, issuer: str = ISSUER, audience: str = AUDIENCE) -> Authenticator:
        return Authenticator(self.ring, self.revocations, issuer, audience)

    def minted(self, *, life: int = 600, session: str = "ses_1") -> str:
        now = int(time.time())
        claims = tokens.TokenClaims("per_1", session, "key_1", f"tok_{secrets.token_hex(4)}", "client", now, now + life)
        assert self.ring.key is not None
        return tokens.mint(claims, issuer=ISSUER, audience=AUDIENCE, kid=self.ring.kid, key=self.ring.key).reveal()


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    running = Bench(Ring(database, ISSUER, b"s" * 32), Revocations(database))
    await running.ring.start()
    await running.revocations.start()
    yield running
    running.ring.stop()
    running.revocations.stop()


def bearer(token: str) -> CIMultiDictProxy[str]:
    return headers(("Authorization", f"Bearer {token}"))


async def test_a_good_token_names_its_caller_the_second_time_too(bench: Bench) -> None:
    authenticator = bench.authenticator()
    token = bench.minted()
    caller = authenticator.authenticate(bearer(token))
    assert (caller.person_id, caller.session) == ("per_1", "ses_1")
    assert authenticator.authenticate(bearer(token)) is caller


async def test_only_the_very_same_token_is_remembered(bench: Bench) -> None:
    # CVE-2026-35030 elsewhere: a cache keyed by a part of the token.
    authenticator = bench.authenticator()
    token = bench.minted()
    authenticator.authenticate(bearer(token))
    for other in (token[:-1], token[:-4] + "AAAA", forge.resigned(token, bytes(64)), token + "A", "A" + token):
        with pytest.raises(GatewayError) as caught:
            authenticator.authenticate(bearer(other))
        assert caught.value.code is ErrorCode.TOKEN_INVALID


async def test_an_expired_token_is_never_remembered_as_good(bench: Bench) -> None:
    authenticator = bench.authenticator()
    token = bench.minted(life=-tokens.LEEWAY)
    for _ in range(2):
        with pytest.raises(GatewayError) as caught:
            authenticator.authenticate(bearer(token))
        assert caught.value.code is ErrorCode.TOKEN_EXPIRED


async def test_a_token_of_another_gateway_or_for_another_audience_is_refused(bench: Bench) -> None:
    token = bench.minted()
    for issuer, audience in (("https://other.example", AUDIENCE), (ISSUER, "other")):
        with pytest.raises(GatewayError) as caught:
            bench.authenticator(issuer, audience).authenticate(bearer(token))
        assert caught.value.code is ErrorCode.TOKEN_INVALID


async def test_a_session_that_was_ended_is_refused_at_once_although_its_token_was_known(bench: Bench) -> None:
    authenticator = bench.authenticator()
    ended, other = bench.minted(), bench.minted(session="ses_2")
    authenticator.authenticate(bearer(ended))
    await bench.revocations.end("ses_1")
    for token in (ended, bench.minted(), forge.malleated(ended)):
        with pytest.raises(GatewayError) as caught:
            authenticator.authenticate(bearer(token))
        assert caught.value.code is ErrorCode.TOKEN_INVALID
    assert authenticator.authenticate(bearer(other)).session == "ses_2"


async def test_a_session_stays_ended_after_a_restart(bench: Bench, database: Database) -> None:
    await bench.revocations.end("ses_1")
    await bench.revocations.end("ses_1")
    again = Revocations(database)
    await again.start()
    again.stop()
    assert "ses_1" in again
    assert "ses_2" not in again


@given(st.text(st.characters(), min_size=1, max_size=40))
@example("caf\udcc3\udca9")  # how the HTTP server hands over the bytes of a header that are not UTF-8
def test_a_header_of_any_bytes_is_a_401_and_nothing_worse(value: str) -> None:
    authenticator = Authenticator(NO_KEYS, NOTHING_REVOKED, ISSUER, AUDIENCE)
    for pairs in ([("x-api-key", value)], [("Authorization", f"Bearer {value}")]):
        with pytest.raises(GatewayError) as caught:
            authenticator.authenticate(headers(*pairs))
        assert caught.value.code.wire.status == 401
