"""The key ring: a restart keeps old tokens valid, and whoever can write to the store still cannot add a key."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.identity import tokens
from llmgw_gateway.identity.ring import Ring, mac_of, public_jwk, public_key
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.identity import forge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmgw_wire.secret import Secret

ISSUER, AUDIENCE, SECRET = "https://gateway.example", "llmgw", b"s" * 32


@asynccontextmanager
async def ring(store: Path, issuer: str = ISSUER, secret: bytes = SECRET) -> AsyncIterator[Ring]:
    """One life of a gateway on this store."""
    database = Database(Sqlite(store))
    database.start()
    running = Ring(database, issuer, secret)
    try:
        await running.start()
        yield running
    finally:
        running.stop()
        database.close()


def mint(signer: Ring) -> Secret:
    now = int(time.time())
    assert signer.key is not None
    claims = tokens.TokenClaims("per_1", "ses_1", "key_1", "tok_1", "client", now, now + 600)
    return tokens.mint(claims, issuer=ISSUER, audience=AUDIENCE, kid=signer.kid, key=signer.key)


def sql(store: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Write to the file as someone would who got hold of it."""
    with closing(sqlite3.connect(store)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def found(store: Path, data: bytes) -> bool:
    """Whether these bytes stand anywhere in the file."""
    return data in store.read_bytes()


async def test_a_restart_keeps_the_tokens_of_the_life_before(store: Path) -> None:
    async with ring(store) as before:
        token, kid = mint(before), before.kid
    async with ring(store) as after:
        assert after.kid != kid
        assert set(after.public) == {kid, after.kid}
        claims = tokens.verify(token, after.public, issuer=ISSUER, audience=AUDIENCE, now=time.time())
        assert claims.person_id == "per_1"


async def test_no_private_key_lies_in_the_store(store: Path) -> None:
    async with ring(store) as running:
        assert running.key is not None
        private = running.key.private_numbers().private_value.to_bytes(32, "big")
        encoded = forge.b64(private).encode()
    assert not found(store, private)
    assert not found(store, encoded)


async def test_what_is_published_is_the_public_half_under_its_thumbprint(store: Path) -> None:
    async with ring(store) as running:
        (jwk,) = running.jwks["keys"]
        assert running.key is not None
        assert jwk == forge.public_jwk(running.key, kid=running.kid, alg="ES256", use="sig")
        assert running.kid == forge.thumbprint(jwk)


TAMPERED = {
    "issuer": "https://gateway.example/other",
    "replica": "rep_other",
    "public_jwk": json.dumps(forge.public_jwk(forge.ec_key()), sort_keys=True),
    "kid": "other",
    "not_before": 0,
    "not_after": 2**52,
    "removed": 1,
    "mac": "0" * 64,
}
BROKEN = {
    "mac, not ASCII": ("mac", "\u00e9" * 64),
    "mac, a number": ("mac", 5),
    "mac, empty": ("mac", ""),
    "mac, bytes": ("mac", b"\xff" * 32),
    "public_jwk, no JSON": ("public_jwk", "{"),
    "not_before, a text": ("not_before", "soon"),
    "not_after, a text": ("not_after", "never"),
    "removed, a text": ("removed", "no"),
    "issuer, a number": ("issuer", 5),
    "kid, bytes": ("kid", b"\xff"),
}
CASES = {name: (name, value) for name, value in TAMPERED.items()} | BROKEN


@pytest.mark.parametrize("case", CASES)
async def test_a_row_that_was_tampered_with_is_ignored_and_the_others_are_not(store: Path, case: str) -> None:
    async with ring(store) as first:
        victim = first.kid
    async with ring(store) as second:
        honest = second.kid
    column, value = CASES[case]
    sql(store, f"UPDATE replica_keys SET {column} = ? WHERE kid = ?", value, victim)  # noqa: S608 -- our own names
    async with ring(store) as third:
        assert set(third.public) == {honest, third.kid}
        assert len(third.jwks["keys"]) == 2


async def test_a_key_that_was_written_into_the_store_is_not_believed(store: Path) -> None:
    mine = forge.ec_key()
    jwk = {name: str(value) for name, value in forge.public_jwk(mine).items()}
    async with ring(store):
        pass
    sql(
        store,
        "INSERT INTO replica_keys SELECT ?, issuer, replica, ?, not_before, not_after, removed, mac FROM replica_keys",
        forge.thumbprint(jwk),
        json.dumps(jwk, sort_keys=True),
    )
    async with ring(store) as running:
        assert forge.thumbprint(jwk) not in running.public


async def test_a_tombstone_cannot_be_taken_back_without_the_secret(store: Path) -> None:
    async with ring(store) as before:
        kid = before.kid
        (row,) = sql(store, "SELECT kid, issuer, replica, public_jwk, not_before, not_after FROM replica_keys")
        names = ("kid", "issuer", "replica", "public_jwk", "not_before", "not_after")
        tombstone = mac_of(SECRET, dict(zip(names, row, strict=True)) | {"removed": True})
    sql(store, "UPDATE replica_keys SET removed = 1, mac = ? WHERE kid = ?", tombstone, kid)
    async with ring(store) as running:
        assert kid not in running.public
    sql(store, "UPDATE replica_keys SET removed = 0 WHERE kid = ?", kid)
    async with ring(store) as running:
        assert kid not in running.public


@pytest.mark.parametrize(("issuer", "secret"), [("https://other.example", SECRET), (ISSUER, b"t" * 32)])
async def test_keys_of_another_gateway_or_another_secret_do_not_count(store: Path, issuer: str, secret: bytes) -> None:
    async with ring(store) as before:
        kid = before.kid
    async with ring(store, issuer, secret) as other:
        assert kid not in other.public
        assert set(other.public) == {other.kid}


async def test_a_key_whose_time_is_over_leaves_the_ring(store: Path) -> None:
    now = int(time.time() * 1000)
    async with ring(store):
        row = {
            "kid": "old",
            "issuer": ISSUER,
            "replica": "rep_1",
            "public_jwk": json.dumps(forge.public_jwk(forge.ec_key()), sort_keys=True),
            "not_before": now - 2000,
            "not_after": now - 1,
            "removed": False,
        }
        mac = mac_of(SECRET, row)
    sql(store, "INSERT INTO replica_keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row.values(), mac)
    async with ring(store) as second:
        assert "old" not in second.public
        assert len(second.public) == 2


@given(st.integers(1, forge.P256_ORDER - 1))
def test_a_key_is_the_same_after_publishing_it(secret: int) -> None:
    key = ec.derive_private_key(secret, ec.SECP256R1())
    jwk = public_jwk(key.public_key())
    assert jwk == forge.public_jwk(key)
    assert public_key(jwk) == key.public_key()


@pytest.mark.parametrize(
    "changed",
    [
        {"kty": "RSA"},
        {"crv": "P-384"},
        {"x": ""},
        {"x": "AAAA"},
        {"y": None},
        {"x": forge.b64(bytes(32)), "y": forge.b64(bytes(32))},
    ],
    ids=str,
)
def test_what_is_no_point_of_the_curve_is_no_key(changed: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        public_key(forge.public_jwk(forge.ec_key()) | changed)


async def test_the_cluster_secret_is_replaced_while_replicas_run(store: Path) -> None:
    """As admin.md says it: the new one is good beside the old, then used, then alone."""
    old, new = b"o" * 32, b"n" * 32
    files: dict[str, tuple[bytes, ...]] = {"here": (old,), "there": (old,)}
    database = Database(Sqlite(store))
    database.start()
    rings = {name: Ring(database, ISSUER, old, reread=partial(files.__getitem__, name)) for name in files}
    tokens_of = []
    try:
        for step in ((old,), (old, new), (new, old), (new,)):
            for name, ring in rings.items():
                files[name] = step  # one replica after the other
                await ring._refresh()
                await rings["here"]._refresh()
                tokens_of.append(mint(ring))
                for other in rings.values():
                    await other._refresh()
                    assert verified(other, tokens_of[-1]) == "per_1", (step, name)
        assert len({ring.kid for ring in rings.values()}) == 2
    finally:
        database.close()


async def test_a_cluster_secret_that_cannot_be_read_leaves_the_last_one_in_use(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def gone() -> tuple[bytes, ...]:
        raise FileNotFoundError("cluster.secret")

    database = Database(Sqlite(store))
    database.start()
    try:
        signer = Ring(database, ISSUER, SECRET, reread=gone)
        for _ in range(2):
            await signer._refresh()
        assert verified(signer, mint(signer)) == "per_1"
    finally:
        database.close()
    said = "the cluster secret cannot be read, the last one stays in use: cluster.secret"
    assert [each.message for each in caplog.records].count(said) == 1


def verified(ring: Ring, token: Secret) -> str:
    return tokens.verify(token, ring.public, issuer=ISSUER, audience=AUDIENCE, now=time.time()).person_id
