"""Administrators' view of people: found as the paying teams know them, ended everywhere, recorded without a name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, true

from llmgw_gateway.identity.people import People, PersonOrder, found, is_paid_by, matches, means, sessions_of
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.service_keys import ISSUER
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.sections.exchanging import MOST_LIFE_SECONDS
from llmgw_gateway.sections.organizing import Team
from llmgw_gateway.store.schema import persons, sessions, team_members, teams

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

TEAMS = (
    Team(name="payments", groups=("pay",), members=("eve@example.com",)),
    Team(name="research", groups=("lab", 'l"ab', "läb")),
    Team(name="nobody"),
)
PEOPLE: dict[str, tuple[str, list[str] | None]] = {
    "ada@example.com": ("Ada", ["pay", "lab"]),
    "bob@example.com": ("Bob 50%", ["lab"]),
    "cid@example.com": ("Cid", ["PAY", 'x"pay"', "labs"]),
    "dan@example.com": ("Dan", None),
    "eve@example.com": ("Eve", ["lab"]),
    "fay@example.com": ("Fay", ['l"ab']),
    "gus@example.com": ("Gus", ["läb"]),
    "": ("Hal", []),
}


def rows() -> list[dict[str, Any]]:
    times = {"first_seen": 1, "last_seen": 2}
    people = [
        {"person_id": f"per_{name[:3].lower()}", "issuer": "https://idp", "subject": f"sub-{name[:3]}", "name": name}
        | {"email": email, "groups": json.dumps(groups)}
        | times
        for email, (name, groups) in PEOPLE.items()
    ]
    key = {"person_id": "key_1", "issuer": ISSUER, "subject": "key_1", "name": "Ada's key", "email": "", "groups": "[]"}
    return [*people, key | times]


@pytest.fixture
async def known(both: Database) -> Database:
    def write(connection: Connection, batch: list[None]) -> list[None]:
        connection.execute(insert(persons), rows())
        for sid, person in (("ses_1", "per_ada"), ("ses_2", "per_ada"), ("ses_3", "per_bob")):
            connection.execute(
                insert(sessions).values(
                    sid=sid, person_id=person, device=sid, enrolled_at=1, last_exchange=int(sid[-1]), access_key=sid
                )
            )
        return [None] * len(batch)

    await both.submit(write, None)
    return both


async def ids(database: Database, where: ColumnElement[bool], **more: Any) -> list[str]:
    people = await database.read(lambda connection: found(connection, where, **more))
    return [each.person_id for each in people]


def order(verb: Any, person_id: str = "per_ada") -> PersonOrder:
    return PersonOrder(verb, person_id, operator("root@host"), 0)


async def test_everybody_is_listed_in_pages_and_no_service_key(known: Database) -> None:
    everybody = await ids(known, true())
    assert everybody == sorted(row["person_id"] for row in rows() if row["issuer"] != ISSUER)
    first = await ids(known, true(), most=3)
    assert first + await ids(known, true(), after=first[-1]) == everybody


@pytest.mark.parametrize(
    ("text", "those"),
    [
        ("ADA", ["per_ada"]),
        ("example.com", [f"per_{name}" for name in ("ada", "bob", "cid", "dan", "eve", "fay", "gus")]),
        ("50%", ["per_bob"]),
        ("%", ["per_bob"]),
        ("sub-Hal", ["per_hal"]),
        ("sub-", []),
        ("key", []),
    ],
)
async def test_people_are_found_by_a_part_of_what_they_are_called(known: Database, text: str, those: list[str]) -> None:
    assert await ids(known, matches(text)) == those


async def test_an_operator_means_one_whole_name(known: Database) -> None:
    for text in ("ada@example.com", "per_ada", "sub-Ada"):
        assert await ids(known, means(text)) == ["per_ada"]
    assert await ids(known, means("key_1")) == []


NAMES = [["payments"], ["research"], ["nobody"], ["payments", "research"], ["Zeta"], ["alpha"], [], ["unknown"]]


@pytest.mark.parametrize("stored", [False, True])
async def test_the_owners_check_finds_whom_the_team_pays_for(known: Database, *, stored: bool) -> None:
    if stored:
        await known.submit(with_teams, None)
    team_of = Accounts(TEAMS, ()).team_of
    everybody = await known.read(lambda connection: found(connection, true()))
    paying = {each.person_id: team_of(each.email, each.groups, each.stored) for each in everybody}
    asked = {tuple(names): await paid(known, names) for names in NAMES}
    assert asked == {tuple(n): {person for person, team in paying.items() if team in n} for n in NAMES}
    nobody = {("unknown",), ()} if stored else {("unknown",), (), ("nobody",), ("Zeta",), ("alpha",)}
    assert {names for names, those in asked.items() if not those} == nobody


async def paid(database: Database, names: list[str]) -> set[str]:
    people = await database.read(lambda connection: found(connection, is_paid_by(connection, TEAMS, names)))
    return {each.person_id for each in people}


def with_teams(connection: Connection, batch: list[None]) -> list[None]:
    """Teams of a directory: one that is configured, one that is a configured group, and two of their own."""
    members = {"nobody": ["per_cid"], "lab": ["per_dan"], "alpha": ["per_hal", "per_fay"], "Zeta": ["per_hal"]}
    for name, people in members.items():
        row = {"team_id": name, "home": "https://idp", "source": "csv", "name": name, "name_key": name.lower()}
        connection.execute(insert(teams).values(row | {"made_at": 1, "changed_at": 1}))
        connection.execute(insert(team_members), [{"team_id": name, "person_id": each} for each in people])
    extra = {"team_id": "alpha", "person_id": "per_bob"}
    connection.execute(insert(team_members).values(extra))
    return [None] * len(batch)


@pytest.mark.parametrize("verb", ["disable", "revoke"])
async def test_whoever_is_disabled_or_revoked_has_no_session_on_any_replica(
    known: Database, column: Column, verb: Any
) -> None:
    here, there = Revocations(known), Revocations(known)
    assert await People(known, here.refresh).carry_out(order(verb)) == 2
    assert ["ses_1" in here, "ses_2" in here, "ses_3" in here] == [True, True, False]
    await there.refresh()
    assert "ses_1" in there
    left = await known.read(lambda connection: [sessions_of(connection, each) for each in ("per_ada", "per_bob")])
    assert [len(each) for each in left] == [0, 1]
    ((disabled,),) = column.sql("SELECT disabled_at FROM persons WHERE person_id = 'per_ada'")
    assert (disabled is not None) == (verb == "disable")
    ((until,),) = column.sql("SELECT MIN(expires_at) FROM revocations")
    assert until > (known.now() + MOST_LIFE_SECONDS) * 1000, "a token may be of a time with another tokens.life_seconds"


async def test_what_was_done_is_recorded_once_and_without_a_name(known: Database, column: Column) -> None:
    people = People(known)
    disabling = order("disable")
    assert [await people.carry_out(disabling), await people.carry_out(disabling)] == [2, 0]
    assert await people.carry_out(order("enable")) == 0
    assert await people.carry_out(order("disable", "per_none")) is None
    assert await people.carry_out(order("disable", "key_1")) is None
    found_rows = column.sql("SELECT action, object_id, before, after FROM changes")
    assert sorted(row[:2] for row in found_rows) == [("person.disable", "per_ada"), ("person.enable", "per_ada")]
    before, after = next(map(json.loads, row[2:]) for row in found_rows if row[0] == "person.disable")
    assert (before["disabled_at"], before["sessions"]) == (None, ["ses_1", "ses_2"])
    assert after["disabled_at"] > 0
    assert "example.com" not in str(found_rows)
