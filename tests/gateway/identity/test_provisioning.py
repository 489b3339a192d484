"""People of a directory on a real store: known before they come, out when they have left, each change on record."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity import provisioning
from llmgw_gateway.identity.directory import Directory
from llmgw_gateway.identity.dpop import Proof
from llmgw_gateway.identity.entries import Group, entry
from llmgw_gateway.identity.exchange import Enrolled, Enrolment, enrol
from llmgw_gateway.identity.matching import DIRECTORY
from llmgw_gateway.identity.provisioning import Writing
from llmgw_gateway.identity.revocation import Revocations
from llmgw_gateway.identity.signin import SignIn
from llmgw_gateway.observe.changes import Author, new_change_id
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.sections.exchanging import Issuer
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

HOME = "https://acme.okta.example"
ISSUER = Issuer(issuer=HOME, client_id="agent")
ADA = {"userName": "ada@example.com", "externalId": "00u1", "displayName": "Ada Lovelace"}


def writing(**changed: Any) -> Writing:
    now = int(time.time() * 1000)
    return replace(Writing(Author("key_1", "scim", new_change_id()), "scim", HOME, now), **changed)


def sign_in(subject: str, email: str = "", name: str = "Somebody", issuer: Issuer = ISSUER) -> SignIn:
    now = int(time.time())
    return SignIn(issuer, subject, name, email, (), now, now + 300, None)


class Directories:
    """Runs functions of `provisioning` in transactions of their own."""

    def __init__(self, database: Database, column: Column) -> None:
        self.database = database
        self.column = column

    async def __call__(self, work: Callable[..., Any], *args: Any, **changed: Any) -> Any:
        def run(connection: Connection, batch: list[Any]) -> list[Any]:
            return [work(connection, writing(**changed), *args) for _ in batch]

        return await self.database.submit(run, None)

    async def row(self, person_id: str, home: str = HOME) -> Any:
        return await self(lambda connection, _: provisioning.person(connection, home, person_id))

    async def team(self, team_id: str) -> Any:
        return await self(lambda connection, _: provisioning.team(connection, HOME, team_id))

    async def come(self, subject: str, email: str = "", *, device: str = "d1", **more: Any) -> Enrolled:
        proof = Proof(device, new_change_id(), int(time.time()) + 60)
        now = int(time.time() * 1000)
        signed = sign_in(subject, email, **more)
        return await self.database.submit(enrol, Enrolment(signed, proof, new_change_id(), now, 900))

    def changes(self) -> list[tuple[str, Any, Any]]:
        rows = self.column.sql("SELECT action, before, after FROM changes ORDER BY at, change_id")
        return [(action, before and json.loads(before), after and json.loads(after)) for action, before, after in rows]


@pytest.fixture
async def directories(both: Database, column: Column) -> Directories:
    return Directories(both, column)


async def test_who_was_provisioned_is_the_same_person_when_they_sign_in(directories: Directories) -> None:
    made = await directories(provisioning.add_person, "per_1", entry(ADA))
    come = await directories.come("00u1", name="whatever they call themselves")
    assert made == come.person_id == "per_1"
    person = await Directory(directories.database, Accounts((), ())).person("per_1")
    assert (person.name, person.email, person.issuer) == ("Ada Lovelace", "ada@example.com", HOME)
    assert (await directories.come("00u1", device="d2")).person_id == "per_1"


@pytest.mark.parametrize(
    ("subject", "more"),
    [
        ("s", {"email": ""}),  # the provider vouches for no address
        ("s", {"email": "", "name": "Ada Lovelace"}),
        ("s", {"email": "", "name": "ada@example.com"}),
        ("00u1", {"issuer": Issuer(issuer="https://other.example", client_id="agent")}),
        ("s", {"email": "ada@example.com", "issuer": Issuer(issuer="https://other.example", client_id="agent")}),
    ],
)
async def test_nobody_becomes_somebody_by_a_name_or_at_another_provider(
    directories: Directories, subject: str, more: dict[str, Any]
) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    assert (await directories.come(subject, **more)).person_id != "per_1"


async def test_an_entry_that_was_taken_is_not_taken_again(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA | {"externalId": ""}))
    assert (await directories.come("first", "ada@example.com")).person_id == "per_1"
    assert (await directories.come("second", "ada@example.com", device="d2")).person_id != "per_1"


async def test_who_has_signed_in_before_is_the_one_who_is_provisioned(directories: Directories) -> None:
    by_subject, by_address = await directories.come("00u1"), await directories.come("s", "bob@example.com")
    assert await directories(provisioning.add_person, "per_x", entry(ADA)) == by_subject.person_id
    bob = {"userName": "bob", "emails": [{"value": "Bob@example.com"}]}
    assert await directories(provisioning.add_person, "per_y", entry(bob)) == by_address.person_id
    assert await directories(provisioning.add_person, "per_z", entry({"userName": "BOB"})) is None


async def test_who_becomes_inactive_is_out_everywhere_and_may_come_back(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    session = (await directories.come("00u1")).session
    other = await directories.come("00u2")
    elsewhere = Revocations(directories.database)
    await elsewhere.start()
    gone = entry(ADA | {"active": False})
    assert await directories(provisioning.alter_person, await directories.row("per_1"), gone) is True
    assert await directories(provisioning.alter_person, await directories.row("per_1"), gone) is False
    await elsewhere.refresh()
    assert (session in elsewhere, other.session in elsewhere) == (True, False)
    elsewhere.stop()
    with pytest.raises(GatewayError) as caught:
        await directories.come("00u1")
    assert caught.value.code is ErrorCode.PERSON_DISABLED
    assert await directories(provisioning.alter_person, await directories.row("per_1"), entry(ADA)) is True
    assert (await directories.come("00u1")).session != session
    assert [(action, after) for action, _, after in directories.changes()] == [
        ("person.add", {"active": True}),
        ("person.deactivate", {"active": False, "source": "scim"}),
        ("person.activate", {"active": True, "source": "scim"}),
    ]


async def test_what_an_administrator_withdrew_no_directory_gives_back(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    directories.column.sql("UPDATE persons SET disabled_at = 1")
    await directories(provisioning.alter_person, await directories.row("per_1"), entry(ADA | {"displayName": "A"}))
    with pytest.raises(GatewayError):
        await directories.come("00u1")


async def test_who_is_removed_is_refused_until_the_directory_has_them_again(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    await directories.come("00u1")
    await directories(provisioning.remove_person, await directories.row("per_1"))
    assert await directories.row("per_1") is None
    with pytest.raises(GatewayError):
        await directories.come("00u1")
    assert await directories(provisioning.add_person, "per_2", entry(ADA)) == "per_1"
    assert (await directories.come("00u1")).person_id == "per_1"


async def test_who_never_came_leaves_nothing(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    await directories(provisioning.remove_person, await directories.row("per_1"))
    assert directories.column.sql("SELECT * FROM persons") == []
    assert await directories(provisioning.add_person, "per_2", entry(ADA)) == "per_2"


async def test_nobody_of_another_provider_s_directory_is_seen(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    assert await directories.row("per_1", home="https://other.example") is None
    other = await directories(provisioning.add_person, "per_2", entry(ADA), home="https://other.example")
    assert other == "per_2"  # a user name of its own


async def test_teams_have_members_and_a_name_once(directories: Directories) -> None:
    for name in ("per_1", "per_2"):
        await directories(provisioning.add_person, name, entry({"userName": name}))
    assert await directories(provisioning.add_team, "tem_1", Group("Research", "g-1")) == "tem_1"
    assert await directories(provisioning.add_team, "tem_2", Group("RESEARCH")) is None
    row = await directories.team("tem_1")
    assert await directories(provisioning.set_members, row, {"per_1", "per_2"}) is True
    assert await directories(provisioning.set_members, row, {"per_2", "per_1"}) is False
    assert await directories(provisioning.set_members, await directories.team("tem_1"), {"per_2"}) is True
    people = Directory(directories.database, Accounts((), ()))
    assert (await people.person("per_2")).stored.teams == ("Research",)
    assert (await people.person("per_2")).stored.groups == {"Research", "g-1"}
    assert (await people.person("per_1")).stored.teams == ()
    assert (await people.person("per_1")).stored.known_groups == {"Research", "g-1"}
    await directories(provisioning.alter_team, await directories.team("tem_1"), Group("Science", "g-1"))
    assert (await directories.team("tem_1")).name == "Science"
    await directories(provisioning.remove_team, await directories.team("tem_1"))
    assert directories.column.sql("SELECT * FROM team_members") == []


async def test_a_row_about_a_change_names_nobody(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    changed = entry(ADA | {"userName": "countess", "emails": [{"value": "countess@example.com"}]})
    await directories(provisioning.alter_person, await directories.row("per_1"), changed)
    written = repr(directories.column.sql("SELECT * FROM changes")).lower()
    assert "user_name" in written
    # As whole words: random ids and hashes have such letters in them, too.
    assert not {"ada", "lovelace", "countess", "00u1"} & set(re.findall(r"\w+", written))


async def test_an_entry_that_is_found_late_becomes_that_of_who_has_signed_in(directories: Directories) -> None:
    """Who came before the directory could be certain has one row, and the directory can put them out."""
    first = await directories.come("00u1")  # no address that the provider vouches for
    await directories(provisioning.add_person, "per_1", entry(ADA | {"externalId": "wrong"}))
    await directories(provisioning.add_team, "tem_1", Group("payments"))
    await directories(provisioning.set_members, await directories.team("tem_1"), {"per_1"})
    assert (await directories.come("00u1")).person_id == first.person_id
    right = entry(ADA)
    row = await directories(provisioning.joined, await directories.row("per_1"), right)
    assert row.person_id == first.person_id
    await directories(provisioning.alter_person, row, right)
    # The directory goes on calling them as before.
    assert (await directories.row("per_1")).person_id == first.person_id
    assert await directories(lambda c, _: provisioning.members(c, "tem_1")) == {first.person_id}
    person = await Directory(directories.database, Accounts((), ())).person(first.person_id)
    assert (person.name, person.stored.teams) == ("Ada Lovelace", ("payments",))
    assert ("person.join", {"entry": "per_1"}, {"active": True}) in directories.changes()
    gone = entry(ADA | {"active": False})
    await directories(provisioning.alter_person, await directories.row("per_1"), gone)
    with pytest.raises(GatewayError) as caught:
        await directories.come("00u1")
    assert caught.value.code is ErrorCode.PERSON_DISABLED


@pytest.mark.parametrize("active", [True, False])
async def test_a_sign_in_that_is_certain_at_last_joins_its_entry(directories: Directories, *, active: bool) -> None:
    first = await directories.come("s")
    await directories(provisioning.add_person, "per_1", entry(ADA | {"active": active}))
    elsewhere = Revocations(directories.database)
    await elsewhere.start()
    if active:
        assert (await directories.come("s", "ada@example.com")).person_id == first.person_id
    else:
        with pytest.raises(GatewayError) as caught:
            await directories.come("s", "ada@example.com")
        assert caught.value.code is ErrorCode.PERSON_DISABLED
        await elsewhere.refresh()
        assert first.session in elsewhere  # what was signed in before is out, too
    elsewhere.stop()
    assert (await directories.row("per_1")).person_id == first.person_id
    assert len(directories.column.sql("SELECT person_id FROM persons")) == 1


async def test_somebody_with_an_entry_takes_no_other(directories: Directories) -> None:
    await directories(provisioning.add_person, "per_1", entry(ADA))
    await directories(provisioning.add_person, "per_2", entry({"userName": "ada.two@example.com"}))
    assert (await directories.come("00u1", "ada.two@example.com")).person_id == "per_1"
    assert (await directories.row("per_2")).issuer == DIRECTORY


@pytest.mark.parametrize("active", [(False, False), (True, False)])
@pytest.mark.parametrize("before", [True, False])
async def test_who_could_be_several_that_have_all_left_is_refused(
    directories: Directories, active: tuple[bool, bool], *, before: bool
) -> None:
    if before:
        await directories.come("s")
    for name, each in zip(("grace", "hopper"), active, strict=True):
        said = {"userName": name, "emails": [{"value": "grace@example.com"}], "active": each}
        await directories(provisioning.add_person, f"per_{name}", entry(said))
    if any(active):  # then it is somebody new, as nobody can say who
        assert (await directories.come("s", "grace@example.com")).person_id not in {"per_grace", "per_hopper"}
        return
    with pytest.raises(GatewayError) as caught:
        await directories.come("s", "grace@example.com")
    assert caught.value.code is ErrorCode.PERSON_DISABLED
