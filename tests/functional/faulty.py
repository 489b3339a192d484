"""A company before a cloud in which things go wrong, and what has to hold whatever went wrong, for any upstream."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sqlalchemy import select

from llmgw_gateway.money.verification import faults as faults_of
from llmgw_gateway.store.schema import attempts, ledger, payers
from tests.functional.ledger import DEADLINE_SECONDS, read, usage_of
from tests.lab.loopback import HOST
from tests.lab.scripted import DEFAULT_USAGE, Answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from tests.fakes.bedrock import Fault, FaultyBedrock, Place, Script
    from tests.functional.device import Device
    from tests.functional.spoken import Dialect
    from tests.lab.gateway import Gateway

TEXT = Answer().text
BUDGET = {"level": "user", "limit_usd": 1000, "overshoot_usd": 100, "period": "month"}
numbers = itertools.count(1)


@dataclass(frozen=True)
class Told:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes


class Company:
    """A gateway with two targets for its model, before a cloud in which things go wrong, and one laptop."""

    def __init__(
        self, gateway: Gateway, cloud: FaultyBedrock, device: Device, targets: Sequence[str], upstream: str = ""
    ) -> None:
        self.gateway = gateway
        self.cloud = cloud
        self.device = device
        self.targets = list(targets)
        """Those of the model, in the order in which they are asked."""
        self._upstream = upstream
        """What a target's name begins with when it is not Bedrock's."""
        self._changed: dict[str, int] = {}

    def configure(self, **changed: int) -> None:
        """Run with these settings of `[bedrock]`, and the others as they come."""
        if changed != self._changed:
            self._changed = changed
            self.gateway.document["bedrock"] = {"region": self.cloud.region, "endpoint": self.cloud.endpoint} | changed
            self.gateway.restart()

    def prompt(self, *scripts: Script | None) -> str:
        """A prompt of its own that meets these."""
        prompt = f"prompt {next(numbers)}"
        self.cloud.when(prompt, *scripts)
        return prompt

    def ask(self, dialect: Dialect, prompt: str, *, stream: bool) -> Told:
        """Ask; once the head is there, the cloud may go on to its fault."""
        port = urlsplit(self.gateway.url).port
        headers = {"authorization": f"Bearer {self.device.token}", "content-type": "application/json"}
        with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as connection:
            connection.request("POST", dialect.path(stream), json.dumps(dialect.body(prompt, stream)), headers)
            answer = connection.getresponse()
            self.cloud.release(prompt)
            # An incomplete chunked body raises: not even a broken upstream may break the client's connection.
            return Told(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def asked(self, prompt: str) -> list[str]:
        """The targets that the cloud was asked for with a prompt."""
        return [f"{self._upstream}{call.model}" for call in self.cloud.calls_of(prompt)]

    def rows(self, told: Told, count: int) -> list[Row[Any]]:
        """The ledger's rows for a request, when all its attempts are settled: as many as the cloud saw of it."""
        operation = told.headers["x-llmgw-request-id"]
        wanted = select(ledger, payers).join(payers, ledger.c.payer_id == payers.c.payer_id)
        wanted = wanted.where(ledger.c.operation_id == operation).order_by(ledger.c.entry_id)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(found := read(self.gateway.db, lambda connection: list(connection.execute(wanted)))) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} rows for {operation}"
            time.sleep(0.01)
        assert len(found) == count
        return found


def check_books(gateway: Gateway) -> None:
    """Not one attempt is left open or settled twice, whatever went wrong."""
    still = select(attempts.c.attempt_id).where(~attempts.c.swept)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left := read(gateway.db, lambda connection: connection.scalars(still).all()):
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    assert read(gateway.db, lambda connection: list(faults_of(connection))) == []
    assert "Traceback" not in gateway.log.read_text()


def check_whole(dialect: Dialect, told: Told, *, stream: bool) -> None:
    """The client has the whole answer."""
    assert told.status == 200, told.body
    if stream:
        events = dialect.events(told.body)
        assert dialect.ended(events)
        assert not any(map(dialect.failed, events))
        assert dialect.text(events) == TEXT
    else:
        assert dialect.whole(json.loads(told.body)) == TEXT


def check_refusal(dialect: Dialect, told: Told, fault: Fault) -> None:
    """The client has an error that it can show."""
    assert told.status == dialect.statuses.get(fault.name, fault.status), told.body
    assert told.headers["content-type"].startswith("application/json")
    assert dialect.message(json.loads(told.body))
    if not fault.free:
        assert told.headers["x-should-retry"] == "false", "a repeated prompt is paid twice"
    if dialect.name in {"bedrock", "converse"}:
        assert told.headers.get("x-amzn-errortype") or fault.name == "foreign_500", "boto3 raises by it"


def check_cut_off(dialect: Dialect, told: Told) -> None:
    """The client has what came, and then a terminal event."""
    assert told.status == 200
    events = dialect.events(told.body)
    assert dialect.began(events[0])
    assert dialect.failed(events[-1])
    assert not any(map(dialect.failed, events[:-1]))
    assert not dialect.ended(events)


def check_unknown(row: Row[Any]) -> None:
    assert row.estimated, row
    assert row.cost > 0, "unknown is never zero"


def check_exact(row: Row[Any]) -> None:
    assert (usage_of(row), row.estimated) == (DEFAULT_USAGE, False)
    assert row.cost > 0


def check_free(row: Row[Any]) -> None:
    assert (row.cost, row.estimated) == (0, False)


def named(value: Fault | Dialect | Place | str) -> str:
    return value if isinstance(value, str) else value.name.lower()
