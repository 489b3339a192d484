"""Several replicas on one store: keys that all of them know, proofs that count once, people who are one."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.dpop import Proof
from llmgw_gateway.identity.exchange import Enrolled, Enrolment, enrol
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.ring import KEY_SECONDS, SETTLE_SECONDS, Ring
from llmgw_gateway.identity.signin import SignIn
from llmgw_gateway.sections.exchanging import Issuer
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.schema import replica_keys
from llmgw_wire.errors import ErrorCode
from tests.gateway.columns import PostgresColumn
from tests.gateway.identity import forge
from tests.lab.postgres import Postgres as Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from tests.gateway.columns import Column

GATEWAY, SECRET = "https://gateway.example", b"s" * 32
PROVIDER = Issuer(issuer="https://login.example", client_id="client")


@pytest.fixture
async def replicas(postgres: Server, empty_database: str) -> AsyncIterator[tuple[Database, Database]]:
    column = PostgresColumn(postgres, postgres.database(empty_database))
    pair = Database(column.backend()), Database(column.backend())
    for each in pair:
        each.start()
    yield pair
    for each in pair:
        each.close()


def enrolment(subject: str = "ada", proof: str = "", device: str = "device") -> Enrolment:
    now = int(time.time())
    sign_in = SignIn(PROVIDER, subject, "Ada", "ada@example.com", (), now, now + 600, None)
    proved = Proof(device, proof or secrets.token_hex(16), now + 600)
    return Enrolment(sign_in, proved, f"exc_{secrets.token_hex(12)}", now * 1000, 600)


async def signs(ring: Ring) -> None:
    """Wait until the ring has a key that may sign."""
    while not ring.kid:  # noqa: ASYNC110 -- the ring tells nobody
        await asyncio.sleep(0.01)


async def test_of_many_uses_of_one_proof_at_two_replicas_one_succeeds(replicas: tuple[Database, Database]) -> None:
    works = [(database, enrolment(f"person-{n % 7}", "the-proof")) for n in range(30) for database in replicas]
    answers = await asyncio.gather(*(database.submit(enrol, each) for database, each in works), return_exceptions=True)
    assert sum(isinstance(answer, Enrolled) for answer in answers) == 1
    assert {answer.code for answer in answers if isinstance(answer, GatewayError)} == {ErrorCode.PROOF_INVALID}


async def test_a_person_who_comes_to_two_replicas_at_once_is_one(replicas: tuple[Database, Database]) -> None:
    works = [(database, enrolment(f"person-{n % 3}")) for n in range(30) for database in replicas]
    answers = await asyncio.gather(*(database.submit(enrol, each) for database, each in works))
    assert len({answer.person_id for answer in answers}) == 3
    assert len({answer.session for answer in answers}) == 3


async def test_an_exchange_that_is_run_again_is_no_replay(both: Database) -> None:
    once = enrolment()
    first = await both.submit(enrol, once)
    assert await both.submit(enrol, once) == first
    with pytest.raises(GatewayError):
        await both.submit(enrol, enrolment(proof=once.proof.digest))


async def test_a_session_that_was_ended_is_refused_by_every_replica(replicas: tuple[Database, Database]) -> None:
    here, there = (Revocations(database) for database in replicas)
    await here.end("ses_1")
    assert "ses_1" in here
    await there.start()
    there.stop()
    assert "ses_1" in there


async def test_a_revocation_is_forgotten_when_all_tokens_of_the_session_have_ended(
    both: Database, column: Column
) -> None:
    revocations = Revocations(both)
    await revocations.end("old")
    column.sql("UPDATE revocations SET expires_at = 1")
    await revocations.end("new")
    assert column.sql("SELECT session FROM revocations") == [("new",)]


async def test_a_key_signs_only_when_every_replica_has_had_time_to_learn_of_it(
    replicas: tuple[Database, Database],
) -> None:
    began = time.monotonic()
    first, second = (Ring(database, GATEWAY, SECRET) for database in replicas)
    await first.start()
    assert (first.key, first.kid) == (None, "")
    assert "signing key" in first.unready(), "an exchange would be refused: it must not be sent one"
    (kid,) = first.public
    await second.start()
    assert kid in second.public  # before it signs anything
    await signs(first)
    assert (first.kid, first.unready()) == (kid, "")
    assert time.monotonic() - began >= SETTLE_SECONDS
    for ring in (first, second):
        ring.stop()


async def test_a_replica_that_starts_while_the_store_is_away_has_a_key_when_it_is_back() -> None:
    with Server() as server:
        database = Database(PostgresColumn(server, server.database()).backend())
        database.start()
        server.kill()
        ring = Ring(database, GATEWAY, SECRET)
        await ring.start()
        assert ring.key is None
        server.start()
        await signs(ring)
        assert ring.kid in ring.public
        ring.stop()
        database.close()


def key_row(kid: str, *, not_after: int) -> dict[str, object]:
    jwk = json.dumps(forge.public_jwk(forge.ec_key()), sort_keys=True)
    return {
        "kid": kid,
        "issuer": GATEWAY,
        "replica": "rep_1",
        "public_jwk": jwk,
        "not_before": 1,
        "not_after": not_after,
        "removed": False,
        "mac": "0" * 64,
    }


def add(connection: Connection, batch: list[dict[str, object]]) -> list[None]:
    connection.execute(insert(replica_keys), batch)
    return [None] * len(batch)


async def test_keys_whose_time_is_over_are_removed_from_the_store(both: Database, column: Column) -> None:
    now = int(time.time() * 1000)
    await both.submit(add, key_row("old", not_after=now - 60_000))
    await both.submit(add, key_row("young", not_after=now + KEY_SECONDS * 1000))
    ring = Ring(both, GATEWAY, SECRET)
    await ring.start()
    ring.stop()
    kids = {kid for (kid,) in column.sql("SELECT kid FROM replica_keys")}
    assert kids == {"young", *ring.public}


async def test_a_key_that_is_not_believed_is_said_once(both: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "llmgw.identity")
    for kid in ("one", "two"):
        await both.submit(add, key_row(kid, not_after=2**52))
    ring = Ring(both, GATEWAY, SECRET)
    await ring.start()
    for _ in range(3):
        await ring._refresh()
    ring.stop()
    assert [record.getMessage().split()[1] for record in caplog.records] == ["one", "two"]
