"""Erasing a person: nothing that names them is left in any table, and every sum is what it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Text, insert

from llmgw_gateway.identity.erasing import NAMELESS, Erasure, erase_person, preview
from llmgw_gateway.observe import change_chain
from llmgw_gateway.observe.chain import key_of
from llmgw_gateway.observe.changes import Author, Change, record
from llmgw_gateway.store import schema
from llmgw_gateway.store.schema import adjustments, persons, service_keys, sessions, teams

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

KEY = key_of(b"k" * 32)
ROOT = Author("per_root", "admin", "chg_erase")
NAME, EMAIL, SUBJECT, FORMER = "Zoë Čapek", "zoe.capek@example.com", "tid-1/oid-4711", "zoe@old.example"
NAMES = (NAME, EMAIL, SUBJECT, FORMER, EMAIL.upper(), json.dumps(NAME)[1:-1])


def person(person_id: str, issuer: str, subject: str, name: str, email: str) -> dict[str, Any]:
    return {
        "person_id": person_id,
        "issuer": issuer,
        "subject": subject,
        "name": name,
        "email": email,
        "groups": json.dumps(["analysts"]),
        "first_seen": 1,
        "last_seen": 2,
    }


def fill(connection: Connection, _batch: list[None]) -> list[None]:
    """A person who is named wherever somebody could have written a name, and others who are somewhat alike."""
    connection.execute(
        insert(persons),
        [
            person("per_zoe", "https://idp", SUBJECT, NAME, EMAIL),
            person("per_other", "https://idp", "tid-1/oid-47110", NAME, "not-" + EMAIL),
            person("key_1", "service-key", "key_1", f"ci of {EMAIL}", ""),
        ],
    )
    session = {"person_id": "per_zoe", "enrolled_at": 1, "last_exchange": 1}
    connection.execute(
        insert(sessions),
        [session | {"sid": f"ses_{n}", "device": f"thumbprint-{n}", "access_key": f"key_{n}"} for n in "ab"],
    )
    key = {"key_id": "key_1", "digest": "d", "team": "", "models": "null", "expires_at": 9, "made_at": 1}
    connection.execute(
        insert(service_keys).values(
            key | {"secret_id": "sec_1", "name": f"ci of {EMAIL}", "owner": NAME, "made_by": "zoe.capek@host"}
        )
    )
    grant = {"kind": "grant", "budget": "user/per_zoe//month/usd", "amount": 5, "starts_at": 1, "made_at": 1}
    connection.execute(
        insert(adjustments).values(
            grant
            | {
                "adjustment_id": "adj_1",
                "reason": f"for {EMAIL.upper()} ({FORMER}), until {NAME} is back",
                "made_by": EMAIL,
            }
        )
    )
    by = Author("zoe.capek@example.com", "operator", "chg_1")
    record(connection, Change(by, 1, "budget.grant", "budget", "b", None, {"reason": f"{NAME} asked", "amount": 4711}))
    record(connection, Change(Author("per_root", "admin", "chg_2"), 2, "role.grant", "role", SUBJECT, {"who": EMAIL}))
    return [None]


def everything(column: Column) -> dict[str, list[tuple[Any, ...]]]:
    return {name: column.sql(f"SELECT * FROM {name}") for name in schema.metadata.tables}  # noqa: S608 -- names of ours


def named(rows: dict[str, list[tuple[Any, ...]]]) -> set[str]:
    return {
        table for table, found in rows.items() for row in found for cell in row for name in NAMES if name in str(cell)
    }


@pytest.fixture
async def named_store(column: Column, both: Database) -> Column:
    await both.submit(fill, None)
    assert named(everything(column)) == {"persons", "service_keys", "adjustments", "changes"}
    return column


async def test_no_table_names_an_erased_person_and_nothing_else_has_changed(
    named_store: Column, both: Database
) -> None:
    before = everything(named_store)
    done = await erase_person(both, lambda: KEY, Erasure("per_zoe", (FORMER,), ROOT, 0))
    assert done == {
        "texts": {
            "adjustments.made_by": 1,
            "adjustments.reason": 1,
            "changes.actor": 1,
            "changes.after": 1,
            "changes.before": 1,
            "changes.object_id": 1,
            "persons.email": 1,
            "persons.groups": 1,
            "persons.issuer": 1,
            "persons.name": 2,
            "persons.subject": 1,
            "service_keys.name": 1,
            "service_keys.owner": 1,
        },
        "sessions": 2,
        "purged": True,
    }
    after = everything(named_store)
    other = [row for row in after["persons"] if row[0] == "per_other"]
    assert other == [row for row in before["persons"] if row[0] == "per_other"], "somebody else has the same name"
    after["persons"] = [row for row in after["persons"] if row[0] != "per_other"]
    assert named(after) == set()
    assert not any("thumbprint" in str(row) for row in after["sessions"])
    ((reason, amount),) = named_store.sql("SELECT reason, amount FROM adjustments")
    assert (reason, amount) == ("for per_zoe (per_zoe), until per_zoe is back", 5)
    ((change,),) = named_store.sql("SELECT after FROM changes WHERE change_id = 'chg_1'")
    assert json.loads(change) == {"reason": "per_zoe asked", "amount": 4711}
    assert await both.read(lambda connection: list(change_chain.faults(connection, {}, [KEY]))) == []
    untouched = set(schema.metadata.tables) - {
        "persons",
        "sessions",
        "service_keys",
        "adjustments",
        "changes",
        "revocations",
    }
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


async def test_a_preview_says_what_an_erasure_does_and_does_nothing(named_store: Column, both: Database) -> None:
    before = everything(named_store)
    said = await both.read(lambda connection: preview(connection, "per_zoe", (FORMER,)))
    assert everything(named_store) == before
    done = await erase_person(both, lambda: KEY, Erasure("per_zoe", (FORMER,), ROOT, 0))
    assert said is not None
    assert done is not None
    assert said.texts == done["texts"]
    assert await both.read(lambda connection: preview(connection, "per_nobody", ())) is None
    assert await erase_person(both, lambda: KEY, Erasure("per_nobody", (), ROOT, 0)) is None


async def test_an_erasure_that_is_done_again_does_nothing_more(named_store: Column, both: Database) -> None:
    for _ in range(2):
        await erase_person(both, lambda: KEY, Erasure("per_zoe", (FORMER,), ROOT, 0))
    assert named_store.sql("SELECT count(*) FROM changes WHERE action = 'person.erase'") == [(1,)]
    again = Author("per_root", "admin", "chg_again")
    done = await erase_person(both, lambda: KEY, Erasure("per_zoe", (FORMER,), again, 0))
    assert done == {"texts": {}, "sessions": 0, "purged": True}
    assert await both.read(lambda connection: list(change_chain.faults(connection, {}, [KEY]))) == []


@pytest.mark.parametrize(
    "called", ["null", "true", "user", "month", "payments", "lee", "actor", "after", "redactions", "https", "value"]
)
async def test_whoever_is_called_like_a_part_of_what_is_stored_takes_nothing_of_it_along(
    named_store: Column, both: Database, called: str
) -> None:
    """People choose their display names themselves; and short user names are parts of other people's addresses."""
    attributes = json.dumps({"userName": "bruce.lee@example.com", "emails": [{"value": "bruce.lee@example.com"}]})

    def add(connection: Connection, _batch: list[None]) -> list[None]:
        connection.execute(insert(persons).values(person("per_called", "https://idp", "s", called, "")))
        bruce = person("per_bruce", "https://idp", "b", "Bruce Lee", "bruce.lee@example.com")
        connection.execute(insert(persons).values(bruce | {"attributes": attributes}))
        key = {"key_id": "key_2", "secret_id": "sec_2", "digest": "e", "name": "ci", "owner": "it", "made_by": "it"}
        connection.execute(
            insert(service_keys).values(
                key | {"team": "payments", "models": "null", "home": "https://idp", "expires_at": 9, "made_at": 1}
            )
        )
        team = {"team_id": "tem_1", "home": "https://idp", "source": "scim", "name": "payments"}
        connection.execute(insert(teams).values(team | {"name_key": "payments", "made_at": 1, "changed_at": 1}))
        made = {"reason": f"{called}\n{called}", "ends_at": None, "good": True, "user": "u", "value": 1}
        record(connection, Change(Author("per_root", "admin", "chg_3"), 3, "key.create", "key", "k", None, made))
        return [None]

    await both.submit(add, None)
    await erase_person(both, lambda: KEY, Erasure("per_zoe", (FORMER,), ROOT, 0))
    before = everything(named_store)
    await erase_person(both, lambda: KEY, Erasure("per_called", (), Author("per_root", "admin", "chg_4"), 0))
    after = everything(named_store)
    for table in ("service_keys", "teams"):
        assert after[table] == before[table]
    assert named_store.sql("SELECT budget FROM adjustments") == [("user/per_zoe//month/usd",)]
    assert named_store.sql("SELECT attributes FROM persons WHERE person_id = 'per_bruce'") == [(attributes,)]
    ((change,),) = named_store.sql("SELECT after FROM changes WHERE change_id = 'chg_3'")
    made = {"reason": "per_called\nper_called", "ends_at": None, "good": True, "user": "u", "value": 1}
    assert json.loads(change) == made
    assert await both.read(lambda connection: list(change_chain.faults(connection, {}, [KEY]))) == []


def test_tables_that_are_not_looked_through_hold_no_text_that_somebody_writes() -> None:
    """A new column of these tables has to be thought about: is it a name?"""
    texts = {
        f"{name}.{column.name}"
        for name in NAMELESS
        for column in schema.metadata.tables[name].c
        if isinstance(column.type, Text)
    }
    paying = {"team", "project", "model", "target"}
    assert texts == {
        *(f"{table}.counters" for table in ("ledger", "ledger_sums", "attempts")),
        *(f"payers.{name}" for name in paying),
        *(f"ledger_sums.{name}" for name in paying - {"target"}),
        "counters.budget",
        "counters.thresholds",
        "events.budget",
        "replica_keys.issuer",
        "replica_keys.public_jwk",
        "audit_heads.writer",
        *(f"teams.{name}" for name in ("home", "name", "name_key", "external_id")),
    }
