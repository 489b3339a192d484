"""Provisioning at a gateway that runs: who is deactivated is out on every replica, and what they run ends."""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.functional.device import Device, Reply, read_to_end
from tests.functional.trial import until
from tests.lab.gateway import USER_BUDGET, Gateway
from tests.lab.loopback import HOST, free_port
from tests.lab.process import run
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.functional.trial import Trial
    from tests.lab.postgres import Postgres
    from tests.lab.scripted import ScriptedBedrock

BUDGET = {"level": "user", "limit_usd": 20, "overshoot_usd": 10}
OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-4-5"


class Provisioner:
    """A directory that writes to a gateway's administrators' listener."""

    def __init__(self, gateway: Gateway) -> None:
        self.port = urlsplit(f"http://{gateway.document['administration']['listen']}").port
        argv: list[str | Path] = [sys.executable, "-m", "llmgw_gateway.main", "keys", "create", gateway.config]
        argv += ["--name", "okta", "--owner", "it", "--scim"]
        done = run(argv, env=gateway.program.env, folder=gateway.folder, seconds=60)
        assert done.exit_code == 0, done.stderr
        self.secret = done.stdout.strip()

    def __call__(self, method: str, path: str, body: Any = None) -> Reply:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            headers = {"authorization": f"Bearer {self.secret}", "content-type": "application/scim+json"}
            connection.request(method, f"/scim/v2{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def made(self, path: str, **attributes: Any) -> str:
        """The id of a new resource; the replica may have to learn of the key first."""
        until(lambda: self("GET", "/Users?count=0").status == 200, "let in")
        reply = self("POST", path, attributes)
        assert reply.status == 201, reply.body
        name: str = reply.json["id"]
        return name

    def set_active(self, person: str, *, active: bool) -> None:
        """As Okta writes it."""
        operation = {"op": "replace", "value": {"active": active}}
        assert self("PATCH", f"/Users/{person}", {"Operations": [operation]}).status == 200


def administered() -> dict[str, Any]:
    """The section that opens the administrators' listener."""
    return {"listen": f"{HOST}:{free_port()}"}


def deactivate_while_it_streams(trial: Trial, sign_in: Callable[[str], str], scripted: ScriptedBedrock) -> None:
    provisioner = Provisioner(trial.gateway)
    person = provisioner.made("/Users", userName="grace@example.com", displayName="Rear Admiral Hopper")
    grace = trial.device("grace")
    assert (grace.me()["person"], grace.me()["name"]) == (person, "Rear Admiral Hopper")
    everywhere = [Device(gateway.url) for gateway in trial.gateways]
    for device in everywhere:
        device.token = grace.token
        until(lambda device=device: device.ask().status == 200, "known there")  # type: ignore[misc] # a loop's variable
    scripted.default = Answer(usage=Usage(100, 400), hold_after=1)
    last = everywhere[-1]  # not the replica that is told
    with last.streaming() as running:
        assert running.status == 200
        begun = time.monotonic()
        provisioner.set_active(person, active=False)
        assert b'"type": "error"' in read_to_end(running)
        print(f"the running answer ended after {time.monotonic() - begun:.1f} s")
    scripted.default = Answer(usage=Usage(100, 400))
    scripted.release_all()
    for device in everywhere:
        until(lambda device=device: device.ask().status == 401, "refused")  # type: ignore[misc] # a loop's variable
    print(f"the last of {len(everywhere)} replicas refused within {time.monotonic() - begun:.1f} s")
    assert trial.ada.ask().status == 200
    refused = grace.try_exchange(sign_in("grace"))
    assert refused.json["code"] == "person_disabled", refused.body
    provisioner.set_active(person, active=True)
    grace.exchange(sign_in("grace"))
    assert grace.ask().status == 200
    rows = trial.sql("SELECT action, object_id FROM changes")
    assert {action for action, name in rows if name == person} == {"person.add", "person.deactivate", "person.activate"}


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_who_is_deactivated_is_out_and_what_they_run_ends(
    begin: Callable[..., Trial],
    sign_in: Callable[[str], str],
    scripted: ScriptedBedrock,
    request: pytest.FixtureRequest,
    store: str,
) -> None:
    server: Postgres | None = request.getfixturevalue("postgres") if store == "postgresql" else None
    url = "" if server is None else server.url(server.database())
    trial = begin(BUDGET, database=url, administration=administered())
    deactivate_while_it_streams(trial, sign_in, scripted)


@pytest.mark.long
def test_who_is_deactivated_is_out_of_every_replica(
    begin: Callable[..., Trial], sign_in: Callable[[str], str], scripted: ScriptedBedrock, postgres: Postgres
) -> None:
    url = postgres.url(postgres.database())
    trial = begin(BUDGET, replicas=2, database=url)
    trial.gateway.document["administration"] = administered()  # the directory is told one replica's address
    trial.gateway.restart()
    deactivate_while_it_streams(trial, sign_in, scripted)


@pytest.mark.configured(
    budgets=[USER_BUDGET, {"level": "team", "limit_usd": 7}],
    teams=[{"name": "research"}],
    policies=[{"teams": ["research"], "models": [OPUS]}, {"models": [SONNET]}],
)
def test_a_team_of_the_directory_is_a_team_to_policies_and_budgets(
    gateway: Gateway, ada: Device, sign_in: Callable[[str], str]
) -> None:
    assert (ada.ask(model=OPUS).status, ada.ask(model=SONNET).status) == (400, 200)
    provisioner = Provisioner(gateway)
    person = provisioner.made("/Users", userName="ada@example.com")
    assert person == ada.me()["person"]  # she had signed in before
    provisioner.made("/Groups", displayName="research", members=[{"value": person}])
    ada.exchange(sign_in("ada"))
    until(lambda: ada.ask(model=OPUS).status == 200, "allowed")
    (of_team,) = [each for each in ada.me()["budgets"] if each["level"] == "team"]
    assert (of_team["limit"], "research" in of_team["name"]) == (7_000_000, True)


def test_no_other_listener_knows_of_it(gateway: Gateway, ada: Device) -> None:
    provisioner = Provisioner(gateway)
    for path in ("/scim/v2", "/scim/v2/Users", "/scim/v2/ServiceProviderConfig"):
        assert ada.request("GET", path).status == 404
        assert ada.request("GET", path, token=provisioner.secret).status == 404
        assert Device(gateway.admin_url).request("GET", path, token=provisioner.secret).status == 404
    until(lambda: provisioner("GET", "/Users").status == 200, "let in")
    assert ada.ask(token=provisioner.secret).status == 401
