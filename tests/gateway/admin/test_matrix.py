"""Who may do what at the Admin API: role by endpoint by owner of the object, in one table.

A new endpoint without a row fails; so does one that anybody else may use. Every refusal and every change leaves a row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmgw_gateway.admin.table import ROUTES
from tests.gateway.admin.office import HOME, MEMBER, OUTSIDER, PRINCIPALS

if TYPE_CHECKING:
    from tests.gateway.admin.office import Office
    from tests.gateway.columns import Column

UNTIL = "2099-01-01T00:00:00Z"
ME = "{me}"
"""Stands for the principal: who ends something ends one of their own."""


@dataclass(frozen=True)
class Row:
    """One request, and the status for each of PRINCIPALS in turn."""

    method: str
    path: str
    statuses: str
    body: Any = None

    @property
    def expected(self) -> dict[str, int]:
        return dict(zip(PRINCIPALS, map(int, self.statuses.split()), strict=True))


def grant(person: str) -> dict[str, Any]:
    return {"budget": f"user/{person}//month/usd", "kind": "grant", "amount": 5, "reason": "release", "ends_at": UNTIL}


def limit(budget: str) -> dict[str, Any]:
    return {"budget": budget, "kind": "limit", "amount": 5, "reason": "less"}


A = "/admin/v1"
#          admin auditor lead developer service key_admin nobody
ALL = "    200   200     200  200       200     200       401"
READ = "   200   200     200  403       403     200       401"
UNSEEN = " 200   200     404  403       403     200       401"
SEE_ALL = "200   200     403  403       403     200       401"
CHANGE = " 200   403     403  403       403     200       401"
LEAD = "   200   403     200  403       403     200       401"
HIDDEN = " 200   403     404  403       403     200       401"
KEYLESS = "200   403     403  403       403     403       401"
DENIED = " 200   403     403  403       403     200       401"

TABLE = [
    Row("GET", f"{A}/me", ALL),
    # A code that is not good: refused to whoever brings it, and to a key whatever it brings.
    Row("POST", f"{A}/first-administrator", "403 403 403 403 403 403 401", {"code": "guess"}),
    Row("GET", f"{A}/people", READ),
    Row("GET", f"{A}/people?team=research", READ),
    Row("GET", f"{A}/people/{MEMBER}", READ),
    Row("GET", f"{A}/people/{OUTSIDER}", UNSEEN),
    Row("GET", f"{A}/people/per_nobody", "404 404 404 403 403 404 401"),
    Row("POST", f"{A}/people/{MEMBER}/revoke", CHANGE),
    Row("POST", f"{A}/people/{OUTSIDER}/revoke", CHANGE),
    Row("POST", f"{A}/people/{MEMBER}/disable", CHANGE),
    Row("POST", f"{A}/people/{OUTSIDER}/disable", CHANGE),
    Row("POST", f"{A}/people/{MEMBER}/enable", CHANGE),
    Row("POST", f"{A}/people/{OUTSIDER}/enable", CHANGE),
    Row("GET", f"{A}/teams", READ),
    Row("GET", f"{A}/teams/payments", READ),
    Row("GET", f"{A}/teams/research", UNSEEN),
    Row("GET", f"{A}/roles", SEE_ALL),
    Row("POST", f"{A}/roles", KEYLESS, {"holder": MEMBER, "role": "auditor"}),
    Row("POST", f"{A}/roles", KEYLESS, {"holder": OUTSIDER, "role": "team_lead", "team": "research"}),
    Row("DELETE", f"{A}/roles/rol_{ME}", KEYLESS),
    Row("GET", f"{A}/budgets", READ),
    Row("GET", f"{A}/adjustments", READ),
    Row("POST", f"{A}/adjustments", LEAD, grant(MEMBER)),
    Row("POST", f"{A}/adjustments", HIDDEN, grant(OUTSIDER)),
    Row("POST", f"{A}/adjustments", DENIED, grant("per_lead")),
    Row("POST", f"{A}/adjustments", DENIED, limit(f"user/{MEMBER}//month/usd")),
    Row("POST", f"{A}/adjustments", DENIED, limit("team/payments//month/usd")),
    Row("POST", f"{A}/adjustments", HIDDEN, limit("team/research//month/usd")),
    Row("DELETE", f"{A}/adjustments/adj_{ME}_{MEMBER}", LEAD),
    Row("DELETE", f"{A}/adjustments/adj_auditor_{OUTSIDER}", "200 403 404 403 403 404 401"),
    Row("GET", f"{A}/keys", READ),
    Row("GET", f"{A}/keys/mine_admin", READ),
    Row("GET", f"{A}/keys/theirs_admin", UNSEEN),
    Row("POST", f"{A}/keys", LEAD, {"name": "ci", "owner": "ada", "team": "payments"}),
    Row("POST", f"{A}/keys", DENIED, {"name": "ci", "owner": "ada", "team": "research"}),
    Row("POST", f"{A}/keys", DENIED, {"name": "ci", "owner": "ada"}),
    Row("POST", f"{A}/keys/mine_{ME}/rotate", LEAD, {}),
    Row("POST", f"{A}/keys/theirs_{ME}/rotate", HIDDEN, {}),
    Row("POST", f"{A}/keys/key_admin/rotate", "200 403 404 403 403 403 401", {}),
    Row("POST", f"{A}/keys/key_scim/rotate", "200 403 404 403 403 403 401", {}),
    Row("DELETE", f"{A}/keys/mine_{ME}", LEAD),
    Row("DELETE", f"{A}/keys/theirs_{ME}", HIDDEN),
    Row("GET", f"{A}/policies", SEE_ALL),
    Row("GET", f"{A}/policies/explain?person={MEMBER}&model=claude-sonnet-4-5", READ),
    Row("GET", f"{A}/policies/explain?person={OUTSIDER}&model=claude-sonnet-4-5", UNSEEN),
    Row("GET", f"{A}/usage?by=user", READ),
    Row("GET", f"{A}/requests", ALL),
    Row("GET", f"{A}/requests?person={OUTSIDER}&since=2026-11-01&until=2026-11-30", ALL),
    Row("GET", f"{A}/changes", SEE_ALL),
    Row("GET", f"{A}/configuration", SEE_ALL),
]


def test_every_endpoint_has_a_row() -> None:
    missing = [
        f"{route.method} {route.path}"
        for route in ROUTES
        if not any(
            row.method == route.method and route.match(row.path.partition("?")[0].split("/")) is not None
            for row in TABLE
        )
    ]
    assert not missing


async def test_everybody_may_do_what_the_table_says_and_nothing_else(office: Office, column: Column) -> None:
    wrong = []
    denied = changed = 0
    for row in TABLE:
        for principal, expected in row.expected.items():
            reply = await office.ask(principal, row.method, row.path.replace(ME, principal), row.body)
            if reply.status != expected:
                wrong.append(f"{principal}: {row.method} {row.path}: {reply.status}, not {expected}: {reply.body!r}")
            denied += reply.status == 403 or (reply.status == 404 and principal == "lead")
            changed += reply.status == 200 and row.method != "GET"
    assert not wrong, "\n".join(wrong)
    outcomes = Counter(row[0] for row in column.sql("SELECT outcome FROM changes"))
    assert (outcomes["denied"], outcomes["allowed"]) == (denied, changed)


async def test_a_team_lead_sees_their_team_in_every_list_and_nobody_else(office: Office) -> None:
    people = (await office.ask("lead", "GET", f"{A}/people?limit=200")).json["people"]
    assert {each["person"] for each in people} == {"per_lead", MEMBER}
    assert (await office.ask("lead", "GET", f"{A}/people?team=research")).json["people"] == []
    teams = (await office.ask("lead", "GET", f"{A}/teams")).json["teams"]
    assert [each["team"] for each in teams] == ["payments"]
    keys = (await office.ask("lead", "GET", f"{A}/keys?limit=200")).json["keys"]
    assert {each["team"] for each in keys} == {"payments"}
    assert len(keys) == len(PRINCIPALS) + 1
    budgets = (await office.ask("lead", "GET", f"{A}/budgets?limit=200")).json["budgets"]
    assert {each["budget"] for each in budgets} == {
        "team/payments//month/usd",
        "user/per_lead//month/usd",
        f"user/{MEMBER}//month/usd",
    }
    found = (await office.ask("lead", "GET", f"{A}/adjustments?limit=200")).json["adjustments"]
    assert {each["budget"] for each in found} == {f"user/{MEMBER}//month/usd"}


async def test_an_auditor_who_leads_a_team_sees_everything_and_changes_their_own_team_only(office: Office) -> None:
    more = {"holder": "per_auditor", "role": "team_lead", "team": "payments"}
    assert (await office.ask("admin", "POST", f"{A}/roles", more)).status == 200
    asked = {
        ("GET", f"{A}/people/{OUTSIDER}", None): 200,
        ("GET", f"{A}/keys/theirs_auditor", None): 200,
        ("POST", f"{A}/adjustments", "grant"): 200,
        ("POST", f"{A}/adjustments", "theirs"): 404,
        ("POST", f"{A}/adjustments", "limit"): 403,
        ("POST", f"{A}/keys", "key"): 403,
        ("POST", f"{A}/keys/theirs_auditor/rotate", "rotation"): 404,
        ("DELETE", f"{A}/keys/theirs_auditor", None): 404,
        ("DELETE", f"{A}/adjustments/adj_admin_{OUTSIDER}", None): 404,
    }
    bodies = {
        "grant": grant(MEMBER),
        "theirs": grant(OUTSIDER),
        "limit": limit("team/payments//month/usd"),
        "key": {"name": "ci", "owner": "ada"},
        "rotation": {},
    }
    found = {
        (method, path, body): (await office.ask("auditor", method, path, bodies[body] if body else None)).status
        for method, path, body in asked
    }
    assert found == asked
    made = (await office.ask("auditor", "GET", f"{A}/changes?outcome=allowed&actor=per_auditor")).json["changes"]
    assert [(each["action"], each["role"]) for each in made] == [("budget.grant", "team_lead")]


async def test_a_role_that_is_taken_away_is_gone_with_the_next_request(office: Office) -> None:
    assert (await office.ask("key_admin", "GET", f"{A}/changes")).status == 200
    assert (await office.ask("admin", "DELETE", f"{A}/roles/rol_key")).status == 200
    assert (await office.ask("key_admin", "GET", f"{A}/changes")).status == 403
    assert (await office.ask("key_admin", "GET", f"{A}/me")).json["role"] == "service"


async def test_whoever_is_disabled_administers_nothing_from_that_moment(office: Office) -> None:
    made = (await office.ask("admin", "POST", f"{A}/roles", {"holder": OUTSIDER, "role": "admin"})).json
    assert (made["role"], made["ends_at"]) == ("admin", None)
    assert (await office.ask("outsider", "GET", f"{A}/roles")).status == 200
    assert (await office.ask("outsider", "POST", f"{A}/people/per_admin/disable")).status == 200
    refused = await office.ask("admin", "GET", f"{A}/me")
    assert (refused.status, refused.code) == (401, "token_invalid")


async def test_nobody_grants_a_role_to_themselves(office: Office) -> None:
    reply = await office.ask("admin", "POST", f"{A}/roles", {"holder": "per_admin", "role": "auditor"})
    assert (reply.status, reply.code) == (403, "role_required")


async def test_what_was_denied_names_whom_and_what_and_no_free_text(office: Office) -> None:
    body = {"name": "Ada's key", "owner": "ada@example.com", "team": "research"}
    await office.ask("lead", "POST", f"{A}/keys", body)
    await office.ask("developer", "POST", f"{A}/people/{MEMBER}/disable")
    await office.ask("developer", "GET", f"{A}/people/ada@example.com")
    await office.ask("developer", "GET", f"{A}/policies/explain?person={MEMBER}&model=ada%40example.com")
    await office.ask("developer", "POST", f"{A}/adjustments", grant("ada@example.com"))
    found = (await office.ask("auditor", "GET", f"{A}/changes?outcome=denied")).json["changes"]
    assert {(each["actor"], each["role"], each["action"], each["id"]) for each in found} == {
        ("per_lead", "team_lead", "key.create", ""),
        ("per_developer", "developer", "person.disable", MEMBER),
        ("per_developer", "developer", "person.show", "(no id)"),
        ("per_developer", "developer", "policy.explain", MEMBER),
        ("per_developer", "developer", "budget.adjust", "(no id)"),
    }
    assert not [text for text in ("Ada's", "example.com") if text in str(found)]
    assert all(each["request_id"].startswith("req_") for each in found)


async def test_a_key_that_writes_a_directory_says_so(office: Office) -> None:
    keys = (await office.ask("auditor", "GET", f"{A}/keys?limit=200")).json["keys"]
    assert {each["key"] for each in keys if each["directory"]} == {"key_scim"}
    assert (await office.ask("admin", "GET", f"{A}/keys/key_scim")).json["directory"] == HOME
