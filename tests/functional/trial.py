"""A trial of the promises about money: gateways on one store, the scripted cloud, clients, and a judge.

Every client says its name in its prompt, so that the judge finds its call among those that the cloud counted. The price
is the trial's own, given to the gateway as an operator gives it: the judge computes with it, and with no code of ours.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sqlite3
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import psycopg

from llmgw_gateway.money.items import Sweep
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.postgres import Postgres
from llmgw_gateway.store.sqlite import Sqlite
from llmgw_wire.secret import Secret
from tests.functional.device import BEDROCK_MODEL, Device
from tests.gateway.money.accounts import LEASE, Desk
from tests.lab import history, toml_text
from tests.lab.gateway import Gateway
from tests.lab.history import Answered, Books, Bound, Dispatched, History, Price
from tests.lab.loopback import HOST, answers
from tests.lab.process import POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from tests.lab.scripted import ScriptedBedrock

MODEL = "claude-sonnet-4-5"
PRICE = Price(
    input=2_000_000, output=10_000_000, cache_read=200_000, cache_write_5m=2_500_000, cache_write_1h=4_000_000
)
MICRO = 1_000_000
REST_SECONDS = 30
CLIENT_SECONDS = 60


class Trial:
    """`replicas` gateways with the same budgets. `database` and `valkey` are addresses; without them it is embedded."""

    def __init__(
        self,
        folder: Path,
        issuer: dict[str, Any],
        cloud: ScriptedBedrock,
        sign_in: Callable[[str], str],
        *,
        budgets: list[dict[str, Any]],
        replicas: int = 1,
        database: str = "",
        valkey: str = "",
        **sections: Any,
    ) -> None:
        self.cloud = cloud
        self.database = database
        self.bounds = {f"{each['level']}/": _bound(each) for each in budgets if not each.get("model")}
        self.clients: list[Answered] = []
        self.crashes = False
        self._sign_in = sign_in
        self._stack = ExitStack()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prices.toml").write_text(_prices(), encoding="utf-8")
        changes = {"budgets": budgets, "prices": {"file": str(folder / "prices.toml")}} | sections
        if database:
            changes["store"] = {"url_file": _secret(folder / "store.url", database)}
        if valkey:
            # Patience: a machine that is busy with tests is no outage.
            changes["valkey"] = {"url_file": _secret(folder / "valkey.url", valkey), "timeout_ms": 2000}
        self.gateways = [
            Gateway(
                folder / f"replica-{number}",
                issuers=[issuer],
                endpoint=cloud.endpoint,
                region=cloud.region,
                credentials=cloud.key.environment(),
                models=(MODEL,),
                changes=changes,
            )
            for number in range(replicas)
        ]
        first = self.gateways[0]
        for each in self.gateways[1:]:  # one gateway towards the world
            each.document["server"]["public_url"] = first.url
            each.document["tokens"]["cluster_secret_file"] = str(first.folder / "cluster.secret")

    def __enter__(self) -> Self:
        try:
            self._start(self.gateway)
            self.gateway.program.wait_until(lambda: answers(f"{self.gateway.url}/healthz"), "alive")
            history.watch(self.sql, postgres=bool(self.database))
            for each in self.gateways[1:]:
                self._start(each)
            for each in self.gateways:
                each.wait_ready()
            self.ada = self.device("ada")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all gateways."""
        self._stack.close()

    def _start(self, gateway: Gateway) -> None:
        self._stack.callback(gateway.program.close)
        gateway.start()

    @property
    def gateway(self) -> Gateway:
        """The first replica."""
        return self.gateways[0]

    def device(self, user: str) -> Device:
        """Another laptop of somebody."""
        device = Device(self.gateway.url)
        device.exchange(self._sign_in(user))
        return device

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Look into the store from outside."""
        if self.database:
            with psycopg.connect(self.database, autocommit=True) as connection:
                cursor = connection.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        with closing(sqlite3.connect(self.gateway.db, timeout=CLIENT_SECONDS)) as file, file:
            return file.execute(statement).fetchall()

    def ask(
        self,
        name: str,
        *,
        device: Device | None = None,
        replica: int = 0,
        stream: bool = True,
        dialect: str = "anthropic",
        leave_after: int | None = None,
        leave_when: Callable[[], bool] | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> Answered:
        """One prompt. The client hangs up after so many bytes, or before the answer as soon as something is so."""
        body = {"max_tokens": 100, "messages": [{"role": "user", "content": name}]} | more
        if dialect == "anthropic":
            path = "/v1/messages"
            body |= {"model": MODEL, "stream": stream}
        else:
            action = "invoke-with-response-stream" if stream else "invoke"
            path = f"/bedrock/model/{BEDROCK_MODEL}/{action}"
            body |= {"anthropic_version": "bedrock-2023-05-31"}
        token = (device or self.ada).token
        sent = {"authorization": f"Bearer {token}", "content-type": "application/json"} | (headers or {})
        answered = self._exchange(name, replica, path, json.dumps(body).encode(), sent, leave_after, leave_when)
        self.clients.append(answered)
        return answered

    def _exchange(
        self,
        name: str,
        replica: int,
        path: str,
        body: bytes,
        sent: dict[str, str],
        leave_after: int | None,
        leave_when: Callable[[], bool] | None,
    ) -> Answered:
        port = urlsplit(self.gateways[replica].url).port
        connection = http.client.HTTPConnection(HOST, port, timeout=CLIENT_SECONDS)
        status, operation = 0, ""
        try:
            connection.request("POST", path, body, sent)
            if leave_when is not None:
                until(leave_when, "time to leave")
                return Answered(name, status)
            answer = connection.getresponse()
            status, operation = answer.status, answer.headers.get("x-llmgw-request-id", "")
            content = answer.read(leave_after)
        except (http.client.HTTPException, OSError):
            return Answered(name, status, operation)
        finally:
            connection.close()
        ended = b"message_stop" in content or b'"stop_reason"' in content
        return Answered(name, status, operation, whole=status == http.client.OK and leave_after is None and ended)

    def rest(self, *, seconds: float = REST_SECONDS) -> None:
        """Return when every attempt has its settlement: that is off the response path."""
        deadline = time.monotonic() + seconds
        while running := self.running():
            assert time.monotonic() < deadline, f"still open after {seconds:g} s: {running}"
            time.sleep(0.02)

    def running(self) -> list[str]:
        """Attempts whose end is not in the ledger."""
        return history.running(self.sql)

    def lease_ended(self) -> bool:
        """Whether every attempt that runs has lost its lease."""
        return history.last_lease(self.sql) < time.time() * 1000

    def restart(self, gateway: Gateway) -> None:
        """Start one that was killed; a token that it gave is good everywhere, so nobody waits for its new key."""
        gateway.start()
        gateway.program.wait_until(lambda: answers(f"{gateway.url}/healthz"), "alive")

    def sweep(self) -> None:
        """End all gateways, and do what the next one does when all leases have ended, without waiting for that."""
        for each in self.gateways:
            assert each.terminate() == 0
        asyncio.run(self._sweep(int(time.time() * 1000) + 2 * LEASE))

    async def _sweep(self, now: int) -> None:
        database = Database(Postgres(Secret(self.database)) if self.database else Sqlite(self.gateway.db))
        database.start()
        try:
            while await Desk(database)(Sweep(now)):
                pass
        finally:
            database.close()

    def books(self) -> Books:
        """The store as it stands. Ask when it is at rest."""
        return Books.read(self.sql)

    def history(self) -> History:
        """What everybody saw."""
        calls = [
            Dispatched(call.body["messages"][0]["content"], call.usage, told=call.finished) for call in self.cloud.calls
        ]
        return History(PRICE, self.bounds, self.crashes, list(self.clients), calls)

    def faults(self) -> list[str]:
        """The verdict, at rest."""
        return self.history().faults(self.books())

    def spent(self, level: str = "user/") -> int:
        """What the budgets of a level have spent together, by their counters."""
        return sum(sums[0] for name, _, sums in self.books().counters.values() if name.startswith(level))

    def billed(self) -> int:
        """What the provider counts, by the trial's own price."""
        return sum(PRICE.cost(usage) for usage in self.cloud.usages)


def until(condition: Callable[[], bool], what: str, *, seconds: float = 60) -> None:
    """Return as soon as it is so; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not {what} after {seconds:g} s"
        time.sleep(POLL_SECONDS)


def _secret(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    return str(path)


def _bound(budget: dict[str, Any]) -> Bound:
    if "limit_usd" in budget:
        return Bound(round(budget["limit_usd"] * MICRO), round(budget["overshoot_usd"] * MICRO))
    return Bound(budget.get("limit_tokens") or budget["limit_weighted_tokens"], budget["overshoot_tokens"])


def _prices() -> str:
    """The trial's price, for prompts of every size and everywhere."""
    amounts = {each: getattr(PRICE, each) for each in Price.__annotations__}
    rows = [
        "[[models.prices]]\nfrom = 2025-09-29\n"
        + toml_text.table({"geography": geography, "context_over": size} | amounts)
        for geography in ("global", "regional")
        for size in (0, 200_000)
    ]
    return f'[[models]]\nname = "{MODEL}"\n\n' + "\n".join(rows)
