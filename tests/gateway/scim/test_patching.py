"""PATCH: by the standard, and as Okta and Entra ID write it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llmgw_gateway.scim.attributes import GROUPS, USERS
from llmgw_gateway.scim.patching import MOST_VISITS, patched
from llmgw_gateway.scim.refusals import ScimError
from tests.gateway.scim.recordings import recorded

WORK: dict[str, Any] = {"type": "work", "value": "ada@example.com", "primary": True}
HOME: dict[str, Any] = {"type": "home", "value": "ada@home.example"}
ADA: dict[str, Any] = {
    "userName": "ada",
    "name": {"givenName": "Ada", "familyName": "Lovelace"},
    "emails": [WORK, HOME],
    "active": True,
}
TEAM: dict[str, Any] = {"displayName": "Research", "members": [{"value": "OLD"}]}


def apply(document: dict[str, Any], *operations: dict[str, Any]) -> dict[str, Any]:
    before = copy.deepcopy(document)
    kind = GROUPS if "displayName" in document and "userName" not in document else USERS
    result = patched(document, {"Operations": list(operations)}, kind)
    assert document == before
    return result


@pytest.mark.parametrize("how", ["disable", "disable_by_text", "disable_as_once"])
def test_entra_disables_in_three_ways(how: str) -> None:
    assert patched(ADA, recorded("entra", how), USERS) == ADA | {"active": False}


def test_okta_disables_without_a_path() -> None:
    assert patched(ADA, recorded("okta", "deactivate"), USERS) == ADA | {"active": False}


@pytest.mark.parametrize(
    ("how", "changed"),
    [
        (
            "several",
            {
                "displayName": "Pvlo",
                "externalId": "Eqpj",
                "name": {"givenName": "Gtfd", "familyName": "Pkqf"},
                "emails": [WORK | {"value": "TestBcwqnm@test.microsoft.com"}, HOME],
            },
        ),
        (
            "several_with_flag",
            {
                "displayName": "Bjfe",
                "name": {"givenName": "Kkom", "familyName": "Unua"},
                "emails": [WORK | {"value": "TestMhvaes@test.microsoft.com"}, HOME],
            },
        ),
        ("add_unkept", {}),
        ("nothing", {}),
    ],
)
def test_entra_changes_several_attributes(how: str, changed: dict[str, Any]) -> None:
    assert patched(ADA, recorded("entra", how), USERS) == ADA | changed


def test_an_address_that_is_not_there_yet_is_made_from_what_selects_it() -> None:
    bare = {"userName": "ada", "active": True}
    changed = patched(bare, recorded("entra", "update_parts"), USERS)
    assert changed["emails"] == [{"type": "work", "value": "updatedEmail@microsoft.com"}]
    assert changed["name"] == {"familyName": "updatedFamilyName"}


@pytest.mark.parametrize("how", ["remove_member", "remove_member_with_flag"])
def test_entra_adds_and_removes_members_in_two_ways(how: str) -> None:
    more = patched(TEAM, recorded("entra", "add_member"), GROUPS)
    assert more["members"] == [{"value": "OLD"}, {"value": "NEW"}]
    assert patched(more, recorded("entra", "add_member"), GROUPS) == more
    assert patched(more, recorded("entra", how), GROUPS) == TEAM
    assert "members" not in apply(TEAM, {"op": "Remove", "path": "members"})


def test_members_that_are_named_one_by_one_are_taken_together() -> None:
    team = TEAM | {"members": [{"value": str(number)} for number in range(10)]}
    removed: list[dict[str, Any]] = [{"op": "remove", "path": f'members[value eq "{number}"]'} for number in range(3)]
    removed += [{"op": "Remove", "path": "members", "value": [{"value": "3"}]}]
    added = [{"op": "add", "path": "members", "value": [{"value": number}]} for number in "0a"]
    again = {"op": "remove", "path": 'members[value eq "a"]', "together": "remove"}
    changed = apply(team, *removed, *added, again, {"op": "replace", "path": "displayName", "value": "X"})
    assert changed["displayName"] == "X"
    assert [each["value"] for each in changed["members"]] == [*"4567890"]


def test_a_change_that_would_take_the_store_too_long_is_refused() -> None:
    team = TEAM | {"members": [{"value": str(number)} for number in range(MOST_VISITS // 100)]}
    each = [{"op": "remove", "path": f'members[value sw "x{number}"]'} for number in range(101)]
    with pytest.raises(ScimError) as error:
        apply(team, *each)
    assert (error.value.status, error.value.kind) == (413, "tooMany")
    many = [{"op": "remove", "path": f'members[value eq "{number}"]'} for number in range(1, 1001)]
    assert len(apply(team, *many)["members"]) == len(team["members"]) - 1000


def test_okta_changes_members_and_names() -> None:
    assert patched(TEAM, recorded("okta", "change_members"), GROUPS)["members"] == [{"value": "NEW"}]
    both = patched(TEAM, recorded("okta", "replace_members"), GROUPS)["members"]
    assert both == [{"value": "NEW"}, {"value": "OLD"}]
    assert patched(TEAM, recorded("okta", "rename_group"), GROUPS) == TEAM | {"displayName": "Test SCIMv20"}


@pytest.mark.parametrize(
    ("operation", "changed"),
    [
        ({"op": "add", "path": "emails", "value": HOME}, {}),
        ({"op": "ADD", "path": "emails", "value": [{"value": "x", "primary": True}]},
         {"emails": [WORK | {"primary": False}, HOME, {"value": "x", "primary": True}]}),
        ({"op": "replace", "path": "EMAILS", "value": [HOME]}, {"emails": [HOME]}),
        ({"op": "remove", "path": 'emails[type eq "home"]'}, {"emails": [WORK]}),
        ({"op": "remove", "path": 'emails[type eq "home"].type'}, {"emails": [WORK, {"value": "ada@home.example"}]}),
        ({"op": "remove", "path": 'emails[type eq "other"]'}, {}),
        ({"op": "replace", "path": 'emails[type eq "home"]', "value": {"value": "y"}},
         {"emails": [WORK, HOME | {"value": "y"}]}),
        ({"op": "remove", "path": "name.givenName"}, {"name": {"familyName": "Lovelace"}}),
        ({"op": "replace", "path": "name", "value": {"givenName": "A"}},
         {"name": {"givenName": "A", "familyName": "Lovelace"}}),
        ({"op": "replace", "path": "displayName", "value": "A"}, {"displayName": "A"}),
        ({"op": "add", "value": {"displayName": "A", "emails": [HOME]}}, {"displayName": "A"}),
        ({"op": "replace", "value": {"id": "per_9", "groups": [], "meta": {}}}, {}),
        ({"op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:displayName", "value": "A"},
         {"displayName": "A"}),
        ({"op": "replace", "path": 'addresses[type eq "work"].country', "value": "ML"}, {}),
    ],
)  # fmt: skip
def test_what_the_standard_says(operation: dict[str, Any], changed: dict[str, Any]) -> None:
    assert apply(ADA, operation) == ADA | changed


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ({"op": "move", "path": "userName"}, "invalidSyntax"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "remove", "path": "userName"}, "invalidValue"),
        ({"op": "remove", "path": "active"}, "mutability"),
        ({"op": "replace", "path": "active", "value": None}, "mutability"),
        ({"op": "replace", "path": "active", "value": "perhaps"}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": ""}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": 7}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": "a\u0000b"}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": "a" * 300}, "invalidValue"),
        ({"op": "replace", "path": "id", "value": "per_9"}, "mutability"),
        ({"op": "replace", "path": "groups", "value": []}, "mutability"),
        ({"op": "replace", "path": 'emails[type pr and value eq "x"].value', "value": "y"}, "noTarget"),
        ({"op": "replace", "path": 'emails[tyte eq "work"].value', "value": "y"}, "noTarget"),
        ({"op": "replace", "path": "emails[", "value": "y"}, "invalidPath"),
        ({"op": "replace", "path": 7, "value": "y"}, "invalidPath"),
        ({"op": "replace", "value": "y"}, "invalidValue"),
        ({"op": "add", "path": "emails", "value": [{"value": str(n)} for n in range(30)]}, "invalidValue"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_of_the_request_counts(operation: dict[str, Any], kind: str) -> None:
    with pytest.raises(ScimError) as caught:
        apply(ADA, {"op": "replace", "path": "displayName", "value": "changed"}, operation)
    assert (caught.value.status, caught.value.kind) == (400, kind)


@pytest.mark.parametrize("request_", [None, [], {}, {"Operations": "x"}, {"Operations": [1]}])
def test_what_is_no_change_is_refused(request_: object) -> None:
    with pytest.raises(ScimError):
        patched(ADA, request_, USERS)
