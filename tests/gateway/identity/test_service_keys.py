"""Service keys in the store: only digests, ends that hold, and orders that may be carried out twice."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from sqlalchemy import text

from llmgw_gateway.call import Caller
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import service_keys
from llmgw_gateway.identity.authenticate import Authenticator
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.ring import Ring
from llmgw_gateway.identity.service_keys import PREFIX, NewKey, Rotation, ServiceKeys, Withdrawn, fresh
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.sections.organizing import Team
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

HOUR = 3_600_000
DAY = 24 * HOUR
NO_STORE: Any = None


def now() -> int:
    return int(time.time() * 1000)


def key(digest: str, **changed: Any) -> NewKey:
    made = NewKey("sec_1", "key_1", digest, "ci", "ada", "research", ("sonnet",), now() + DAY, operator("ada@host"), 0)
    return replace(made, **changed)


def rotation(digest: str, overlap: int = HOUR) -> Rotation:
    return Rotation("key_1", "sec_2", digest, now() + 2 * DAY, overlap, operator("ada@host"), 0)


@pytest.fixture
async def keys(both: Database) -> ServiceKeys:
    return ServiceKeys(both)


@pytest.fixture
async def secret(keys: ServiceKeys) -> Secret:
    made, digest = fresh()
    await keys.make(key(digest))
    return made


def code(keys: ServiceKeys, secret: Secret) -> ErrorCode:
    with pytest.raises(GatewayError) as caught:
        keys.caller(secret)
    assert secret.reveal() not in caught.value.message
    return caught.value.code


def test_a_secret_has_a_prefix_and_256_bits() -> None:
    made = [fresh()[0].reveal() for _ in range(100)]
    assert len(set(made)) == 100
    assert all(each.startswith(PREFIX) and len(each) == len(PREFIX) + 43 for each in made)


async def test_a_secret_names_its_key_and_what_that_is_for(keys: ServiceKeys, secret: Secret) -> None:
    caller = keys.caller(secret)
    assert (caller.person_id, caller.access_key, caller.session) == ("key_1", "key_1", "sec_1")
    assert (caller.service, caller.team, caller.models) == (True, "research", frozenset({"sonnet"}))
    account = Accounts((Team(name="research"),), ()).resolve(caller, "", frozenset(), "")
    assert (account.team, account.key, account.models) == ("research", "key_1", frozenset({"sonnet"}))
    with pytest.raises(GatewayError, match="'research', which is not configured any more") as caught:
        Accounts((), ()).resolve(caller, "", frozenset(), "")
    assert caught.value.code is ErrorCode.PERSON_DISABLED


async def test_the_store_has_no_secret(both: Database, keys: ServiceKeys, secret: Secret) -> None:
    keys.caller(secret)
    rows = await both.read(lambda connection: connection.execute(text("SELECT * FROM service_keys")).all())
    assert len(rows) == 1
    assert secret.reveal().removeprefix(PREFIX) not in str(rows)


async def test_only_the_very_same_secret_is_good(keys: ServiceKeys, secret: Secret) -> None:
    whole = secret.reveal()
    for other in (whole[:-1], whole + "A", PREFIX, whole.upper(), fresh()[0].reveal(), service_keys.digest_of(secret)):
        assert code(keys, Secret(other)) is ErrorCode.TOKEN_INVALID


async def test_an_expired_secret_is_refused_and_what_it_began_goes_on(keys: ServiceKeys) -> None:
    made, digest = fresh()
    await keys.make(key(digest, expires_at=now() - 1))
    assert code(keys, made) is ErrorCode.TOKEN_EXPIRED
    assert not keys.has_ended("sec_1")


async def test_an_order_that_is_carried_out_twice_is_carried_out_once(keys: ServiceKeys, secret: Secret) -> None:
    _, digest = fresh()
    await keys.make(key(digest, name="another"))
    assert code(keys, Secret("x")) is ErrorCode.TOKEN_INVALID
    assert keys.caller(secret).person_id == "key_1", "the first one stays"
    new, digest = fresh()
    order = rotation(digest)
    assert [await keys.rotate(order) for _ in range(2)] == [True, True]
    assert len(keys._known) == 2
    assert keys.caller(new).session == "sec_2"


async def test_rotation_overlaps_and_the_old_secret_ends_with_it(keys: ServiceKeys, secret: Secret) -> None:
    new, digest = fresh()
    assert await keys.rotate(rotation(digest, overlap=HOUR))
    first, second = keys.caller(secret), keys.caller(new)
    assert (first.access_key, first.models) == (second.access_key, second.models)
    assert first.token_expires_at <= time.time() + 3601
    assert second.token_expires_at > time.time() + 90_000


async def test_rotation_never_prolongs_the_old_secret(keys: ServiceKeys, secret: Secret) -> None:
    before = keys.caller(secret).token_expires_at
    await keys.rotate(rotation(fresh()[1], overlap=5 * DAY))
    assert keys.caller(secret).token_expires_at == before


async def test_rotation_without_an_overlap_ends_the_old_secret_at_once(keys: ServiceKeys, secret: Secret) -> None:
    new, digest = fresh()
    assert await keys.rotate(rotation(digest, overlap=0))
    assert code(keys, secret) is ErrorCode.TOKEN_INVALID
    assert keys.has_ended("sec_1")
    assert keys.caller(new).session == "sec_2"
    assert not keys.has_ended("sec_2")


@pytest.mark.parametrize("named", ["key_1", "sec_1"])
async def test_a_revoked_key_is_refused_on_every_replica_and_cannot_be_rotated(
    both: Database, keys: ServiceKeys, secret: Secret, named: str
) -> None:
    other = ServiceKeys(both)
    await other.refresh()
    assert other.caller(secret).session == "sec_1"
    assert await keys.revoke(Withdrawn(named, operator("ada@host"), 0))
    assert code(keys, secret) is ErrorCode.TOKEN_INVALID
    await other.refresh()
    assert code(other, secret) is ErrorCode.TOKEN_INVALID
    assert other.has_ended("sec_1")
    assert not await keys.revoke(Withdrawn(named, operator("ada@host"), 0))
    assert not await keys.rotate(rotation(fresh()[1]))
    assert not await keys.revoke(Withdrawn("key_9", operator("ada@host"), 0))


async def test_revoking_one_secret_leaves_the_other(keys: ServiceKeys, secret: Secret) -> None:
    new, digest = fresh()
    await keys.rotate(rotation(digest))
    assert await keys.revoke(Withdrawn("sec_1", operator("ada@host"), 0))
    assert code(keys, secret) is ErrorCode.TOKEN_INVALID
    assert keys.caller(new).session == "sec_2"


def headers(secret: Secret) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict({"authorization": f"Bearer {secret.reveal()}", "x-api-key": secret.reveal()}))


async def test_a_secret_is_a_credential_like_a_token(keys: ServiceKeys, secret: Secret) -> None:
    ring, revocations = Ring(NO_STORE, "https://gateway.example", b"s" * 32), Revocations(NO_STORE)
    authenticator = Authenticator(ring, revocations, "https://gateway.example", "llmgw", keys)
    caller = authenticator.authenticate(headers(secret))
    assert isinstance(caller, Caller)
    assert authenticator.caller_of(secret) == caller
    await authenticator.end(caller)
    with pytest.raises(GatewayError, match="was revoked"):
        authenticator.authenticate(headers(secret))
    with pytest.raises(GatewayError):
        authenticator.check("sec_1")
    assert authenticator.caller_of(secret) is None
    with pytest.raises(GatewayError):
        Authenticator(ring, revocations, "https://gateway.example", "llmgw").authenticate(headers(secret))


async def test_every_change_of_a_key_is_recorded_without_a_name(
    keys: ServiceKeys, column: Column, secret: Secret
) -> None:
    await keys.rotate(rotation(fresh()[1]))
    await keys.revoke(Withdrawn("key_1", operator("ada@host"), 0))
    await keys.revoke(Withdrawn("key_1", operator("ada@host"), 0))
    rows = column.sql("SELECT action, object_kind, object_id, actor, before, after FROM changes")
    assert sorted(row[0] for row in rows) == ["key.create", "key.revoke", "key.rotate"]
    assert {row[1:4] for row in rows} == {("service_key", "key_1", "ada@host")}
    parts = {row[0]: (row[4] and json.loads(row[4]), row[5] and json.loads(row[5])) for row in rows}
    before, after = parts["key.create"]
    assert before is None
    assert (after["secret"], after["team"], after["models"]) == ("sec_1", "research", ["sonnet"])
    assert list(parts["key.rotate"][0]["secrets"]) == ["sec_1"]
    assert parts["key.rotate"][1]["secret"] == "sec_2"
    assert sorted(parts["key.revoke"][0]["secrets"]) == ["sec_1", "sec_2"]
    assert secret.reveal() not in str(rows)
    assert "ci" not in str(rows)
