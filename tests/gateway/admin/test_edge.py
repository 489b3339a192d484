"""The front door of the Admin API: one kind of credential, bounded requests, repeats that change nothing more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway.admin import openapi
from tests.gateway.admin.office import MEMBER, PRINCIPALS, Office

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

A = "/admin/v1"
KEY = {"name": "ci", "owner": "ada", "team": "payments"}


@pytest.fixture
async def one(database: Database, tmp_path: Path) -> AsyncIterator[Office]:
    """On one kind of store: what is tried here does not reach it."""
    office = Office(database, tmp_path)
    await office.open()
    yield office
    await office.close()


async def test_only_a_bearer_token_is_a_credential(one: Office) -> None:
    token = one.token("admin")
    for headers in (
        {"x-api-key": token},
        {"cookie": f"token={token}"},
        {"authorization": f"Basic {token}"},
        {"authorization": f"Bearer {token}", "x-api-key": token},
        {"authorization": f"Bearer {token}x"},
        {"authorization": "Bearer llmgw_sk_unknown"},
        {"authorization": "Bearer ä"},
    ):
        reply = await one.ask("nobody", "GET", f"{A}/me", headers=headers)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), headers
    assert (await one.ask("admin", "GET", f"{A}/me")).status == 200


async def test_no_page_of_another_origin_gets_in(one: Office) -> None:
    origin = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    preflight = await one.ask("nobody", "OPTIONS", f"{A}/me", headers=origin)
    asked = await one.ask("admin", "GET", f"{A}/me", headers=origin)
    assert preflight.status == 405
    for reply in (preflight, asked):
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert "set-cookie" not in reply.headers
        assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics", 404),
        ("GET", "/v1/me", 404),
        ("GET", f"{A}/", 404),
        ("GET", f"{A}/people/", 404),
        ("GET", f"{A}//people", 404),
        ("GET", f"{A}/people/per_member/", 404),
        ("GET", f"{A}/people/..%2froles", 404),
        ("GET", f"{A}/people/%00", 404),
        ("GET", f"{A}/people/{'x' * 300}", 404),
        ("PUT", f"{A}/people", 405),
        ("DELETE", f"{A}/people/per_member", 405),
        ("GET", f"{A}/people?limit=0", 400),
        ("GET", f"{A}/people?limit=201", 400),
        ("GET", f"{A}/people?limit=ten", 400),
        ("GET", f"{A}/people?limit=1&limit=2", 400),
        ("GET", f"{A}/people?unknown=1", 400),
        ("GET", f"{A}/people?search=%00", 400),
        ("GET", f"{A}/people?search=a%0a", 400),
        ("GET", f"{A}/people?search={'x' * 201}", 400),
        ("GET", f"{A}/people?search={'x' * 5000}", 400),
        ("GET", f"{A}/people?&&", 400),
        ("GET", f"{A}/budgets?level=null", 400),
        ("GET", f"{A}/changes?cursor=x", 400),
        ("GET", f"{A}/changes?cursor=99999999999999999999.x", 400),
        ("GET", f"{A}/usage", 400),
        ("GET", f"{A}/usage?by=user&since=0001-01-01", 400),
        ("GET", f"{A}/usage?by=user&since=2026-02-02&until=2026-02-01", 400),
        ("GET", f"{A}/policies/explain?person=per_member&model=nothing", 400),
        ("POST", f"{A}/keys?x=1", 400),
    ],
)
async def test_what_is_malformed_is_refused_in_words(one: Office, method: str, path: str, status: int) -> None:
    reply = await one.ask("admin", method, path, KEY if method == "POST" else None)
    assert reply.status == status
    assert reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'{"name": "ci"}', "application/json"),
        (json.dumps(KEY | {"more": 1}).encode(), "application/json"),
        (json.dumps(KEY | {"days": 0}).encode(), "application/json"),
        (json.dumps(KEY | {"name": "a\nb"}).encode(), "application/json"),
        (json.dumps(KEY | {"models": []}).encode(), "application/json"),
        (json.dumps(KEY | {"models": ["nothing"]}).encode(), "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"[" * 10_000, "application/json"),
        (b" " * (64 * 1024 + 1), "application/json"),
        (json.dumps(KEY).encode(), "text/plain"),
        (json.dumps(KEY).encode(), "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_is_not_what_the_document_says_is_refused(one: Office, body: bytes, kind: str) -> None:
    reply = await one.ask("admin", "POST", f"{A}/keys", headers={"content-type": kind}, raw=body)
    assert reply.status == 400
    assert len((await one.ask("admin", "GET", f"{A}/keys?limit=200")).json["keys"]) == 2 * len(PRINCIPALS) + 3


async def test_grants_end_in_the_future_and_only_grants_end(one: Office) -> None:
    grant = {"budget": f"user/{MEMBER}//month/usd", "kind": "grant", "amount": 1, "reason": "x"}
    for ends in (None, "2020-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2099-01-01T00:00:00"):
        assert (await one.ask("admin", "POST", f"{A}/adjustments", grant | {"ends_at": ends})).status == 400
    limit = grant | {"kind": "limit", "ends_at": "2099-01-01T00:00:00Z"}
    assert (await one.ask("admin", "POST", f"{A}/adjustments", limit)).status == 400
    lead = {"holder": MEMBER, "role": "team_lead"}
    assert (await one.ask("admin", "POST", f"{A}/roles", lead)).status == 400
    assert (await one.ask("admin", "POST", f"{A}/roles", lead | {"team": "nobody"})).status == 404
    assert (await one.ask("admin", "POST", f"{A}/roles", {"holder": "per_none", "role": "admin"})).status == 404


async def test_a_request_that_is_repeated_under_its_key_is_done_once(office: Office, column: Column) -> None:
    once = {"idempotency-key": "deploy-7"}
    first = await office.ask("admin", "POST", f"{A}/keys", KEY, once)
    again = await office.ask("admin", "POST", f"{A}/keys", KEY, once)
    assert first.json["secret"].startswith("llmgw_sk_")
    assert (again.json["key"]["key"], again.json["secret"]) == (first.json["key"]["key"], None)
    key = first.json["key"]["key"]
    for path, body in (
        (f"{A}/keys/{key}/rotate", {}),
        (f"{A}/roles", {"holder": MEMBER, "role": "auditor"}),
        (f"{A}/adjustments", {"budget": f"user/{MEMBER}//month/usd", "kind": "limit", "amount": 1, "reason": "x"}),
        (f"{A}/people/{MEMBER}/disable", None),
    ):
        replies = [await office.ask("admin", "POST", path, body, once) for _ in range(2)]
        assert [each.status for each in replies] == [200, 200], path
    deleted = [await office.ask("admin", "DELETE", f"{A}/keys/{key}", headers=once) for _ in range(2)]
    assert [each.status for each in deleted] == [200, 200]
    rows = column.sql("SELECT action FROM changes WHERE outcome = 'allowed'")
    assert sorted(row[0] for row in rows) == [
        "budget.limit",
        "key.create",
        "key.revoke",
        "key.rotate",
        "person.disable",
        "role.grant",
    ]
    other = await office.ask("auditor", "POST", f"{A}/keys", KEY, once)
    assert other.status == 403, "the key is the caller's own"
    bad = await office.ask("admin", "POST", f"{A}/keys", KEY, {"idempotency-key": "a b"})
    assert bad.status == 400


async def test_lists_come_in_pages_that_make_the_whole(office: Office) -> None:
    for path, name, part in (("people", "people", "person"), ("keys", "keys", "key"), ("roles", "granted", "grant")):
        whole = (await office.ask("admin", "GET", f"{A}/{path}?limit=200")).json
        assert whole["next"] is None
        assert [each[part] for each in await pages(office, f"{A}/{path}", name)] == [e[part] for e in whole[name]], path
    for number in range(5):
        await office.ask("developer", "DELETE", f"{A}/roles/rol_{number}")
    found = await pages(office, f"{A}/changes", "changes")
    assert found == (await office.ask("admin", "GET", f"{A}/changes")).json["changes"]
    assert [each["at"] for each in found] == sorted((each["at"] for each in found), reverse=True)
    assert {each["id"] for each in found} == {f"rol_{number}" for number in range(5)}


async def pages(office: Office, path: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await office.ask("admin", "GET", f"{path}?limit=3&cursor={cursor}")).json
        assert len(page[name]) <= 3
        found += page[name]
        if page["next"] is None:
            return found
        cursor = page["next"]


async def test_people_are_searched_and_shown(one: Office) -> None:
    found = (await one.ask("admin", "GET", f"{A}/people?search=MEMB")).json["people"]
    assert [(each["person"], each["team"]) for each in found] == [(MEMBER, "payments")]
    shown = (await one.ask("lead", "GET", f"{A}/people/{MEMBER}")).json
    assert [each["session"] for each in shown["sessions"]] == ["ses_member"]
    ended = (await one.ask("admin", "POST", f"{A}/people/{MEMBER}/disable")).json
    assert ended == {"person": MEMBER, "disabled": True, "sessions_ended": 1}
    assert (await one.ask("member", "GET", f"{A}/me")).status == 401
    enabled = (await one.ask("admin", "POST", f"{A}/people/{MEMBER}/enable")).json
    assert enabled == {"person": MEMBER, "disabled": False, "sessions_ended": 0}


async def test_too_many_questions_are_refused_before_the_store_is_asked(one: Office) -> None:
    one.parts.rates.refusing = True
    reply = await one.ask("admin", "GET", f"{A}/me")
    assert (reply.status, reply.headers["retry-after"]) == (429, "7")


async def test_the_document_is_served_to_everybody(one: Office) -> None:
    reply = await one.ask("nobody", "GET", f"{A}/openapi.json")
    assert (reply.status, reply.body) == (200, openapi.document())


async def test_every_request_is_in_the_audit_trail(one: Office) -> None:
    await one.ask("developer", "GET", f"{A}/roles")
    await one.ask("nobody", "GET", f"{A}/roles")
    one.settle_audit()
    records = [json.loads(line) for line in one.audit_file.read_text().splitlines()]
    lines = [each for each in records if "request_id" in each]
    assert [(each["person_id"], each["status"], each["code"]) for each in lines] == [
        ("per_developer", 403, "role_required"),
        ("", 401, "credential_missing"),
    ]
