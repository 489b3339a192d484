"""Filters of RFC 7644 section 3.4.2.2: read, asked of a resource, refused when they cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.identity.entries import KEPT
from llmgw_gateway.scim.attributes import GROUPS, USERS
from llmgw_gateway.scim.filters import MOST_CHARACTERS, holds, mentions, parse, parse_path, required, texts
from llmgw_gateway.scim.refusals import ScimError

ADA: dict[str, Any] = {
    "id": "per_1",
    "userName": "Ada@Example.com",
    "externalId": "00uX",
    "displayName": 'Ada "Countess" Lovelace',
    "name": {"givenName": "Ada"},
    "emails": [
        {"type": "work", "value": "ada@example.com", "primary": True},
        {"type": "home", "value": "ada@home.example"},
    ],
    "active": True,
    "groups": [{"value": "tem_1", "display": "Research"}],
    "meta": {"resourceType": "User"},
}


@pytest.mark.parametrize(
    "text",
    [
        'userName eq "ada@example.com"',
        'USERNAME EQ "ADA@EXAMPLE.COM"',
        'urn:ietf:params:scim:schemas:core:2.0:User:userName eq "ada@example.com"',
        'externalId eq "00uX"',
        "externalId eq 00uX",
        'id eq "per_1" and active eq true',
        'displayName co "\\"count"',
        'displayName sw "ada" and displayName ew "LACE"',
        'name.givenName eq "ada"',
        'emails eq "ada@home.example"',
        'emails.type eq "home"',
        'emails[type eq "work"].value eq "ada@example.com"',
        'emails[type eq "work" and value co "@example.com"]',
        'emails[type eq "work" and primary eq true]',
        'userName eq "x" or (active eq true and not (userName eq "x"))',
        "title pr or userName pr",
        'userName ne "x"',
        'emails.value ne "x"',
        'userName gt "a" and userName le "b"',
        'groups eq "tem_1"',
        'groups.display eq "research"',
        "not (active eq false)",
    ],
)
def test_what_holds(text: str) -> None:
    assert holds(parse(text, USERS), ADA, USERS)


@pytest.mark.parametrize(
    "text",
    [
        'externalId eq "00ux"',  # case matters where the standard says so
        'id eq "PER_1"',
        'userName eq "ada"',
        "active eq false",
        'active eq "true"',
        'emails[type eq "home"].value eq "ada@example.com"',
        'emails[type eq "work" and value eq "ada@home.example"]',
        "title pr",
        "nickName eq null",
        'userName ne "ada@example.com"',
        'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:userName eq "ada@example.com"',
        'active co "t"',
        'userName eq "x" or userName eq "y" and active eq true',
    ],
)
def test_what_does_not_hold(text: str) -> None:
    assert not holds(parse(text, USERS), ADA, USERS)


@pytest.mark.parametrize(
    "text",
    [
        "userName",
        "userName eq",
        'userName is "x"',
        'userName eq "x',
        'userName eq "x" and',
        'userName eq "x") ',
        '(userName eq "x"',
        'eq "x"',
        'not userName eq "x"',
        'emails[type eq "work"',
        "emails[] pr",
        'userName eq "\\x"',
        'userName eq "a\\u0000b"',
        "userName eq a\x00b",
        'members[value eq "\\u007f"]',
        "name.nothing pr",
        "(" * 30 + "active eq true" + ")" * 30,
        'userName eq "' + "x" * MOST_CHARACTERS + '"',
        "",
    ],
)
def test_what_cannot_be_read_is_refused_as_the_standard_says(text: str) -> None:
    with pytest.raises(ScimError) as caught:
        parse(text, USERS)
    assert (caught.value.status, caught.value.kind) == (400, "invalidFilter")


@given(st.text(alphabet=st.sampled_from('ab.[]()"\\ \n$:eqandortruepr1'), max_size=60))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    for read in (parse, parse_path):
        try:
            found = read(text, USERS)
        except ScimError:
            continue
        holds(found, ADA, USERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('userName eq "x" and externalId eq "y"', {"userName": "x", "externalId": "y"}),
        ('userName eq "x" or externalId eq "y"', {}),
        ('not (userName eq "x")', {}),
        ('userName eq "x" and (id eq "1" or id eq "2")', {"userName": "x"}),
        ('name.givenName eq "x"', {}),
        ("active eq true", {}),
    ],
)
def test_an_index_is_asked_only_for_what_must_be_so(text: str, expected: dict[str, str]) -> None:
    assert required(parse(text, USERS)) == expected


def test_a_filter_of_entra_about_members() -> None:
    found = parse('id eq "tem_1" and members eq "per_1"', GROUPS)
    assert mentions(found, "members")
    assert not mentions(parse('id eq "x"', GROUPS), "members")
    group = {"id": "tem_1", "members": [{"value": "per_2"}, {"value": "per_1"}]}
    assert holds(found, group, GROUPS)
    assert not holds(found, group | {"members": [{"value": "per_2"}]}, GROUPS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('emails[type eq "work"].value eq "a@x"', {"a@x"}),
        ('name.givenName sw "A" and displayName co "b" and groups eq "tem_1"', {"A", "b"}),
        ('displayName eq "a" or displayName eq "b"', set()),
        ('not (displayName eq "a")', set()),
        ('displayName ne "a"', set()),
        ("active eq true", set()),
    ],
)
def test_a_search_is_narrowed_only_by_what_must_stand_there(text: str, expected: set[str]) -> None:
    assert texts(parse(text, USERS), KEPT) == expected
