"""`GET /v1/me/usage`: everybody sees what they did themselves, and nobody sees anybody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.functional import ledger
from tests.functional.device import Device
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.gateway import Gateway


def test_own_usage_and_nobody_else_s(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, sign_in: Callable[[str], str]
) -> None:
    scripted.default = Answer("Hello.")
    assert ada.ask().status == 200
    assert ada.ask_bedrock().status == 200
    entries = ledger.settled(gateway.db, 2)
    report = ada.request("GET", "/v1/me/usage").json
    assert [period["name"] for period in report["periods"]] == ["today", "week", "month"]
    month = report["periods"][2]
    assert month["total"]["requests"] == 2
    assert month["total"]["cost"] == sum(entry.cost for entry in entries)
    assert sum(line["requests"] for line in month["models"]) == 2
    assert [line["name"] for line in month["projects"]] == [""]

    grace = Device(gateway.url)
    grace.exchange(sign_in("grace"))
    assert {period["total"]["requests"] for period in grace.request("GET", "/v1/me/usage").json["periods"]} == {0}
    assert grace.request("GET", "/v1/me/usage?person=per_ada").json["periods"][2]["total"]["requests"] == 0

    assert grace.request("GET", "/v1/me/usage", token="").status == 401
    assert grace.request("POST", "/v1/me/usage", b"{}").status == 405
