"""The requests that were made: each sees what they may, in pages, by what they ask for; and usage in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from llmgw_gateway.money.posting import PAYER
from llmgw_gateway.store.schema import ledger, payers
from llmgw_gateway.store.upsert import insert_if_absent
from tests.gateway.admin.office import MEMBER, OUTSIDER

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tests.gateway.admin.office import Office

A = "/admin/v1"
DAY = 86_400_000
NOON = 1_795_000_000_000
"""2026-11-18, a little after noon in UTC."""
SPAN = "since=2026-11-01&until=2026-11-30"
PEOPLE = ((MEMBER, "payments"), (OUTSIDER, "research"), ("per_developer", ""), ("key_admin", ""))


def entry(number: int, person: str, team: str, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"attempt_id": f"att_{number:03}", "kind": "settlement", "operation_id": f"req_{number:03}"}
    row |= {"person_id": person, "access_key": "dev", "team": team, "project": "", "target": "t"}
    row |= {"model": "sonnet", "price_version": "1", "admitted_at": NOON - number * 60_000, "counters": "[]"}
    row |= {"input_tokens": 10}
    row |= dict.fromkeys(("output_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens"), 0)
    row |= {"cost": 7, "tokens": 10, "weighted_tokens": 10, "estimated": False, "outcome": "ok", "settled_at": NOON}
    return row | more


async def write(office: Office, *rows: dict[str, Any]) -> None:
    def run(connection: Connection, batch: list[None]) -> list[None]:
        for row in rows:
            payer = {name: row[name] for name in PAYER}
            insert_if_absent(connection, payers, payer)
            named = [payers.c[name] == value for name, value in payer.items()]
            mine = {name: value for name, value in row.items() if name not in PAYER}
            mine["payer_id"] = connection.scalar(select(payers.c.payer_id).where(*named))
            connection.execute(insert(ledger).values(mine | {"day": row["admitted_at"] // DAY}))
        return batch

    await office.database.submit(run, None)


async def asked(office: Office, principal: str, query: str = SPAN) -> list[dict[str, Any]]:
    reply = await office.ask(principal, "GET", f"{A}/requests?{query}")
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json["requests"]
    return found


async def test_everybody_sees_their_own_a_lead_their_team_s_and_who_administers_all(office: Office) -> None:
    await write(office, *(entry(number, *who) for number, who in enumerate(PEOPLE)))
    everybody = [person for person, _ in PEOPLE]
    for principal, seen in (
        ("admin", everybody),
        ("auditor", everybody),
        ("key_admin", everybody),
        ("lead", [MEMBER]),
        ("developer", ["per_developer"]),
        ("service", []),
    ):
        assert [each["person"] for each in await asked(office, principal)] == seen, principal
        others = await asked(office, principal, f"{SPAN}&person={OUTSIDER}")
        assert [each["person"] for each in others] == [each for each in seen if each == OUTSIDER], principal
    (mine,) = await asked(office, "developer")
    assert (mine["name"], mine["email"]) == ("Developer", "developer@example.com")


async def test_who_led_a_team_once_sees_nothing_of_it(office: Office) -> None:
    await write(office, entry(0, MEMBER, "payments"))
    more = {"holder": "per_developer", "role": "team_lead", "team": "payments"}
    made = (await office.ask("admin", "POST", f"{A}/roles", more)).json
    assert len(await asked(office, "developer")) == 1
    await office.ask("admin", "DELETE", f"{A}/roles/{made['grant']}")
    assert await asked(office, "developer") == []


async def test_it_is_asked_by_person_team_model_outcome_and_time(office: Office) -> None:
    await write(
        office,
        entry(0, MEMBER, "payments"),
        entry(1, MEMBER, "payments", model="opus", outcome="guardrail_intervened"),
        entry(2, OUTSIDER, "research", admitted_at=NOON - 3 * DAY),
        entry(3, OUTSIDER, "research", attempt_id="alw_1"),  # set aside, and no call
    )
    for query, found in (
        ("", ["req_000", "req_001", "req_002"]),
        (f"&person={MEMBER}", ["req_000", "req_001"]),
        ("&team=research", ["req_002"]),
        ("&model=opus", ["req_001"]),
        ("&outcome=ok", ["req_000", "req_002"]),
    ):
        assert [each["request"] for each in await asked(office, "admin", SPAN + query)] == found, query
    one_day = await asked(office, "admin", "since=2026-11-18&until=2026-11-18")
    assert [each["request"] for each in one_day] == ["req_000", "req_001"]
    # Without days the last seven, and a year is not looked through.
    assert await asked(office, "admin", "until=2026-11-30") == []
    for wrong in ("since=2026-01-01&until=2026-11-30", "since=2026-11-02&until=2026-11-01", "cursor=x", "cursor=1"):
        assert (await office.ask("admin", "GET", f"{A}/requests?{wrong}")).status == 400, wrong


async def test_a_correction_belongs_to_its_attempt(office: Office) -> None:
    unknown = entry(0, MEMBER, "payments", estimated=True, outcome="lease_expired", cost=100, input_tokens=0)
    truth = entry(0, MEMBER, "payments", kind="correction", cost=-40, input_tokens=9, outcome="ok")
    await write(office, unknown, truth)
    (row,) = await asked(office, "admin")
    assert (row["cost"], row["input_tokens"], row["estimated"], row["outcome"]) == (60, 9, False, "ok")


async def test_pages_have_every_row_once_also_of_one_moment(office: Office) -> None:
    await write(office, *(entry(number, MEMBER, "payments", admitted_at=NOON) for number in range(7)))
    seen: list[str] = []
    cursor: str | None = ""
    for _ in range(3):
        page = (await office.ask("admin", "GET", f"{A}/requests?{SPAN}&limit=3&cursor={cursor}")).json
        seen += [each["request"] for each in page["requests"]]
        cursor = page["next"]
    assert cursor is None
    assert seen == [f"req_{number:03}" for number in reversed(range(7))]


async def test_usage_comes_in_pages_and_its_total_is_of_all(office: Office) -> None:
    await write(office, *(entry(number, f"per_{number}", "payments", cost=number) for number in range(5)))
    whole = (await office.ask("admin", "GET", f"{A}/usage?by=user")).json
    assert (len(whole["lines"]), whole["next"], whole["total"]["cost"]) == (5, None, 10)
    first = (await office.ask("admin", "GET", f"{A}/usage?by=user&limit=2")).json
    assert ([each["cost"] for each in first["lines"]], first["next"], first["total"]["cost"]) == ([4, 3], "2", 10)
    last = (await office.ask("admin", "GET", f"{A}/usage?by=user&limit=2&cursor=4")).json
    assert ([each["cost"] for each in last["lines"]], last["next"]) == ([0], None)
    assert (await office.ask("admin", "GET", f"{A}/usage?by=user&cursor=-1")).status == 400
