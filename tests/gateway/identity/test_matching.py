"""Whom an entry of a directory means: by what providers vouch for, never by a guess."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from llmgw_gateway.identity.matching import candidates, folded, person_of, subjects

OKTA = "https://acme.okta.example"
ENTRA = "https://login.microsoftonline.com/tenant-1/v2.0"


@dataclass(frozen=True)
class Row:
    person_id: str
    subject: str = ""
    external_id: str = ""
    user_key: str | None = None
    email_key: str = ""


ADA = Row("per_1", external_id="00u1", user_key="ada@example.com", email_key="ada.lovelace@example.com")
BOB = Row("per_2", external_id="00u2", user_key="bob", email_key="bob@example.com")


@pytest.mark.parametrize(
    ("subject", "email", "expected"),
    [
        ("00u1", "", ADA),
        ("00u1", "bob@example.com", ADA),  # the id counts more than an address
        ("other", "ADA@Example.com", ADA),
        ("other", "ada.lovelace@example.com", ADA),
        ("other", "bob", BOB),
        ("other", "", None),
        ("00U1", "", None),  # subjects are compared exactly
        ("tenant/00u1", "", None),  # a tenant that the provider's address does not name
        ("Ada Lovelace", "", None),
    ],
)
def test_a_sign_in_takes_the_entry_that_is_certainly_its_own(subject: str, email: str, expected: Row | None) -> None:
    assert list(candidates([ADA, BOB], OKTA, subject, email)) == ([expected] if expected else [])


def test_where_two_entries_could_be_meant_none_is() -> None:
    twin = Row("per_3", user_key="grace", email_key="bob@example.com")
    assert candidates([BOB, twin], OKTA, "other", "bob@example.com") == [BOB, twin], "so the caller takes none"
    assert candidates([BOB, twin], OKTA, "00u2", "bob@example.com") == [BOB]


def test_entra_s_object_id_is_a_subject_within_the_provider_s_own_tenant_only() -> None:
    assert subjects(ENTRA, "oid-1") >= {"oid-1", "tenant-1/oid-1"}
    assert subjects(ENTRA, "") == frozenset()
    entry = Row("per_1", external_id="oid-1")
    assert candidates([entry], ENTRA, "tenant-1/oid-1", "") == [entry]
    assert candidates([entry], ENTRA, "tenant-2/oid-1", "") == []


def test_a_new_entry_means_who_has_signed_in_by_subject_by_the_id_they_had_or_by_address() -> None:
    ada = Row("per_1", subject="00u1", email_key="ada@example.com")
    left = Row("per_2", subject="s2", external_id="00u2")
    assert person_of([ada, left], OKTA, "00u1", ()) is ada
    assert person_of([ada, left], OKTA, "00u2", ()) is left
    assert person_of([ada, left], OKTA, "", {"ada@example.com"}) is ada
    assert person_of([ada, left], OKTA, "", ()) is None


def test_mailboxes_that_differ_by_more_than_case_stay_apart() -> None:
    assert folded("Ada@Example.COM") == "ada@example.com"
    assert folded("stra\u00dfe@example.com") != folded("strasse@example.com")
