"""What the gateway costs, beside a bare aiohttp proxy in the same rounds: CPU, latency, memory, start.

The proxy under test has core 0 to itself; cloud and client share core 1 with this process. Both proxies take turns, so
that whatever else the machine does hits them alike, and what is compared is CPU time: latency on a shared machine is
noisy, CPU of the same work much less. Everything of the gateway is on: tokens, budgets, limits, signing, conversion,
metering, audit.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop

from llmgw_gateway.streams import relay
from tests.bench.traffic import Cloud, Door, Load, drive
from tests.functional.device import BEDROCK_MODEL, Device
from tests.lab.canaille import Canaille
from tests.lab.environment import clean_environment
from tests.lab.gateway import Gateway
from tests.lab.loopback import HOST, free_port
from tests.lab.native_app import NativeApp
from tests.lab.postgres import Postgres
from tests.lab.process import Program
from tests.lab.scripted import KEY
from tests.lab.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.bench.traffic import Reply

ROUNDS: Final = 5
SETTLE_SECONDS: Final = 0.3
"""Settlement is off the response path, and it counts."""
PROXY_CORE, OUR_CORE = 0, 1
RICH: Final = {"limit_usd": 1_000_000, "overshoot_usd": 1_000_000}
SECTIONS: Final = {
    "budgets": [{"level": level} | RICH for level in ("organisation", "user")],
    "limits": [{"level": "user", "requests_per_minute": 1_000_000, "tokens_per_minute": 10**9, "concurrent": 10_000}],
}
SATURATED: Final = Load(8000, at_once=32)
AGENT: Final = Load(40, size=100_000, pieces=200, pace=5, rate=10)
CROWD: Final = Load(500, pieces=100, pace=50, rate=200)
CALM: Final = Load(60, rate=20)
FIRST_BYTE: Final = Load(20, size=100_000, pieces=2, pace=5, rate=5)
BODIES: Final = Load(200, size=100_000, pieces=40, pace=50, rate=200)


@dataclass
class Proxy:
    """A process under test, and its doors by the dialect that goes through."""

    pid: int
    anthropic: Door
    bedrock: Door


@dataclass(frozen=True)
class Row:
    """One line of the table: `figures` are one for each round."""

    what: str
    figures: list[float]
    unit: str
    target: float
    floor: float
    absolute: str = ""

    def __str__(self) -> str:
        middle = statistics.median(self.figures)
        spread = f"{min(self.figures):.2f} to {max(self.figures):.2f}"
        verdict = "target" if middle <= self.target else "floor" if middle <= self.floor else "**missed**"
        wanted = f"{self.target:g} / {self.floor:g}"
        return f"| {self.what} | {middle:.2f}{self.unit} | {spread} | {wanted} | {verdict} | {self.absolute} |"


@dataclass
class Paired:
    """CPU of one load through both proxies, in seconds."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def row(self, what: str, target: float, floor: float, *, count: int, unit: str) -> Row:
        ratios = [one / other for one, other in zip(self.ours, self.bare, strict=True)]
        ours, bare = (statistics.median(each) / count * 1e6 for each in (self.ours, self.bare))
        return Row(what, ratios, "x", target, floor, f"{ours:.1f} and {bare:.1f} us of CPU {unit}")


def main(rounds: int = ROUNDS) -> bool:
    """Print the table; whether nothing has missed its floor."""
    print(f"The gateway's hot path is {'' if relay.__file__.endswith('.so') else 'not '}compiled.\n")
    with tempfile.TemporaryDirectory(prefix="llmgw-bench-") as name:
        print(
            "| what | median | rounds | target / floor | reached | gateway and bare proxy |\n|---|---|---|---|---|---|"
        )
        rows = uvloop.run(_measure(Path(name), rounds))
    return all(statistics.median(row.figures) <= row.floor for row in rows)


async def _measure(folder: Path, rounds: int) -> list[Row]:
    cloud = await asyncio.get_running_loop().create_server(Cloud, HOST, free_port(), backlog=1024)
    upstream: int = cloud.sockets[0].getsockname()[1]
    with ExitStack() as stack:
        os.sched_setaffinity(0, {OUR_CORE})
        canaille = stack.enter_context(Canaille(folder / "canaille"))
        bare = stack.enter_context(_bare(folder, upstream))
        with _gateway(folder / "embedded", canaille, upstream, {}) as (gateway, device):
            ours = _doors(gateway, device)
            rows = _told(await _memory(ours))
            rows += _told(await _embedded(ours, bare, rounds))
            rows += _told(await _latency(ours, Door(upstream, "/v1/messages"), rounds))
            rows += _told([await _start(gateway, ours, rounds)])
        company = await asyncio.to_thread(_company, stack, folder)
        with _gateway(folder / "company", canaille, upstream, company) as (gateway, device):
            rows += _told(await _company_rows(_doors(gateway, device), bare, rounds))
    return rows


def _told(rows: list[Row]) -> list[Row]:
    """What is known is printed, whatever becomes of the rest."""
    for row in rows:
        print(row, flush=True)
    return rows


async def _embedded(ours: Proxy, bare: Proxy, rounds: int) -> list[Row]:
    small, agent, crowd, through = Paired(), Paired(), Paired(), Paired()
    for _ in range(rounds):
        await _pair(small, ours.anthropic, bare.anthropic, SATURATED, ours, bare)
        await _pair(agent, ours.anthropic, bare.anthropic, AGENT, ours, bare)
        await _pair(crowd, ours.anthropic, bare.anthropic, CROWD, ours, bare)
        await _pair(through, ours.bedrock, bare.bedrock, CROWD, ours, bare)
    chunks = CROWD.requests * CROWD.pieces
    return [
        small.row("1 KB, saturated, embedded", 1.4, 1.6, count=SATURATED.requests, unit="a request"),
        agent.row("100 KB in, 200 chunks, embedded", 1.25, 1.4, count=AGENT.requests, unit="a request"),
        crowd.row("500 streams, Bedrock to Anthropic", 1.25, 1.4, count=chunks, unit="a chunk"),
        through.row("500 streams, Bedrock passed through", 0.85, 1.1, count=chunks, unit="a chunk"),
    ]


async def _company_rows(ours: Proxy, bare: Proxy, rounds: int) -> list[Row]:
    small, agent = Paired(), Paired()
    await drive(ours.anthropic, SATURATED)
    for _ in range(rounds):
        await _pair(small, ours.anthropic, bare.anthropic, SATURATED, ours, bare)
        await _pair(agent, ours.anthropic, bare.anthropic, AGENT, ours, bare)
    return [
        small.row("1 KB, saturated, company", 1.6, 2.3, count=SATURATED.requests, unit="a request"),
        agent.row("100 KB in, 200 chunks, company", 1.3, 1.4, count=AGENT.requests, unit="a request"),
    ]


async def _pair(paired: Paired, ours: Door, other: Door, load: Load, gateway: Proxy, bare: Proxy) -> None:
    """One round; who begins changes."""
    turns = [(paired.ours, gateway, ours), (paired.bare, bare, other)]
    for figures, proxy, door in turns if len(paired.ours) % 2 else reversed(turns):
        before = _cpu(proxy.pid)
        await drive(door, load)
        await asyncio.sleep(SETTLE_SECONDS)
        figures.append(_cpu(proxy.pid) - before)


async def _latency(ours: Proxy, direct: Door, rounds: int) -> list[Row]:
    """What the gateway adds to asking the cloud at once, in milliseconds."""
    added: dict[str, list[float]] = {"small": [], "first": [], "p50": [], "p99": []}

    def whole(replies: list[Reply]) -> float:
        return statistics.median(reply.whole for reply in replies)

    def first(replies: list[Reply]) -> float:
        return statistics.median(reply.first for reply in replies)

    def percentile(number: int) -> Callable[[list[Reply]], float]:
        return lambda replies: statistics.quantiles([d for each in replies for d in each.delays], n=100)[number - 1]

    measures = {
        "small": (CALM, whole),
        "first": (FIRST_BYTE, first),
        "p50": (CROWD, percentile(50)),
        "p99": (CROWD, percentile(99)),
    }
    for _ in range(rounds):
        seen = {load: (await drive(ours.anthropic, load), await drive(direct, load)) for load, _ in measures.values()}
        for name, (load, measure) in measures.items():
            through, straight = seen[load]
            added[name].append((measure(through) - measure(straight)) * 1000)
    return [
        Row("added to 1 KB at 20/s, p50", added["small"], " ms", 0.9, 1.5),
        Row("added to the first byte of 100 KB, p50", added["first"], " ms", 1.3, 2.0),
        Row("added to a chunk at 500 streams, p50", added["p50"], " ms", 0.2, 0.5),
        Row("added to a chunk at 500 streams, p99", added["p99"], " ms", 4, 10),
    ]


async def _memory(ours: Proxy) -> list[Row]:
    """Of a fresh process first: what a stream needs hides in what earlier ones have left behind."""
    await drive(ours.anthropic, CALM)
    idle = _memory_of(ours.pid)
    stream = await _growth(ours, CROWD) / CROWD.requests
    await drive(ours.anthropic, BODIES)
    bodies = await _growth(ours, BODIES)
    return [
        Row("memory, idle", [idle / 2**20], " MiB", 60, 80),
        Row("memory of an open stream", [stream / 1024], " KiB", 30, 50),
        Row("bodies of 100 KB kept while streaming", [(bodies / BODIES.requests - stream) / BODIES.size], "", 0.5, 1),
    ]


async def _growth(ours: Proxy, load: Load) -> float:
    before = _memory_of(ours.pid)
    driving = asyncio.ensure_future(drive(ours.anthropic, load))
    most = before
    while not driving.done():
        await asyncio.sleep(0.1)
        most = max(most, _memory_of(ours.pid))
    await driving
    return most - before


async def _start(gateway: Gateway, ours: Proxy, rounds: int) -> Row:
    """From the command to the first answer of a model, with a token from before."""
    took = []
    for _ in range(rounds):
        await asyncio.to_thread(gateway.terminate)
        began = time.perf_counter()
        with _on_core(PROXY_CORE):
            gateway.start()
        while True:
            try:
                await drive(ours.anthropic, Load(1, at_once=1))
                break
            except OSError:
                await asyncio.sleep(0.005)
        took.append(time.perf_counter() - began)
    return Row("start to the first answer", took, " s", 0.4, 1)


@contextmanager
def _gateway(
    folder: Path, canaille: Canaille, upstream: int, sections: dict[str, Any]
) -> Iterator[tuple[Gateway, Device]]:
    gateway = Gateway(
        folder,
        issuers=[canaille.issuer_section()],
        endpoint=f"http://{HOST}:{upstream}",
        region="us-east-1",
        credentials=KEY.environment(),
        changes=SECTIONS | sections,
    )
    gateway.document["tokens"]["life_seconds"] = 3600
    with ExitStack() as stack:
        with _on_core(PROXY_CORE):
            stack.enter_context(gateway)
        device = Device(gateway.url)
        device.exchange(NativeApp(canaille.issuer).sign_in(canaille.person("ada"))["access_token"])
        yield gateway, device


@contextmanager
def _bare(folder: Path, upstream: int) -> Iterator[Proxy]:
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.bare", str(port), str(upstream)]
    program = Program("bare", command, env=clean_environment(folder, PYTHONPATH=str(Path.cwd())), folder=folder)
    with ExitStack() as stack:
        with _on_core(PROXY_CORE):
            stack.enter_context(program)
        program.wait_until(lambda: _listens(port), "listening")
        yield Proxy(program.pid, Door(port, "/v1/messages"), Door(port, "/model/x/invoke-with-response-stream"))


def _doors(gateway: Gateway, device: Device) -> Proxy:
    frames = f"/bedrock/model/{BEDROCK_MODEL}/invoke-with-response-stream"
    return Proxy(
        gateway.pid,
        Door(gateway.port, "/v1/messages", device.token, {"model": "claude-sonnet-4-5"}),
        Door(gateway.port, frames, device.token, {"anthropic_version": "bedrock-2023-05-31"}),
    )


def _company(stack: ExitStack, folder: Path) -> dict[str, Any]:
    """PostgreSQL and Valkey, on our core: what is measured is what they cost the gateway."""
    postgres = stack.enter_context(Postgres())
    valkey = stack.enter_context(Valkey(folder / "valkey"))
    return {
        "store": {"url_file": _secret(folder / "store.url", postgres.url(postgres.database()))},
        "valkey": {"url_file": _secret(folder / "valkey.url", valkey.url), "timeout_ms": 2000},
    }


def _secret(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")
    return str(path)


@contextmanager
def _on_core(core: int) -> Iterator[None]:
    """What is started inside runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _cpu(pid: int) -> float:
    """CPU seconds of a process with all its threads: the clock that clock_getcpuclockid(3) names."""
    return time.clock_gettime((~pid << 3) | 2)


def _memory_of(pid: int) -> int:
    """Bytes of memory that are a process's own, and its share of what it shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(rollup.partition("\nPss:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(0 if main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS) else 1)
