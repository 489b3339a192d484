"""Taking access away from one person by commands, while the gateway runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.functional import ledger
from tests.functional.device import Device, read_to_end
from tests.functional.test_service_keys import command
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.gateway import Gateway
    from tests.lab.scripted import ScriptedBedrock


def test_a_disabled_person_is_refused_at_once_and_a_running_answer_ends(
    gateway: Gateway, scripted: ScriptedBedrock, ada: Device, sign_in: Callable[[str], str]
) -> None:
    (listed,) = json.loads(command(gateway, "people", "list", "--format", "json").stdout)["people"]
    person, email = listed["person"], listed["email"]
    scripted.default = Answer(usage=Usage(100, 400), hold_after=1)
    with ada.streaming() as running:
        assert running.status == 200
        done = command(gateway, "people", "disable", email)
        assert (done.exit_code, done.stderr) == (0, "")
        assert f"{person} is disabled, 1 session ended" in done.stdout
        assert b'"type": "error"' in read_to_end(running)
    scripted.release_all()
    assert (ada.ask().status, ada.ask().error["code"]) == (401, "token_invalid")
    again = Device(gateway.url)
    assert again.try_exchange(sign_in("ada")).json["code"] == "person_disabled"
    shown = json.loads(command(gateway, "people", "show", person, "--format", "json").stdout)
    assert (shown["state"][:8], shown["sessions"]) == ("disabled", [])
    assert "disabled since" in command(gateway, "people", "show", person).stdout
    assert command(gateway, "people", "enable", person).exit_code == 0
    scripted.default = Answer()
    again.exchange(sign_in("ada"))
    assert again.ask().status == 200
    assert "1 session ended" in command(gateway, "people", "revoke", person).stdout
    assert again.ask().status == 401
    assert {entry.outcome for entry in ledger.settled(gateway.db, 2)} == {"ok", "revoked"}


def test_nobody_is_disabled_by_mistake(gateway: Gateway, ada: Device) -> None:
    done = command(gateway, "people", "disable", "eda")
    assert (done.exit_code, "Nobody here is known as 'eda'" in done.stderr) == (2, True)
    done = command(gateway, "people", "list", "--team", "none")
    assert (done.exit_code, "There is no team 'none'" in done.stderr) == (2, True)
    assert ada.me()["person"] in command(gateway, "people", "list", "--search", "ADA").stdout
    assert ada.me()["person"] not in command(gateway, "people", "list", "--search", "nobody").stdout
