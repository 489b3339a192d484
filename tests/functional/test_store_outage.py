"""The store goes away and the gateway is killed meanwhile: calls go on within what was set aside, each charged once."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from llmgw_wire import headers
from tests.functional.device import Device
from tests.lab.gateway import Gateway
from tests.lab.postgres import Postgres
from tests.lab.process import POLL_SECONDS, Finished, run
from tests.lab.scripted import Answer, ScriptedBedrock
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.functional.device import Reply
    from tests.lab.canaille import Canaille

ALLOWED = 0.2
"""USD."""
USER = {
    "level": "user", "limit_usd": 20, "overshoot_usd": 10, "when_store_away": "allowance", "allowance_usd": ALLOWED,
}  # fmt: skip
USAGE = Usage(input=4000, output=50)
"""A little less than the most that the prompt could cost."""


@pytest.fixture
def server() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture
def database(server: Postgres) -> str:
    return server.database()


@pytest.fixture
def gateway(tmp_path: Path, server: Postgres, database: str, canaille: Canaille, scripted: ScriptedBedrock) -> Gateway:
    """Not started; on PostgreSQL, with a journal."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    url = folder / "store.url"
    url.touch(mode=0o600)
    url.write_text(server.url(database), encoding="utf-8")
    scripted.default = Answer(usage=USAGE)
    made = Gateway(
        folder,
        issuers=[canaille.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
    )
    made.document["store"] = {"url_file": url.name, "journal": "allowance.journal"}
    made.document["budgets"] = [USER]
    return made


def command(gateway: Gateway, *words: str) -> Finished:
    """`llmgw-gateway GROUP VERB CONFIG ...`."""
    group, verb, *others = words
    argv = [*gateway.command(group)[:-1], verb, gateway.config, *others]
    return run(argv, env=gateway.program.env, folder=gateway.folder, seconds=60)


def allowances(gateway: Gateway) -> list[dict[str, Any]]:
    done = command(gateway, "budget", "allowances", "--format", "json")
    assert (done.exit_code, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)["allowances"]
    return found


def until(found: Callable[[], bool], what: str, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"not {what} after {seconds:g} s"
        time.sleep(POLL_SECONDS)


def signed_in(gateway: Gateway, token: str) -> Device:
    """A device with a token; a key signs only some seconds after it was published."""
    device = Device(gateway.url)
    replies: list[Reply] = []

    def exchanged() -> bool:
        replies.append(device.try_exchange(token))
        return replies[-1].status == 200

    until(exchanged, "exchanged")
    device.token = replies[-1].json["access_token"]
    return device


def operations(server: Postgres, database: str) -> list[tuple[str, int]]:
    """Of the ledger: the request and its cost."""
    query = "SELECT operation_id, cost FROM ledger WHERE attempt_id LIKE 'att%' AND outcome <> 'released'"
    with psycopg.connect(server.url(database)) as connection:
        return connection.execute(query).fetchall()


def exhaust(device: Device) -> list[str]:
    """Ask until it is refused; the requests that were answered."""
    answered = []
    while (reply := device.ask()).status == 200:
        answered.append(reply.headers[headers.LLMGW_REQUEST_ID])
        assert float(reply.headers[headers.BUDGET_REMAINING]) < ALLOWED
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    return answered


def test_calls_go_on_without_the_store_and_a_kill_loses_none_of_them(
    gateway: Gateway, server: Postgres, database: str, sign_in: Callable[[str], str], scripted: ScriptedBedrock
) -> None:
    with gateway:
        ada = signed_in(gateway, sign_in("ada"))
        before = ada.ask()
        assert before.status == 200
        until(lambda: len(allowances(gateway)) == 1, "set aside")
        (former,) = allowances(gateway)

        server.kill()
        answered = exhaust(ada)
        assert answered
        gateway.program.send_signal(signal.SIGKILL)
        gateway.program.wait(seconds=10)
        gateway.terminate()
        journal = (gateway.folder / "allowance.journal").read_bytes()

        gateway.program.start()  # before the store is back: it says so, and leaves the journal as it is
        assert gateway.program.wait(seconds=30) == 3
        gateway.terminate()
        assert (gateway.folder / "allowance.journal").read_bytes() == journal

        server.start()
        server.wait_ready()
        gateway.start()
        gateway.wait_ready()
        known = [before.headers[headers.LLMGW_REQUEST_ID], *answered]
        # The call before the kill may have been settled, or lost its process: the journal's are certain.
        found = operations(server, database)
        assert sorted(name for name, _ in found if name in answered) == sorted(answered)
        assert {name for name, _ in found} <= set(known)
        assert len(found) == len({name for name, _ in found})
        spent = sum(cost for name, cost in found if name in answered)
        assert 0 < spent <= ALLOWED * 1_000_000
        assert len(answered) + 1 == len(scripted.calls)
        assert former["allowance"] not in {each["allowance"] for each in allowances(gateway)}

        ada = signed_in(gateway, sign_in("ada"))
        assert ada.ask().status == 200  # an allowance is taken anew
        until(lambda: len(allowances(gateway)) == 1, "set aside")
        assert allowances(gateway)[0]["replica"] == former["replica"]
        verified = command(gateway, "ledger", "verify")
        assert (verified.exit_code, verified.stderr) == (0, "")
        assert gateway.terminate() == 0
        assert allowances(gateway) == []  # given back in order


def test_the_same_process_goes_on_when_the_store_is_back(
    gateway: Gateway, server: Postgres, database: str, sign_in: Callable[[str], str]
) -> None:
    with gateway:
        ada = signed_in(gateway, sign_in("ada"))
        assert ada.ask().status == 200
        until(lambda: len(allowances(gateway)) == 1, "set aside")
        server.kill()
        answered = exhaust(ada)
        server.start()
        server.wait_ready()
        until(lambda: {name for name, _ in operations(server, database)} >= set(answered), "replayed")
        until(lambda: ada.ask().status == 200, "admitted by the store")
        verified = command(gateway, "ledger", "verify")
        assert (verified.exit_code, verified.stderr) == (0, "")
        found = [name for name, _ in operations(server, database)]
        assert len(found) == len(set(found))


def test_one_budget_that_is_closed_closes_the_call(
    gateway: Gateway, server: Postgres, sign_in: Callable[[str], str], scripted: ScriptedBedrock
) -> None:
    gateway.document["budgets"].append({"level": "organisation", "limit_usd": 1000})
    with gateway:
        ada = signed_in(gateway, sign_in("ada"))
        assert ada.ask().status == 200
        until(lambda: len(allowances(gateway)) == 1, "set aside")
        server.kill()
        refused = ada.ask()
        assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        assert len(scripted.calls) == 1


def test_an_allowance_whose_journal_is_lost_is_written_off(
    gateway: Gateway, server: Postgres, database: str, sign_in: Callable[[str], str]
) -> None:
    with gateway:
        ada = signed_in(gateway, sign_in("ada"))
        assert ada.ask().status == 200
        until(lambda: len(allowances(gateway)) == 1, "set aside")
        gateway.program.send_signal(signal.SIGKILL)
        gateway.program.wait(seconds=10)
        gateway.terminate()
        (gateway.folder / "allowance.journal").unlink()
        gateway.start()
        gateway.wait_ready()
        (lost,) = allowances(gateway)
        done = command(gateway, "budget", "write-off", lost["allowance"], "--reason", "the volume is lost")
        assert (done.exit_code, done.stderr) == (0, "")
        assert "USD 0.20 are charged" in done.stdout
        assert allowances(gateway) == []
        again = command(gateway, "budget", "write-off", lost["allowance"], "--reason", "once more")
        assert again.exit_code == 1
        assert "there is no allowance" in again.stderr
        verified = command(gateway, "ledger", "verify")
        assert (verified.exit_code, verified.stderr) == (0, "")
    with psycopg.connect(server.url(database)) as connection:
        query = "SELECT cost, outcome, reason FROM ledger JOIN write_offs ON attempt_id = allowance_id"
        assert connection.execute(query).fetchall() == [(200_000, "written_off", "the volume is lost")]
