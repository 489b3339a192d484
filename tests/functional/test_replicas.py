"""Two gateways on one PostgreSQL: one key ring, one set of books; and what callers see while the server is away."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.functional import trial as trials
from tests.functional.device import Device
from tests.lab.environment import clean_environment
from tests.lab.gateway import Gateway
from tests.lab.loopback import answers
from tests.lab.postgres import Postgres
from tests.lab.process import POLL_SECONDS, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.functional.device import Reply
    from tests.functional.trial import Trial
    from tests.lab.canaille import Canaille
    from tests.lab.process import Finished
    from tests.lab.scripted import ScriptedBedrock


@pytest.fixture
def server() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture
def replicas(
    tmp_path: Path, server: Postgres, canaille: Canaille, scripted: ScriptedBedrock
) -> Iterator[tuple[Gateway, Gateway]]:
    """The second starts when the first serves: it knows the first one's key from its start."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    url = folder / "store.url"
    url.touch(mode=0o600)
    url.write_text(server.url(server.database()), encoding="utf-8")

    def replica(name: str) -> Gateway:
        made = Gateway(
            folder,
            issuers=[canaille.issuer_section()],
            endpoint=scripted.endpoint,
            region=scripted.region,
            credentials=scripted.key.environment(),
        )
        made.config = folder / f"{name}.toml"
        made.program.name, made.program.log = name, folder / f"{name}.log"
        made.program.argv[-1] = str(made.config)
        made.document["store"] = {"url_file": url.name}
        made.document["audit"] = {"path": f"{name}.jsonl"}
        return made

    first, second = replica("first"), replica("second")
    second.document["server"]["public_url"] = first.url
    with first, second:
        yield first, second


def until(status: int, ask: Callable[[], Reply], *, seconds: float = 30) -> Reply:
    """Ask until it is answered so; anything but 503 in between is an error."""
    deadline = time.monotonic() + seconds
    while (reply := ask()).status != status:
        assert reply.status in {200, 503}, reply.body
        assert time.monotonic() < deadline, f"no {status} after {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return reply


def test_what_one_replica_gave_the_other_knows(
    replicas: tuple[Gateway, Gateway], server: Postgres, sign_in: Callable[[str], str]
) -> None:
    first, second = replicas
    here, there = Device(first.url), Device(second.url)
    signed_in = sign_in("ada")
    # A key signs only some seconds after it was published.
    here.token = there.token = until(200, lambda: here.try_exchange(signed_in)).json["access_token"]
    proof = here.proof()
    assert here.try_exchange(signed_in, proof=proof).status == 200
    replayed = there.try_exchange(signed_in, proof=proof)
    assert (replayed.status, replayed.json["error"]) == (401, "invalid_dpop_proof")

    assert here.ask().status == there.ask().status == 200
    assert here.me()["person"] == there.me()["person"]

    server.kill()
    away = there.ask()
    assert (away.status, away.headers["retry-after"]) == (503, "2")
    assert server.password.encode() not in away.body
    assert answers(f"{second.url}/readyz")  # all replicas would be taken out at once
    server.start()
    server.wait_ready()
    for device in (here, there):
        until(200, device.ask)

    words: list[str | Path] = [sys.executable, "-m", "llmgw_gateway.main", "ledger", "verify", first.config]
    verified = run(words, env=clean_environment(first.folder), folder=first.folder, seconds=60)
    assert (verified.exit_code, verified.stderr) == (0, "")
    for replica in replicas:
        assert replica.terminate() == 0
        log = replica.log.read_text(encoding="utf-8")
        # Both in pairs; the one that was asked meanwhile has noticed for certain.
        assert log.count("is away: ") == log.count(" is back after ") >= (replica is second), log
        assert server.password not in log


@pytest.mark.long
@pytest.mark.parametrize("table", ["revocations", "adjustments", "replica_keys"])
def test_a_replica_that_cannot_follow_what_others_write_is_not_ready_until_it_can(
    begin: Callable[..., Trial], postgres: Postgres, table: str
) -> None:
    trial = begin(database=postgres.url(postgres.database()))
    trial.sql(f"ALTER TABLE {table} RENAME TO elsewhere")
    trials.until(lambda: not answers(f"{trial.gateway.url}/readyz"), "red")
    trial.sql(f"ALTER TABLE elsewhere RENAME TO {table}")
    trials.until(lambda: answers(f"{trial.gateway.url}/readyz"), "green again")


def test_a_service_key_is_known_and_ended_on_every_replica(replicas: tuple[Gateway, Gateway]) -> None:
    first, _ = replicas

    def keys(verb: str, *words: str) -> Finished:
        argv: list[str | Path] = [sys.executable, "-m", "llmgw_gateway.main", "keys", verb, first.config, *words]
        done = run(argv, env=first.program.env, folder=first.folder, seconds=60)
        assert done.exit_code == 0, done.stderr
        return done

    made = keys("create", "--name", "ci", "--owner", "ada")
    machines = [Device(gateway.url) for gateway in replicas]
    for machine in machines:
        machine.token = made.stdout.strip()
        eventually(200, machine.ask)
    keys("revoke", made.stderr.split()[0])
    for machine in machines:
        assert eventually(401, machine.ask).error["code"] == "token_invalid"


def eventually(status: int, ask: Callable[[], Reply], *, seconds: float = 30) -> Reply:
    """Ask until it is answered so: replicas follow each other within seconds."""
    deadline = time.monotonic() + seconds
    while (reply := ask()).status != status:
        assert time.monotonic() < deadline, reply.body
        time.sleep(POLL_SECONDS)
    return reply
