"""Erasing a person of a running gateway: grep finds nothing of them, and the books are what they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.functional import ledger
from tests.functional.device import Device
from tests.functional.test_budgets import tomorrow
from tests.functional.test_service_keys import command
from tests.lab.process import Finished, run

EXPORTS = (
    "people list --format json",
    "budget list --format json",
    "budget events --format json",
    "audit show",
    "audit export --format csv",
    "directory export users",
    "directory export teams",
    "directory export keys",
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.gateway import Gateway


def said(gateway: Gateway, verb: str, *words: str) -> Finished:
    """A command without a group."""
    return run([*gateway.command(verb), *words], env=gateway.program.env, folder=gateway.folder, seconds=60)


def holding(gateway: Gateway, name: str) -> list[str]:
    """Which files of the gateway have these bytes: store, audit trail, logs, configuration."""
    files = {path.name: path for path in gateway.folder.iterdir() if path.is_file()}
    assert {gateway.db.name, f"{gateway.db.name}-wal", gateway.audit.name, gateway.log.name} <= files.keys()
    return sorted(file for file, path in files.items() if name.encode() in path.read_bytes())


def test_grep_finds_nothing_of_an_erased_person_and_the_books_are_the_same(
    gateway: Gateway, ada: Device, sign_in: Callable[[str], str]
) -> None:
    for _ in range(3):  # pages of the store are written again and again, and so is its log
        assert ada.ask().status == 200
        ada.exchange(sign_in("ada"))
    me = ada.me()
    known = json.loads(command(gateway, "people", "show", me["person"], "--format", "json").stdout)
    # The subject at this provider is a word of three letters; in the store it stands behind its issuer.
    names = [known["name"], known["email"], known["issuer"] + known["subject"]]
    assert {name: bool(holding(gateway, name)) for name in names} == dict.fromkeys(names, True)
    granted = ["--amount", "5", "--until", tomorrow(), "--reason", f"{known['email']} asked"]
    assert command(gateway, "budget", "grant", "user", known["email"], *granted).exit_code == 0
    before = ledger.settled(gateway.db, 3)
    budgets = me["budgets"]

    dry = said(gateway, "erase", known["email"], "--dry-run")
    assert f"{me['person']} would be erased; nothing was written" in dry.stdout
    assert "adjustments.reason: 1 text" in dry.stdout
    done = said(gateway, "erase", known["email"], "--yes")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"{me['person']} is erased, 1 session ended" in done.stdout
    assert ada.ask().status == 401

    assert ledger.rows(gateway.db) == before
    assert command(gateway, "ledger", "verify").exit_code == 0
    assert command(gateway, "audit", "verify").exit_code == 0
    exported = command(gateway, "audit", "export").stdout + said(gateway, "usage", "--by", "user").stdout
    assert me["person"] in exported

    again = Device(gateway.url)
    again.exchange(sign_in("ada"))
    assert again.me()["person"] != me["person"]
    assert again.me()["budgets"][0]["spent"] == 0 < budgets[0]["spent"]
    # Whoever has signed in again is there again; so this is about the time between.
    assert said(gateway, "erase", known["email"], "--yes").exit_code == 0
    assert {name: holding(gateway, name) for name in names} == {name: [] for name in names}
    shown = [exported, *(command(gateway, *words.split()).stdout for words in EXPORTS)]
    assert len(shown[1:]) == len([text for text in shown[1:] if text])
    assert not any(name in text for name in names for text in shown)
