"""What money costs a request: CPU of admission and settlement in the gateway's process, and a hot budget's throughput.

A request is `Money.admit` entered and left, with three budgets (organisation, project, person), as the pipeline does;
settings, catalogue and store are the real ones. CPU is that of the whole process: event loop and store's writer, with
what the bench's own loop takes (half a microsecond a request).

Saturated is a store whose every commit is full: so many requests are on their way that their admissions and settlements
make up `MOST_PER_COMMIT`. A request that is alone waits for nobody: the settlement before it is on disk.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from llmgw_gateway import settings
from llmgw_gateway.app import spare_the_collector
from llmgw_gateway.call import Account, Call, Grant, Target, Usage
from llmgw_gateway.money import catalogues
from llmgw_gateway.money.holds import Money
from llmgw_gateway.store.database import MOST_PER_COMMIT, Database
from llmgw_gateway.store.opening import backend
from tests.gateway import configuration
from tests.lab.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

REQUESTS = 20_000
ROUNDS = 5
AT_ONCE = MOST_PER_COMMIT // 2
CLIENTS = 64
"""Of one replica, where several share a budget."""
LONE = 200
REPLICAS = 4
HOT_SECONDS = 5.0
ACCOUNT = Account("per_1", "ada@example.com", project="atlas", key="ses_1")
GRANT = Grant(Target("bedrock", "claude-sonnet-4-5", "global.anthropic.claude-sonnet-4-5", "global"), 1000)
USAGE = Usage(1000, 200)


def main() -> None:
    """Print one line for each kind of store, and one for the hot budget."""
    with tempfile.TemporaryDirectory(prefix="llmgw-bench-") as name, Postgres() as server:
        print(f"money, embedded: {_cost({'path': 'gateway.db'}, Path(name))}", flush=True)
        print(f"money, PostgreSQL: {_cost({'url_file': _url(server, Path(name))}, Path(name))}", flush=True)
        print(f"money, PostgreSQL, one budget for {REPLICAS} replicas: {_hot(server, Path(name))}", flush=True)


def _url(server: Postgres, folder: Path) -> str:
    file = folder / "store.url"
    file.touch(mode=0o600)
    file.write_text(server.url(server.database()), encoding="ascii")
    return file.name


def _configure(store: Mapping[str, str], folder: Path) -> Path:
    levels = [{"level": level, "limit_usd": 1_000_000_000} for level in ("organisation", "project", "user")]
    document = configuration.good() | {"store": dict(store), "budgets": levels, "projects": [{"name": "atlas"}]}
    return configuration.write(configuration.folder(folder), document)


def _cost(store: Mapping[str, str], folder: Path) -> str:
    config = _configure(store, folder)
    rounds = [uvloop.run(_round(config, AT_ONCE, REQUESTS)) for _ in range(ROUNDS)]
    cpu = statistics.median(micro for micro, _, _ in rounds)
    rate = statistics.median(rate for _, rate, _ in rounds)
    _, _, waits = uvloop.run(_round(config, 1, LONE))
    lone = statistics.median(waits) * 1000
    return (
        f"{cpu:.0f} us CPU a request, {rate:,.0f} requests a second at {AT_ONCE} at once; alone {lone:.2f} ms to admit"
    )


async def _round(config: Path, at_once: int, requests: int) -> tuple[float, float, list[float]]:
    """CPU in microseconds a request, requests a second, and how long each waited for its admission."""
    loaded = settings.load(config)
    database = Database(backend(loaded))
    database.start()
    money = Money(database, catalogues.load(None), loaded)
    spare_the_collector()  # as the gateway does
    waits: list[float] = []
    one = call()  # reading one is not money's work

    async def client(count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            async with money.admit(ACCOUNT, GRANT, one, "req_1") as hold:
                waits.append(time.perf_counter() - began)
                hold.outcome.dispatched = True
                hold.outcome.usage, hold.outcome.completeness = USAGE, "complete"
            if at_once == 1:
                await database.submit(_nothing, None)

    await client(20)
    waits.clear()
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client(requests // at_once) for _ in range(at_once)))
    await money.drain()
    used, took = time.process_time() - cpu, time.perf_counter() - began
    database.close()
    return used / requests * 1e6, requests / took, waits


def _nothing(_: Connection, items: list[None]) -> list[None]:
    """Done after what was handed in before."""
    return items


def call() -> Call:
    """A prompt as it is admitted."""
    return Call("bedrock", "m", stream=True, max_tokens=1000, size=4000, body=b"", members={}, session="s")


def _hot(server: Postgres, folder: Path) -> str:
    config = _configure({"url_file": _url(server, folder)}, folder)
    uvloop.run(_round(config, 1, 1))  # the schema, and the counters
    command = [sys.executable, "-m", "tests.bench.admission", str(config)]
    replicas = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(REPLICAS)]
    rates = [float(replica.communicate()[0]) for replica in replicas]
    return f"{sum(rates):,.0f} requests a second together"


async def _replica(config: Path) -> float:
    """One replica of the hot budget: how many requests a second it got through."""
    loaded = settings.load(config)
    database = Database(backend(loaded))
    database.start()
    money = Money(database, catalogues.load(None), loaded)
    count = 0
    ends = time.monotonic() + HOT_SECONDS

    async def client() -> None:
        nonlocal count
        while time.monotonic() < ends:
            async with money.admit(ACCOUNT, GRANT, call(), "req_1") as hold:
                hold.outcome.dispatched = True
                hold.outcome.usage, hold.outcome.completeness = USAGE, "complete"
            count += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await money.drain()
    database.close()
    return count / HOT_SECONDS


if __name__ == "__main__":
    print(uvloop.run(_replica(Path(sys.argv[1]))))
