"""Service keys as CI has them: made by a command, good in every dialect, bound by models and budgets, soon ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest

from tests.functional import ledger
from tests.functional.device import Device, read_to_end
from tests.lab.gateway import USER_BUDGET, Gateway
from tests.lab.process import run
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from tests.lab.process import Finished
    from tests.lab.scripted import ScriptedBedrock

OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-4-5"


def command(gateway: Gateway, group: str, verb: str, *words: str) -> Finished:
    argv = [*gateway.command(group)[:-1], verb, gateway.config, *words]
    return run(argv, env=gateway.program.env, folder=gateway.folder, seconds=60)


def made(gateway: Gateway, *words: str) -> tuple[str, Device]:
    """A new key's id, and a machine that has its secret."""
    done = command(gateway, "keys", "create", "--name", "ci", "--owner", "ada", *words)
    assert done.exit_code == 0, done.stderr
    (secret,) = done.stdout.split()
    assert secret not in done.stderr
    machine = Device(gateway.url)
    machine.token = secret
    return done.stderr.split()[0], machine


def listed(gateway: Gateway) -> list[dict[str, Any]]:
    done = command(gateway, "keys", "list", "--format", "json")
    found: list[dict[str, Any]] = json.loads(done.stdout)["keys"]
    return found


@pytest.mark.configured(budgets=[USER_BUDGET, {"level": "key", "limit_usd": 5}])
def test_a_key_asks_in_every_dialect_and_is_charged_and_audited_as_itself(
    gateway: Gateway, scripted: ScriptedBedrock
) -> None:
    key, ci = made(gateway)
    assert [ci.ask().status, ci.ask(stream=True).status, ci.ask_bedrock(stream=True).status] == [200] * 3
    with (
        httpx2.Client(trust_env=False) as plain,
        anthropic.Anthropic(base_url=ci.url, api_key=ci.token, http_client=plain) as client,
    ):
        message: Any = {"role": "user", "content": "x"}
        assert client.messages.create(model="claude-sonnet-5-5", max_tokens=9, messages=[message]).content
    me = ci.me()
    assert (me["person"], me["name"], {each["level"] for each in me["budgets"]}) == (key, "ci", {"user", "key"})
    ledger.settled(gateway.db, 4)
    assert gateway.audited("/v1/messages", person_id=key, status=200)
    done = command(gateway, "budget", "set", "key", key, "--limit", "0", "--reason", "over")
    assert done.exit_code == 0, done.stderr
    assert (ci.ask().status, ci.ask().error["type"]) == (402, "billing_error")
    assert len(scripted.calls) == 4


@pytest.mark.configured(
    teams=[{"name": "research"}],
    policies=[{"teams": ["research"], "models": [OPUS]}, {"models": [SONNET]}],
)
def test_a_key_is_for_its_models_and_never_for_more_than_policies_allow(gateway: Gateway) -> None:
    _, narrow = made(gateway, "--model", SONNET, "--team", "research")
    assert (narrow.ask().status, narrow.me()["models"]) == (200, [SONNET])
    reply = narrow.ask(model=OPUS)
    assert (reply.status, reply.error["code"]) == (400, "model_not_allowed")
    assert "This service key is not for the model" in reply.error["message"]
    _, of_nobody = made(gateway, "--model", OPUS)
    assert of_nobody.ask(model=OPUS).status == 400
    _, of_team = made(gateway, "--team", "research")
    assert of_team.ask(model=OPUS).status == 200


def test_rotation_overlaps_and_a_revoked_key_ends_what_runs(gateway: Gateway, scripted: ScriptedBedrock) -> None:
    key, ci = made(gateway)
    done = command(gateway, "keys", "rotate", key)
    rotated = Device(gateway.url)
    rotated.token = done.stdout.strip()
    assert [ci.ask().status, rotated.ask().status] == [200, 200]
    (shown,) = listed(gateway)
    assert (shown["key"], shown["state"], [each["ended"] for each in shown["secrets"]]) == (key, "good", [False, False])
    scripted.default = Answer(usage=Usage(100, 400), hold_after=1)
    with rotated.streaming() as running:
        assert running.status == 200
        done = command(gateway, "keys", "revoke", key)
        assert (done.exit_code, done.stderr) == (0, "")
        assert b'"type": "error"' in read_to_end(running)
    scripted.release_all()
    for machine in (ci, rotated):
        reply = machine.ask()
        assert (reply.status, reply.error["code"]) == (401, "token_invalid")
        assert "'ci' was revoked" in reply.error["message"]
    assert {entry.outcome for entry in ledger.settled(gateway.db, 3)} == {"ok", "revoked"}
    assert listed(gateway)[0]["state"] == "revoked"
    again = command(gateway, "keys", "revoke", key)
    assert (again.exit_code, "not revoked yet" in again.stderr) == (1, True)
    gateway.restart()
    assert ci.ask().status == 401


def test_whoever_holds_a_secret_can_end_it(gateway: Gateway) -> None:
    key, ci = made(gateway)
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert ci.request("POST", "/oauth/revoke", f"token={ci.token}".encode(), form, token="").status == 200
    assert ci.ask().status == 401
    assert listed(gateway)[0]["secrets"][0]["revoked_by"] == key


def test_a_secret_is_nowhere_but_where_it_was_shown(gateway: Gateway) -> None:
    _, ci = made(gateway)
    assert ci.ask().status == 200
    assert ci.request("GET", f"/v1/models?key={ci.token}", headers={"x-api-key": "other"}).status == 401
    assert gateway.audited("/v1/messages", status=200)
    gateway.terminate()
    kept = [path for path in gateway.folder.rglob("*") if path.is_file()]
    assert {"gateway.db", "audit.jsonl", "gateway.log"} <= {path.name for path in kept}
    assert [path.name for path in kept if ci.token.encode()[9:] in path.read_bytes()] == []
    gateway.start()
