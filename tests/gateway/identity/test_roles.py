"""Roles: by rule, by grant, until a day, gone at once; and the first administrator's code, good once."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

from llmgw_gateway.call import Caller
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.roles import (
    NewCode,
    NewRole,
    Redemption,
    RoleEnd,
    Roles,
    Standing,
    fresh_code,
    new_grant,
    redeem,
    standing_of,
)
from llmgw_gateway.observe.changes import Author, new_change_id, operator
from llmgw_gateway.sections.administering import RoleRule
from llmgw_gateway.store.schema import persons, team_members, teams
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

HOME, ELSEWHERE = "https://idp", "https://other"
NOW = int(time.time() * 1000)
DAY = 86_400_000
RULES = (
    RoleRule(role="admin", issuer=HOME, groups=("platform",)),
    RoleRule(role="auditor", issuer=HOME, subjects=("sub-bob",)),
    RoleRule(role="team_lead", issuer=HOME, groups=("leads",), teams=("payments", "research")),
)


def person(name: str, issuer: str = HOME, groups: list[str] | None = None, **more: Any) -> dict[str, Any]:
    seen = {"first_seen": 1, "last_seen": 1, "disabled_at": None, "inactive_at": None}
    known = {"person_id": f"per_{name}", "issuer": issuer, "subject": f"sub-{name}", "groups": json.dumps(groups)}
    return known | seen | more


PEOPLE = [
    person("ada", groups=["platform", "leads"]),
    person("bob", groups=[]),
    person("cid", groups=None),
    person("dan", issuer=ELSEWHERE, groups=["platform"]),
    person("eve", groups=["platform"], disabled_at=5),
    person("key", issuer="service-key", groups=["platform"]),
]


@pytest.fixture
async def known(both: Database) -> Database:
    def write(connection: Connection, batch: list[None]) -> list[None]:
        connection.execute(insert(persons), PEOPLE)
        return [None] * len(batch)

    await both.submit(write, None)
    return both


async def standing(database: Database, name: str, now: int = NOW, *, service: bool = False) -> Standing:
    caller = Caller(f"per_{name}", "ses", "key", "tok", 0, service=service)
    return await database.read(lambda connection: standing_of(connection, caller, RULES, now))


def grant(name: str, role: Any = "admin", team: str = "", ends_at: int | None = None) -> NewRole:
    return NewRole(new_grant(f"per_{name}", role, team, ends_at), operator("root@host"))


async def test_rules_give_roles_to_groups_and_subjects_of_their_provider(known: Database) -> None:
    ada = await standing(known, "ada")
    assert (set(ada.roles), set(ada.teams), ada.role) == ({"admin", "team_lead"}, {"payments", "research"}, "admin")
    assert (await standing(known, "bob")).role == "auditor"
    for name in ("cid", "dan", "nobody"):
        found = await standing(known, name)
        assert (found.roles, found.teams, found.role) == (frozenset(), frozenset(), "developer"), name
    key = await standing(known, "key", service=True)
    assert (key.roles, key.role) == (frozenset(), "service")


async def test_a_directory_takes_a_role_away_and_gives_none(known: Database) -> None:
    """A group that the directory has without somebody is none of theirs, whatever their last sign-in said."""

    def provision(connection: Connection, batch: list[dict[str, list[str]]]) -> list[None]:
        for (name, people), home in ((pair, HOME) for each in batch for pair in each.items()):
            row = {"team_id": name, "home": home, "source": "scim", "name": name, "name_key": name}
            connection.execute(insert(teams).values(row | {"made_at": 1, "changed_at": 1}))
            for person_id in people:
                connection.execute(insert(team_members).values(team_id=name, person_id=person_id))
        return [None] * len(batch)

    await known.submit(provision, {"leads": ["per_ada", "per_cid"]})
    assert (await standing(known, "ada")).teams == {"payments", "research"}
    assert (await standing(known, "cid")).role == "developer", "it was not in the sign-in"
    await known.submit(provision, {"platform": ["per_bob"]})
    assert set((await standing(known, "ada")).roles) == {"team_lead"}
    assert (await standing(known, "bob")).role == "auditor"


async def test_whoever_is_disabled_has_no_role_whatever_says_so(known: Database) -> None:
    with pytest.raises(GatewayError) as caught:
        await standing(known, "eve")
    assert caught.value.code is ErrorCode.PERSON_DISABLED


async def test_a_granted_role_counts_at_once_until_its_end_or_until_it_is_taken_away(
    known: Database, column: Column
) -> None:
    roles = Roles(known)
    lead, day = grant("cid", "team_lead", "payments"), grant("bob", "admin", ends_at=NOW + DAY)
    await roles.give(lead)
    await roles.give(day)
    assert (await standing(known, "cid")).teams == {"payments"}
    assert [(await standing(known, "bob", now)).role for now in (NOW, NOW + DAY)] == ["admin", "auditor"]
    ending = RoleEnd(lead.grant.grant_id, operator("root@host"), 0)
    assert [await roles.end(ending), await roles.end(ending)] == [True, True]
    assert not await roles.end(replace(ending, by=operator("root@host")))
    assert (await standing(known, "cid")).roles == frozenset()
    rows = column.sql("SELECT action, object_id, actor FROM changes")
    assert sorted(row[0] for row in rows) == ["role.grant", "role.grant", "role.revoke"]
    assert {row[2] for row in rows} == {"root@host"}


async def test_nobody_unknown_gets_a_role(known: Database, column: Column) -> None:
    with pytest.raises(GatewayError) as caught:
        await Roles(known).give(grant("nobody"))
    assert caught.value.code is ErrorCode.NOT_FOUND
    assert column.sql("SELECT count(*) FROM changes") == [(0,)]


async def make_code(database: Database, minutes: int = 15) -> tuple[str, bool]:
    _, digest = fresh_code()
    now = int(time.time() * 1000)
    return digest, await Roles(database).make_code(NewCode(digest, now + minutes * 60_000, operator("root@host"), now))


def redemption(digest: str, name: str = "cid", now: int = 0) -> Redemption:
    author = Author(f"per_{name}", "developer", new_change_id())
    made = replace(new_grant(f"per_{name}", "admin", "", None), made_by=author.actor, made_at=now or NOW + 1000)
    return Redemption(digest, made, author)


async def test_a_code_makes_one_administrator_once(known: Database, column: Column) -> None:
    digest, made = await make_code(known)
    assert made
    first = redemption(digest)
    assert (await known.submit(redeem, first)).holder == "per_cid"
    assert (await known.submit(redeem, first)).grant_id == first.grant.grant_id, "the batch is run again"
    assert (await standing(known, "cid", NOW + 2000)).role == "admin"
    with pytest.raises(GatewayError, match="This code is not good"):
        await known.submit(redeem, redemption(digest, "bob"))
    assert (await standing(known, "bob", NOW + 2000)).role == "auditor"
    assert (await make_code(known))[1] is False, "there is an administrator"
    rows = column.sql("SELECT action, actor, outcome FROM changes ORDER BY at")
    assert sorted(rows) == [
        ("setup_code.create", "root@host", "allowed"),
        ("setup_code.redeem", "per_cid", "allowed"),
    ]


async def test_a_code_ends_by_time_and_by_the_next_one_and_none_is_guessed(known: Database, column: Column) -> None:
    former, _ = await make_code(known)
    digest, _ = await make_code(known)
    late = int(time.time() * 1000) + 16 * 60_000
    ended = redemption(former, now=int(time.time() * 1000))
    for refused in (redemption("0" * 64), ended, redemption(digest, now=late)):
        with pytest.raises(GatewayError) as caught:
            await known.submit(redeem, refused)
        assert caught.value.code is ErrorCode.ROLE_REQUIRED
    assert (await known.submit(redeem, redemption(digest))).role == "admin"
    codes = column.sql("SELECT digest FROM setup_codes")
    assert len(codes) == 2
    code, kept = fresh_code()
    assert (len(code.reveal()), len(kept), code.reveal() in kept) == (32, 64, False)


async def test_when_the_last_administrator_is_gone_another_code_can_be_made(known: Database) -> None:
    order = grant("cid")
    await Roles(known).give(order)
    assert (await make_code(known))[1] is False
    await Roles(known).end(RoleEnd(order.grant.grant_id, operator("root@host"), 0))
    assert (await make_code(known))[1] is True


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({"role": "admin"}, "groups: groups or subjects are needed"),
        ({"role": "admin", "groups": ("g",), "teams": ("payments",)}, "teams: is needed with role"),
        ({"role": "team_lead", "groups": ("g",)}, "teams: is needed with role"),
    ],
)
def test_a_rule_for_nobody_or_nothing_is_a_fault(rule: dict[str, Any], fault: str) -> None:

    assert [each for each in RoleRule(**rule).faults(Path()) if each.startswith(fault)]
