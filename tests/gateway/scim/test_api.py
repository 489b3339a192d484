"""SCIM as Okta and Entra ID use it, on both kinds of store: requests from their documentation, answers by the RFC."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import make_mocked_request
from sqlalchemy import insert

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.identity.provisioning import Writing, also
from llmgw_gateway.identity.service_keys import Rotation, Withdrawn, fresh
from llmgw_gateway.observe.changes import Author, new_change_id, operator
from llmgw_gateway.peers import Peers
from llmgw_gateway.scim import writing
from llmgw_gateway.scim.api import ROOT, Scim
from llmgw_gateway.store.schema import persons
from llmgw_wire.secret import Secret
from tests.gateway.scim.conftest import DAY, HOME, new_secret
from tests.gateway.scim.recordings import recorded

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from llmgw_gateway.identity.service_keys import ServiceKeys
    from llmgw_gateway.store.database import Database
    from tests.gateway.scim.conftest import Client

ERROR = ["urn:ietf:params:scim:api:messages:2.0:Error"]


async def test_a_person_s_life_at_okta(client: Client) -> None:
    found = await client("GET", "/Users?filter=userName%20eq%20%22test.user%40okta.local%22&startIndex=1&count=100")
    assert (found.status, found.json["totalResults"], found.json["Resources"]) == (200, 0, [])
    made = await client("POST", "/Users", recorded("okta", "create"))
    assert (made.status, made.json["userName"], made.json["active"]) == (201, "test.user@okta.local", True)
    assert made.headers["location"] == made.json["meta"]["location"] == f"{client.base}/Users/{made.json['id']}"
    assert "password" not in made.json
    assert "1mz050nq" not in repr(client.column.sql("SELECT * FROM persons"))
    path = f"/Users/{made.json['id']}"
    replaced = await client("PUT", path, recorded("okta", "replace"))
    assert replaced.json["name"] == {"givenName": "Another", "middleName": "Excited", "familyName": "User"}
    assert "displayName" not in replaced.json
    gone = await client("PATCH", path, recorded("okta", "deactivate"))
    assert (gone.status, gone.json["active"]) == (200, False)
    assert (await client("GET", path)).json["active"] is False
    listed = await client("GET", "/Users?startIndex=1&count=100")
    assert [each["id"] for each in listed.json["Resources"]] == [made.json["id"]]
    again = await client("POST", "/Users", recorded("okta", "create"))
    assert (again.status, again.json["schemas"], again.json["scimType"]) == (409, ERROR, "uniqueness")


async def test_a_person_found_late_keeps_the_id_that_the_directory_knows(client: Client, both: Database) -> None:
    """Deactivated by the id of the entry, the person who signs in is out."""
    said = {"person_id": "per_signed", "issuer": HOME, "subject": "00u9", "first_seen": 1, "last_seen": 1}

    def sign_in(connection: Connection, batch: list[None]) -> list[None]:
        connection.execute(insert(persons).values(said))
        return batch

    await both.submit(sign_in, None)
    name = await client.made("/Users", userName="ada@example.com", externalId="wrong")
    other = await client.made("/Users", userName="bob@example.com")
    team = await client.made("/Groups", displayName="payments", members=[{"value": name}])
    right = {"op": "replace", "path": "externalId", "value": "00u9"}
    assert (await client.patched(f"/Users/{name}", right)).json["id"] == name
    read = await client("GET", f"/Users/{name}")
    assert (read.status, read.json["externalId"], read.json["groups"][0]["display"]) == (200, "00u9", "payments")
    assert read.json["meta"]["location"].endswith(name)
    more = {"op": "add", "path": "members", "value": [{"value": other}, {"value": name}]}
    assert (await client.patched(f"/Groups/{team}", more)).status == 204
    members = (await client("GET", f"/Groups/{team}")).json["members"]
    assert {each["value"] for each in members} == {name, other}
    assert (await client.patched(f"/Users/{name}", {"op": "replace", "value": {"active": False}})).status == 200
    rows = client.column.sql("SELECT person_id FROM persons WHERE home <> '' ORDER BY person_id")
    assert [each for (each,) in rows] == sorted(["per_signed", other])
    gone = client.column.sql("SELECT person_id FROM persons WHERE inactive_at IS NOT NULL")
    assert [each for (each,) in gone] == ["per_signed"]
    less = {"op": "remove", "path": f'members[value eq "{name}"]'}
    assert (await client.patched(f"/Groups/{team}", less)).status == 204
    assert [each["value"] for each in (await client("GET", f"/Groups/{team}")).json["members"]] == [other]


async def test_a_name_with_control_characters_is_nobody_s(client: Client) -> None:
    team = await client.made("/Groups", displayName="payments")
    member = {"op": "add", "path": "members", "value": [{"value": "a\0b"}]}
    assert (await client.patched(f"/Groups/{team}", member)).status == 400
    people = "/Users"  # written in one, the address looks like a folder of somebody's machine
    for method in ("GET", "PUT", "DELETE"):
        body = {"userName": "ada"} if method == "PUT" else None
        assert (await client(method, f"{people}/a%00b", body)).status == 404
    reply = await client("GET", '/Users?filter=userName%20eq%20"a%5Cu0000b"')
    assert (reply.status, reply.json["scimType"]) == (400, "invalidFilter")


async def test_a_put_without_active_lets_nobody_in_again(client: Client) -> None:
    name = await client.made("/Users", userName="ada", active=False)
    assert (await client("PUT", f"/Users/{name}", {"userName": "ada"})).json["active"] is False


async def test_a_person_s_life_at_entra(client: Client) -> None:
    made = await client("POST", "/Users", recorded("entra", "create"))
    assert (made.status, made.json["externalId"]) == (201, "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef")
    path = f"/Users/{made.json['id']}"
    changed = await client("PATCH", path, recorded("entra", "update_parts"))
    assert changed.json["emails"][0]["value"] == "updatedEmail@microsoft.com"
    assert (await client("PATCH", path, recorded("entra", "rename"))).json["userName"].startswith("5b50642d")
    for how in ("disable", "disable_by_text", "disable_as_once"):
        assert (await client("PATCH", path, recorded("entra", how))).json["active"] is False
        query = '/Users?filter=emails[type eq "work"].value eq "UpdatedEmail@microsoft.com"'
        (shown,) = (await client("GET", query)).json["Resources"]
        assert shown["active"] is False  # soft-deleted, and found all the same
        await client.patched(path, {"op": "Replace", "path": "active", "value": "True"})
    assert (await client("DELETE", path)).status == 204
    missing = await client("GET", path)
    assert (missing.status, missing.json["schemas"], missing.json["status"]) == (404, ERROR, "404")


async def test_a_team_s_life(client: Client) -> None:
    old, new = await client.made("/Users", userName="old"), await client.made("/Users", userName="new")
    made = await client("POST", "/Groups", recorded("entra", "create_group"))
    path = f"/Groups/{made.json['id']}"
    assert (made.status, made.json["members"]) == (201, [])
    for provider, request in [
        ("entra", "rename_group"),
        ("entra", "add_member"),
        ("okta", "replace_members"),
        ("okta", "change_members"),
        ("okta", "rename_group"),
    ]:
        done = await client("PATCH", path, recorded(provider, request, old=old, new=new))
        assert (done.status, done.json) == (204, None)
    shown = (await client("GET", path)).json
    assert shown["displayName"] == "Test SCIMv20"
    assert [each["value"] for each in shown["members"]] == [new]
    (of_person,) = (await client("GET", f"/Users/{new}")).json["groups"]
    assert (of_person["value"], of_person["display"]) == (made.json["id"], "Test SCIMv20")
    query = f'/Groups?excludedAttributes=members&filter=displayName eq "test scimv20" and members eq "{new}"'
    (found,) = (await client("GET", query)).json["Resources"]
    assert "members" not in found
    assert "members" not in (await client("GET", f"{path}?excludedAttributes=members")).json
    taken = await client("POST", "/Groups", {"displayName": "TEST scimv20"})
    assert (taken.status, taken.json["scimType"]) == (409, "uniqueness")
    stranger = await client.patched(path, {"op": "add", "path": "members", "value": [{"value": "per_nobody"}]})
    assert (stranger.status, stranger.json["scimType"]) == (400, "invalidValue")
    await client("DELETE", f"/Users/{new}")
    assert (await client("GET", path)).json["members"] == []
    assert ((await client("DELETE", path)).status, (await client("DELETE", path)).status) == (204, 404)


async def test_pages_are_whole_and_in_one_order(client: Client) -> None:
    names = [await client.made("/Users", userName=f"user{number}") for number in range(7)]
    seen: list[str] = []
    for start in (1, 4, 7, 10):
        page = (await client("GET", f"/Users?startIndex={start}&count=3")).json
        assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (7, start, len(page["Resources"]))
        seen += [each["id"] for each in page["Resources"]]
    assert sorted(seen) == sorted(names)
    assert (await client("GET", "/Users?count=0")).json["totalResults"] == 7
    filtered = (await client("GET", '/Users?filter=userName sw "USER"&startIndex=6&count=3')).json
    assert (filtered["totalResults"], len(filtered["Resources"])) == (7, 2)
    only = (await client("GET", "/Users?attributes=userName&count=1")).json["Resources"][0]
    assert only.keys() == {"schemas", "id", "meta", "userName"}
    search = await client("POST", "/Users/.search", {"filter": 'userName eq "user3"', "attributes": ["userName"]})
    assert [each["userName"] for each in search.json["Resources"]] == ["user3"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('emails.value eq "ADA@example.com"', ["ada"]),
        ('emails co "100%_"', ["odd"]),
        ('displayName eq "Br\u00dcN\u00dc"', ["odd"]),
        ('displayName co "\\"x\\\\"', ["odd"]),
        ('displayName eq "nobody"', []),
    ],
)
async def test_a_search_finds_texts_of_every_kind(client: Client, text: str, found: list[str]) -> None:
    await client.made("/Users", userName="ada", emails=[{"value": "x@y"}, {"value": "Ada@Example.com"}])
    odd = "Br\u00fcn\u00fc" if "eq" in text else 'a"x\\b'
    await client.made("/Users", userName="odd", displayName=odd, emails=[{"value": "100%_@x"}])
    reply = await client("POST", "/Users/.search", {"filter": text})
    assert [each["userName"] for each in reply.json["Resources"]] == found


async def test_a_change_of_another_version_is_refused(client: Client) -> None:
    name = await client.made("/Users", userName="ada")
    path = f"/Users/{name}"
    read = await client("GET", path)
    tag = read.headers["etag"]
    assert tag == read.json["meta"]["version"]
    assert (await client("GET", path, If_None_Match=tag)).status == 304
    changed = await client("PUT", path, {"userName": "ada", "displayName": "Ada"}, If_Match=tag)
    assert (changed.status, changed.headers["etag"] != tag) == (200, True)
    late = await client("PUT", path, {"userName": "ada"}, If_Match=tag)
    assert (late.status, late.json["schemas"]) == (412, ERROR)
    assert (await client("DELETE", path, If_Match="*")).status == 204


WRONG: list[tuple[str, str, Any, int, str | None]] = [
    ("GET", "/Users?filter=userName", None, 400, "invalidFilter"),
    ("GET", "/Users?count=many", None, 400, "invalidValue"),
    ("POST", "/Users", {"userName": " "}, 400, "invalidValue"),
    ("POST", "/Users", [], 400, "invalidValue"),
    ("POST", "/Users", b"{", 400, "invalidSyntax"),
    ("POST", "/Users", b'{"userName": "\xff"}', 400, "invalidSyntax"),
    ("POST", "/Users", b'{"userName": "a\\ud800"}', 400, None),
    ("POST", "/Users", b"[" * 100_000, 400, "invalidSyntax"),
    ("POST", "/Users", None, 400, "invalidValue"),
    ("POST", "/Groups", {"displayName": ""}, 400, "invalidValue"),
    ("POST", "/Groups", {"displayName": "x", "members": [{"value": "per_no"}]}, 400, "invalidValue"),
    ("PATCH", "/Users/x", {"Operations": []}, 404, None),
    ("PUT", "/Groups/tem_no", {"displayName": "x"}, 404, None),
    ("GET", "/Users/x/y", None, 404, None),
    ("GET", "/Bulk", None, 404, None),
    ("POST", "/Schemas", {}, 405, None),
    ("DELETE", "/Users", None, 405, None),
]


async def test_what_cannot_be_is_an_error_of_the_standard(client: Client) -> None:
    for method, path, body, status, kind in WRONG:
        reply = await client(method, path, body)
        assert (reply.status, reply.json["schemas"], reply.json["status"]) == (status, ERROR, str(status)), path
        assert kind is None or reply.json["scimType"] == kind, (path, body)
    assert client.column.sql("SELECT * FROM teams") == []


async def test_what_is_served_is_described(client: Client) -> None:
    configuration = (await client("GET", "/ServiceProviderConfig")).json
    assert (configuration["patch"], configuration["etag"]) == ({"supported": True}, {"supported": True})
    schemas = (await client("GET", "/Schemas")).json
    assert schemas["totalResults"] == 2
    assert "null" not in json.dumps(schemas)
    for each in [*schemas["Resources"], *(await client("GET", "/ResourceTypes")).json["Resources"]]:
        location = each["meta"]["location"].removeprefix(client.base)
        assert (await client("GET", location)).json == each


async def test_only_a_key_for_scim_is_let_in_and_only_to_its_own_directory(client: Client, keys: ServiceKeys) -> None:
    name = await client.made("/Users", userName="ada")
    for_models = await new_secret(keys, "key_2", None)
    other = await new_secret(keys, "key_3", "https://other.example")
    for wrong in ("", "llmgw_sk_unknown", for_models):
        reply = await client("GET", "/Users", secret=wrong)
        assert (reply.status, reply.json["schemas"], reply.headers["www-authenticate"]) == (401, ERROR, "Bearer")
    assert (await client("GET", "/Users", secret=other)).json["totalResults"] == 0
    for method in ("GET", "DELETE"):
        assert (await client(method, f"/Users/{name}", secret=other)).status == 404
    with pytest.raises(GatewayError):
        keys.caller(Secret(other))
    ((actor, outcome),) = client.column.sql("SELECT actor, outcome FROM changes WHERE action = 'scim.request'")
    assert (actor, outcome) == ("unknown", "denied")  # once a minute, however often somebody knocks


async def test_a_key_that_comes_in_clear_past_the_proxies_is_refused(
    client: Client, keys: ServiceKeys, both: Database
) -> None:
    class Strangers(Peers):
        def admits(self, _address: str) -> bool:
            return False

    scim = Scim(both, keys, Strangers((), in_clear=True))
    request = make_mocked_request("GET", f"{ROOT}/Users", {"Authorization": f"Bearer {client.secret}"})
    answer = await scim(request, "req_1")
    assert answer.status == 400


async def test_a_page_beyond_every_number_is_empty(client: Client) -> None:
    await client.made("/Users", userName="ada")
    reply = await client("GET", f"/Users?startIndex={10**20}")
    assert (reply.status, reply.json["totalResults"], reply.json["Resources"]) == (200, 1, [])


async def test_a_key_is_rotated_with_an_overlap_and_ended(client: Client, keys: ServiceKeys) -> None:
    secret, digest = fresh()
    expires = int(time.time() * 1000) + DAY
    await keys.rotate(Rotation("key_1", "sec_new", digest, expires, DAY, operator("ada@host"), 0))
    for each in (client.secret, secret.reveal()):
        assert (await client("GET", "/Users", secret=each)).status == 200
    await keys.revoke(Withdrawn("key_1", operator("ada@host"), 0))
    assert (await client("GET", "/Users")).status == 401


async def test_every_change_has_a_row_by_the_key_that_made_it(client: Client) -> None:
    person = await client.made("/Users", userName="ada@example.com", externalId="00u1")
    await client.made("/Groups", displayName="Research", members=[{"value": person}])
    await client("PATCH", f"/Users/{person}", recorded("okta", "deactivate"))
    rows = client.column.sql("SELECT actor, role, action, object_id, request_id FROM changes WHERE role = 'scim'")
    assert {row[:2] + row[4:] for row in rows} == {("key_1", "scim", "req_1")}
    assert {row[2] for row in rows} == {"person.add", "team.add", "team.members", "person.deactivate"}


async def test_an_order_that_is_run_again_is_the_same_order(both: Database) -> None:
    """As the store does when it does not know whether a commit has gone through."""
    by = Writing(Author("key_1", "scim", new_change_id()), "scim", HOME, 1_000)
    order: writing.Order = writing.CreateUser(by, ROOT, "per_1", {"userName": "ada"})
    first = await both.submit(writing.carry_out, order)
    assert await both.submit(writing.carry_out, order) == first
    away: writing.Order = writing.DeleteUser(also(by, "d"), ROOT, "per_1")
    assert [await both.submit(writing.carry_out, away) for _ in range(2)] == [{}, {}]


async def test_two_who_create_the_same_person_make_one(client: Client) -> None:
    replies = await asyncio.gather(*(client("POST", "/Users", {"userName": "ada"}) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [201, *[409] * 7]
