"""The exchange on a real store: proof, person and device session are one decision, and it is durable."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy import func, select, update

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import tokens
from llmgw_gateway.identity.directory import Directory, Person
from llmgw_gateway.identity.exchange import Enrolled, Exchange
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.ring import Ring
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.sections.exchanging import Tokens
from llmgw_gateway.store.schema import persons, proofs, sessions
from llmgw_wire.errors import ErrorCode
from llmgw_wire.messages import ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE, TOKEN_EXCHANGE_GRANT
from tests.gateway.identity import forge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from sqlalchemy import Connection, Table

    from llmgw_gateway.store.database import Database
    from llmgw_wire.messages import ExchangeAnswer
    from tests.gateway.identity.provider import Provider

ISSUER = "https://gateway.example"
URL = f"{ISSUER}/oauth/token"
SETTINGS = Tokens(cluster_secret_file="unused", life_seconds=600)
DEVICE, OTHER_DEVICE = forge.ec_key(), forge.ec_key()


@dataclass
class Bench:
    """An exchange with everything real around it."""

    provider: Provider
    database: Database
    ring: Ring
    exchange: Exchange

    def form(self, subject: str = "subject-1", signed_in: int | None = None, **changed: str) -> dict[str, str]:
        now = int(time.time())
        auth_time = None if signed_in is None else now - signed_in
        token = self.provider.token(sub=subject, iat=now, exp=now + 600, auth_time=auth_time)
        return {
            "grant_type": TOKEN_EXCHANGE_GRANT,
            "subject_token": token,
            "subject_token_type": ID_TOKEN_TYPE,
        } | changed

    async def __call__(
        self,
        subject: str = "subject-1",
        device: EllipticCurvePrivateKey = DEVICE,
        proof: str = "",
        signed_in: int | None = None,
        **changed: str,
    ) -> tuple[ExchangeAnswer, Enrolled]:
        form = self.form(subject, signed_in, **changed)
        return await self.exchange.exchange(form, [proof or forge.proof(device, url=URL)])

    async def refusal(self, *args: Any, **changed: Any) -> ErrorCode:
        with pytest.raises(GatewayError) as caught:
            await self(*args, **changed)
        return caught.value.code

    async def count(self, table: Table) -> int:
        def query(connection: Connection) -> int:
            return connection.scalar(select(func.count()).select_from(table)) or 0

        return await self.database.read(query)


@pytest.fixture
async def bench(provider: Provider, both: Database, database: Database) -> AsyncIterator[Bench]:
    # The ring keeps to a file: on a store that is shared a key waits for seconds before it signs (test_replicas.py).
    ring = Ring(database, ISSUER, b"s" * 32)
    await ring.start()
    yield Bench(provider, both, ring, Exchange(provider.verifier(), ring, both, SETTINGS, ISSUER))
    ring.stop()


async def test_a_sign_in_becomes_a_token_of_the_person_that_the_gateway_accepts(bench: Bench) -> None:
    answer, enrolled = await bench()
    assert (answer.expires_in, answer.issued_token_type) == (600, ACCESS_TOKEN_TYPE)
    claims = tokens.verify(answer.access_token, bench.ring.public, issuer=ISSUER, audience="llmgw", now=time.time())
    assert (claims.person_id, claims.session) == (enrolled.person_id, enrolled.session)
    assert claims.expires_at - claims.issued_at == 600
    assert await Directory(bench.database, Accounts((), ())).person(enrolled.person_id) == Person(
        "Ada Lovelace", "ada@example.com", bench.provider.issuer
    )


async def test_the_same_person_on_the_same_device_is_one_session(bench: Bench) -> None:
    (first, enrolled), (second, again) = await bench(), await bench()
    assert enrolled == again
    assert first.access_token != second.access_token
    assert (await bench.count(persons), await bench.count(sessions)) == (1, 1)


async def test_another_device_is_another_session_and_another_person_another_both(bench: Bench) -> None:
    _, mine = await bench()
    _, elsewhere = await bench(device=OTHER_DEVICE)
    _, theirs = await bench("subject-2")
    assert mine.person_id == elsewhere.person_id != theirs.person_id
    assert len({mine.session, elsewhere.session, theirs.session}) == 3
    assert (await bench.count(persons), await bench.count(sessions)) == (2, 3)


async def test_fifty_exchanges_at_once_enrol_one_person_on_one_device(bench: Bench) -> None:
    await bench("another", OTHER_DEVICE)  # the provider's keys are known from now on
    seen = await asyncio.gather(*(bench() for _ in range(50)))
    assert len({enrolled for _, enrolled in seen}) == 1
    assert (await bench.count(persons), await bench.count(sessions)) == (2, 2)


async def test_a_replayed_proof_is_refused(bench: Bench) -> None:
    proof = forge.proof(DEVICE, url=URL)
    await bench(proof=proof)
    assert await bench.refusal(proof=proof) is ErrorCode.PROOF_INVALID
    assert await bench.refusal(proof=forge.malleated(proof)) is ErrorCode.PROOF_INVALID
    assert await bench.refusal("subject-2", proof=proof) is ErrorCode.PROOF_INVALID


async def test_of_fifty_uses_of_one_proof_at_once_one_succeeds(bench: Bench) -> None:
    await bench("another", OTHER_DEVICE)  # the provider's keys are known from now on
    proof = forge.proof(DEVICE, url=URL)
    seen = await asyncio.gather(*(bench(proof=proof) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(each, tuple) for each in seen) == 1
    assert {each.code for each in seen if isinstance(each, GatewayError)} == {ErrorCode.PROOF_INVALID}


async def test_a_proof_that_can_no_longer_be_replayed_is_forgotten(bench: Bench) -> None:
    def age(connection: Connection, batch: list[None]) -> list[None]:
        connection.execute(update(proofs).values(expires_at=int(time.time()) - 1))
        return batch

    await bench()
    await bench.database.submit(age, None)
    await bench()
    assert await bench.count(proofs) == 1


@pytest.mark.parametrize("version", ["", "1.1.9", "1.2.0rc1", "0"])
async def test_an_agent_that_is_too_old_gets_no_token(bench: Bench, version: str) -> None:
    settings = msgspec.structs.replace(SETTINGS, minimum_agent_version="1.2")
    strict = Exchange(bench.provider.verifier(), bench.ring, bench.database, settings, ISSUER)
    with pytest.raises(GatewayError, match=r"an agent of version 1\.2 or later") as caught:
        await strict.exchange(bench.form(), [forge.proof(DEVICE, url=URL)], version)
    assert caught.value.code is ErrorCode.AGENT_OUTDATED
    assert await bench.count(proofs) == 0
    assert (await strict.exchange(bench.form(), [forge.proof(DEVICE, url=URL)], "1.2.0"))[0].access_token


async def test_a_disabled_person_is_refused_and_another_is_not(bench: Bench) -> None:
    def disable(connection: Connection, batch: list[str]) -> list[None]:
        connection.execute(update(persons).where(persons.c.person_id.in_(batch)).values(disabled_at=1))
        return [None] * len(batch)

    _, enrolled = await bench()
    await bench.database.submit(disable, enrolled.person_id)
    assert await bench.refusal() is ErrorCode.PERSON_DISABLED
    assert await bench.refusal(device=OTHER_DEVICE) is ErrorCode.PERSON_DISABLED
    await bench("subject-2")


async def test_a_device_whose_session_was_ended_gets_another_one(bench: Bench) -> None:
    _, ended = await bench()
    _, elsewhere = await bench(device=OTHER_DEVICE)
    revocations = Revocations(bench.database)
    await revocations.end(ended.session)
    _, again = await bench()
    assert again.person_id == ended.person_id
    assert again.session not in revocations
    assert again.session != ended.session
    assert (await bench(device=OTHER_DEVICE))[1] == elsewhere


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"grant_type": "authorization_code"}, ErrorCode.GRANT_UNSUPPORTED),
        ({"grant_type": ""}, ErrorCode.GRANT_UNSUPPORTED),
        ({"audience": "other"}, ErrorCode.TARGET_INVALID),
        ({"requested_token_type": ID_TOKEN_TYPE}, ErrorCode.TARGET_INVALID),
        ({"subject_token": ""}, ErrorCode.SIGN_IN_INVALID),
        ({"subject_token": "not.a.token"}, ErrorCode.SIGN_IN_INVALID),
        ({"subject_token_type": ACCESS_TOKEN_TYPE}, ErrorCode.SIGN_IN_INVALID),
        ({"subject_token_type": ""}, ErrorCode.SIGN_IN_INVALID),
        ({"proof": "no proof"}, ErrorCode.PROOF_INVALID),
        pytest.param({"proof": forge.proof(DEVICE, url=ISSUER)}, ErrorCode.PROOF_INVALID, id="a proof for another URL"),
    ],
    ids=str,
)
async def test_what_is_not_an_exchange_is_refused_and_leaves_no_trace(
    bench: Bench, changed: dict[str, str], code: ErrorCode
) -> None:
    assert await bench.refusal(**changed) is code
    assert [await bench.count(table) for table in (persons, sessions, proofs)] == [0, 0, 0]


async def test_a_gateway_token_is_no_sign_in(bench: Bench) -> None:
    answer, _ = await bench()
    assert await bench.refusal(subject_token=answer.access_token.reveal()) is ErrorCode.SIGN_IN_INVALID


async def test_a_person_who_has_a_new_name_keeps_everything_else(bench: Bench) -> None:
    _, enrolled = await bench()
    now = int(time.time())
    renamed = bench.provider.token(iat=now, exp=now + 600, name="Ada King")
    _, again = await bench(subject_token=renamed)
    assert again == enrolled
    assert (await Directory(bench.database, Accounts((), ())).person(enrolled.person_id)).name == "Ada King"


async def test_an_erased_person_is_nobody(bench: Bench) -> None:
    assert await Directory(bench.database, Accounts((), ())).person("per_unknown") == Person()


async def test_a_device_is_enrolled_only_while_the_sign_in_is_recent_and_then_needs_none(bench: Bench) -> None:
    """A stolen refresh token, in another place, is a new device: it must not become a session of months."""
    with pytest.raises(GatewayError) as caught:
        await bench(signed_in=1000)
    assert caught.value.code is ErrorCode.SIGN_IN_INVALID
    assert caught.value.code.wire.oauth_error == "invalid_grant"
    for words in ("the last 15 minutes", "llmgw login"):
        assert words in caught.value.message
    assert await bench.count(sessions) == 0
    _, enrolled = await bench(signed_in=800)
    _, later = await bench(signed_in=86_400)
    assert enrolled == later
    assert await bench.refusal(device=OTHER_DEVICE, signed_in=1000) is ErrorCode.SIGN_IN_INVALID
    assert await bench.count(sessions) == 1


async def test_an_ended_session_needs_a_recent_sign_in_again(bench: Bench) -> None:
    _, enrolled = await bench(signed_in=0)
    await Revocations(bench.database).end(enrolled.session)
    assert await bench.refusal(signed_in=1000) is ErrorCode.SIGN_IN_INVALID
    _, again = await bench(signed_in=0)
    assert again.session != enrolled.session


@pytest.mark.parametrize("device", [DEVICE, OTHER_DEVICE], ids=["the same key", "a new key"])
async def test_signing_out_and_in_again_begins_no_budget_of_the_device_anew(bench: Bench, device: Any) -> None:
    # `llmgw logout` throws the device key away, so that by itself says nothing.
    _, first = await bench()
    await Revocations(bench.database).end(first.session)
    answer, again = await bench(device=device)
    assert again.session != first.session
    assert again.access_key == first.access_key
    claims = tokens.verify(answer.access_token, bench.ring.public, issuer=ISSUER, audience="llmgw", now=time.time())
    assert claims.access_key == first.access_key
    assert await bench.count(sessions) == 1


async def test_devices_that_are_signed_in_at_a_time_are_counted_apart(bench: Bench) -> None:
    _, mine = await bench()
    _, elsewhere = await bench(device=OTHER_DEVICE)
    _, theirs = await bench("subject-2")
    assert len({each.access_key for each in (mine, elsewhere, theirs)}) == 3
    for each in (mine, elsewhere):
        await Revocations(bench.database).end(each.session)
    _, back_elsewhere = await bench(device=OTHER_DEVICE)
    _, back = await bench()
    assert (back.access_key, back_elsewhere.access_key) == (mine.access_key, elsewhere.access_key)
