"""From nobody to the first administrator, and what administrators do while the gateway runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.functional import ledger
from tests.functional.device import Device, Reply, read_to_end
from tests.functional.test_service_keys import command, made
from tests.lab.process import run
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.gateway import Gateway
    from tests.lab.process import Finished
    from tests.lab.scripted import ScriptedBedrock

A = "/admin/v1"


def ask(gateway: Gateway, device: Device, method: str, path: str, body: Any = None) -> Reply:
    """A request to the Admin API with a device's token."""
    api = Device(gateway.api_url)
    data = None if body is None else json.dumps(body).encode()
    return api.request(method, f"{A}{path}", data, token=device.token)


def test_a_code_makes_the_first_administrator_who_appoints_the_next(
    gateway: Gateway, ada: Device, sign_in: Callable[[str], str]
) -> None:
    assert ask(gateway, ada, "GET", "/people").status == 403
    code = init(gateway)
    assert ask(gateway, ada, "POST", "/first-administrator", {"code": code[:-1] + "x"}).status == 403
    assert ask(gateway, ada, "POST", "/first-administrator", {"code": code}).status == 200
    assert ask(gateway, ada, "GET", "/me").json["role"] == "admin"
    grace = Device(gateway.url)
    grace.exchange(sign_in("grace"))
    assert ask(gateway, grace, "POST", "/first-administrator", {"code": code}).status == 403
    person = grace.me()["person"]
    granted = ask(gateway, ada, "POST", "/roles", {"holder": person, "role": "auditor"}).json
    assert ask(gateway, grace, "GET", "/people").status == 200
    listed = json.loads(command(gateway, "roles", "list", "--format", "json").stdout)["granted"]
    assert {(each["holder"], each["role"], each["in_force"]) for each in listed} == {
        (person, "auditor", True),
        (ada.me()["person"], "admin", True),
    }
    done = command(gateway, "roles", "revoke", granted["grant"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert ask(gateway, grace, "GET", "/people").status == 403
    rows = ask(gateway, ada, "GET", "/changes?limit=200").json["changes"]
    assert [each["action"] for each in rows if each["outcome"] == "allowed"] == [
        "role.revoke",
        "role.grant",
        "setup_code.redeem",
        "setup_code.create",
    ]
    assert code not in json.dumps(rows)
    assert code not in gateway.log.read_text(encoding="utf-8")


def begin(gateway: Gateway, *words: str) -> Finished:
    return run([*gateway.command("init"), *words], env=gateway.program.env, folder=gateway.folder, seconds=60)


def init(gateway: Gateway) -> str:
    done = begin(gateway, "--minutes", "5")
    assert done.exit_code == 0, done.stderr
    assert "Good once, until" in done.stderr
    return done.stdout.strip()


def test_an_administrator_named_by_subject_changes_what_calls_meet(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, sign_in: Callable[[str], str]
) -> None:
    issuer = gateway.document["issuers"][0]["issuer"]
    gateway.document["roles"] = [{"role": "admin", "issuer": issuer, "subjects": ["ada"]}]
    gateway.document["teams"] = [{"name": "analysts", "groups": ["analysts"]}]
    gateway.restart()
    assert "no code is needed" in begin(gateway).stderr
    grace = Device(gateway.url)
    grace.exchange(sign_in("grace"))
    person = grace.me()["person"]
    found = ask(gateway, ada, "GET", "/people?search=hopper").json["people"]
    assert [each["person"] for each in found] == [person]
    # A limit of nothing, and what is refused for it.
    budget = next(
        each["budget"]
        for each in ask(gateway, ada, "GET", "/budgets?level=user").json["budgets"]
        if each["budget"].startswith(f"user/{person}/")
    )
    body = {"budget": budget, "kind": "limit", "amount": 0, "reason": "over"}
    adjustment = ask(gateway, ada, "POST", "/adjustments", body).json
    assert grace.ask().status == 402
    assert ask(gateway, ada, "DELETE", f"/adjustments/{adjustment['adjustment']}").status == 200
    # A key that is made here asks at once, and ends with what it runs.
    key = ask(gateway, ada, "POST", "/keys", {"name": "ci", "owner": "ada", "team": "analysts"}).json
    machine = Device(gateway.url)
    machine.token = key["secret"]
    assert machine.ask().status == 200
    # Whoever is disabled is out, in the middle of an answer.
    scripted.default = Answer(usage=Usage(100, 400), hold_after=1)
    with grace.streaming() as running:
        assert running.status == 200
        assert ask(gateway, ada, "POST", f"/people/{person}/disable").json["sessions_ended"] == 1
        assert b'"type": "error"' in read_to_end(running)
    scripted.release_all()
    assert grace.ask().status == 401
    ledger.settled(gateway.db, 2)
    usage = ask(gateway, ada, "GET", "/usage?by=team").json["lines"]
    assert {each["of"]["team"]: each["operations"] for each in usage} == {"": 1, "analysts": 1}


def test_a_machine_may_administer_but_never_appoint(gateway: Gateway) -> None:
    key, machine = made(gateway)
    done = command(gateway, "roles", "grant", key, "admin", "--until", "2099-12-31")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "is admin until 2100-01-01" in done.stdout
    assert ask(gateway, machine, "GET", "/people").status == 200
    assert ask(gateway, machine, "POST", "/roles", {"holder": key, "role": "admin"}).status == 403
    assert "there is an administrator already" in begin(gateway).stderr
    assert "admin" in command(gateway, "roles", "list").stdout


def test_the_api_is_nowhere_but_on_its_own_listener(gateway: Gateway, ada: Device) -> None:
    for url in (gateway.url, gateway.admin_url):
        reply = Device(url).request("GET", f"{A}/me", token=ada.token)
        assert reply.status == 404
    for path in ("/v1/messages", "/v1/me", "/metrics", "/readyz", "/oauth/token"):
        assert Device(gateway.api_url).request("GET", path, token=ada.token).status == 404


def test_a_configuration_that_gives_a_role_is_taken_into_use_while_it_runs(gateway: Gateway, ada: Device) -> None:
    assert ask(gateway, ada, "GET", "/configuration").status == 403
    issuer = gateway.document["issuers"][0]["issuer"]
    gateway.document["roles"] = [{"role": "auditor", "issuer": issuer, "groups": ["analysts"]}]
    gateway.prepare()
    gateway.program.wait_until(lambda: ask(gateway, ada, "GET", "/configuration").status == 200, "the role is in force")
    assert ask(gateway, ada, "POST", "/people/per_x/disable").status == 403
