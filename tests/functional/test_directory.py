"""The directory by file, while the gateway runs: who is imported is known, and out when the file says so."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from tests.functional.device import Device
from tests.functional.trial import until
from tests.lab.gateway import USER_BUDGET, Gateway
from tests.lab.process import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.process import Finished


def directory(gateway: Gateway, verb: str, what: str, text: str = "", *words: str) -> Finished:
    argv = [*gateway.command("directory")[:-1], verb, gateway.config, what]
    if verb == "import":
        file = gateway.folder / f"{what}.csv"
        file.write_text(text, encoding="utf-8")
        argv.append(file)
    return run([*argv, *words], env=gateway.program.env, folder=gateway.folder, seconds=60)


@pytest.mark.configured(budgets=[USER_BUDGET, {"level": "team", "limit_usd": 7}])
def test_who_is_imported_is_known_and_who_is_inactive_is_out(gateway: Gateway, sign_in: Callable[[str], str]) -> None:
    assert directory(gateway, "import", "teams", "name\npioneers\n").stdout.startswith("1 created")
    users = "user_name,name,teams,active\nada@example.com,Countess of Lovelace,pioneers,{}\n"
    done = directory(gateway, "import", "users", users.format("true"))
    assert (done.exit_code, done.stderr) == (0, "")
    ada = Device(gateway.url)
    ada.exchange(sign_in("ada"))
    me = ada.me()
    assert me["name"] == "Countess of Lovelace"
    assert [each["limit"] for each in me["budgets"] if each["level"] == "team"] == [7_000_000]
    secrets = gateway.folder / "secrets.csv"
    keys = "name,owner,team\nci,ada@example.com,pioneers\n"
    done = directory(gateway, "import", "keys", keys, "--secrets", str(secrets))
    assert done.exit_code == 0, done.stderr
    (made,) = csv.DictReader(secrets.read_text(encoding="utf-8").splitlines())
    ci = Device(gateway.url)
    ci.token = made["secret"]
    assert (ci.ask().status, ada.ask().status) == (200, 200)
    assert directory(gateway, "import", "users", users.format("false")).stdout.startswith("0 created, 1 changed")
    until(lambda: ada.ask().status == 401, "out")
    assert ada.try_exchange(sign_in("ada")).json["code"] == "person_disabled"
    assert directory(gateway, "export", "users").stdout.splitlines()[1].split(",")[5:] == ["false", "pioneers"]
