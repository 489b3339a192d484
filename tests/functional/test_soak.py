"""Many streams: those that are aborted leave nothing behind, and those that are slow cost no memory."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select

from llmgw_gateway.money.verification import faults
from llmgw_gateway.store.schema import attempts, counters, ledger
from tests.functional.ledger import read
from tests.functional.spoken import DIALECTS, Dialect
from tests.lab.loopback import HOST
from tests.lab.scripted import DEFAULT_USAGE, Answer, ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.functional.device import Device
    from tests.lab.gateway import Gateway

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux shows them")
BATCH = 100
PATIENCE = 60
BUDGET = {"level": "user", "limit_usd": 100_000, "overshoot_usd": 10_000}
SPARE_DESCRIPTORS = 20
"""Idle connections to the cloud come and go, and so do the store's files."""
SPARE_KIB = 24 * 1024
"""What the allocator may keep; a leak of 10 KiB a stream would be four times as much."""


class Vitals:
    """What a leak would show in."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def _metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self._gateway.admin_url}/metrics") as answer:  # noqa: S310 -- our own loopback
            text = answer.read().decode()
        (value,) = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(value)

    @property
    def open(self) -> int:
        return int(self._metric("llmgw_requests_open"))

    @property
    def tasks(self) -> int:
        return int(self._metric("llmgw_tasks"))

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self._gateway.pid}/fd").iterdir()))

    @property
    def resident_kib(self) -> int:
        status = Path(f"/proc/{self._gateway.pid}/status").read_text(encoding="ascii")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    @property
    def unsettled(self) -> int:
        still = select(func.count()).select_from(attempts).where(~attempts.c.swept)
        return int(read(self._gateway.db, lambda connection: connection.scalar(still)) or 0)


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 -- another process has no event
            await asyncio.sleep(0.02)
    assert condition(), what


def request_of(dialect: Dialect, device: Device, prompt: str) -> bytes:
    body = json.dumps(dialect.body(prompt, True)).encode()  # noqa: FBT003 -- it streams
    head = [
        f"POST {dialect.path(True)} HTTP/1.1",  # noqa: FBT003 -- the same
        "Host: gateway",
        "Connection: close",
        "Content-Type: application/json",
        f"Authorization: Bearer {device.token}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


async def abort(device: Device, number: int) -> None:
    """Ask, and hang up: at once, with the head, or after the first bytes; with a farewell, or without."""
    reader, writer = await asyncio.open_connection(HOST, urlsplit(device.url).port)
    writer.write(request_of(DIALECTS[number % len(DIALECTS)], device, f"aborted {number}"))
    await writer.drain()
    match number % 3:
        case 1:
            await reader.readuntil(b"\r\n\r\n")
        case 2:
            await reader.readuntil(b"\r\n\r\n")
            await reader.read(100)
    if number % 2:
        writer.transport.abort()
    else:
        writer.close()


async def aborted(vitals: Vitals, device: Device, cloud: ScriptedBedrock, first: int) -> None:
    """A batch of aborted streams. Those that left at once may still be on their way when it returns."""
    await asyncio.gather(*(abort(device, number) for number in range(first, first + BATCH)))
    await until(lambda: release(cloud) and vitals.open == 0, "no request is served any more")


def release(cloud: ScriptedBedrock) -> bool:
    """Let the answers go on whose clients have left."""
    for call in cloud.calls[-3 * BATCH :]:
        call.release()
    return True


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
async def test_aborted_streams_leave_no_connection_no_hold_and_no_task(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, count: int
) -> None:
    gateway.document["budgets"] = [BUDGET]
    gateway.restart()
    scripted.default = Answer(hold_after=1)
    vitals = Vitals(gateway)
    await aborted(vitals, ada, scripted, 0)
    tasks, descriptors, resident = vitals.tasks, vitals.descriptors, vitals.resident_kib
    for first in range(BATCH, count, BATCH):
        await aborted(vitals, ada, scripted, first)
    await until(lambda: release(scripted) and vitals.open == vitals.unsettled == 0, "everything is settled")
    await until(lambda: vitals.tasks <= tasks, "no task is left")
    await until(lambda: vitals.descriptors <= descriptors + SPARE_DESCRIPTORS, "no connection is left")
    assert vitals.resident_kib < resident + SPARE_KIB
    rows = read(gateway.db, lambda connection: list(connection.execute(select(ledger))))
    dispatched = [row for row in rows if row.outcome != "released"]
    assert len(dispatched) == len(scripted.calls) > count // 2
    assert all(call.finished for call in scripted.calls)
    assert {(row.input_tokens, row.output_tokens, row.estimated) for row in dispatched} == {
        (DEFAULT_USAGE.input, DEFAULT_USAGE.output, False)
    }, "each was read to its end, and charged exactly"
    assert read(gateway.db, lambda connection: list(faults(connection))) == []
    assert read(gateway.db, lambda connection: connection.scalar(select(func.sum(counters.c.held)))) == 0


MARKS = {
    "anthropic": (b"content_block_delta", 2, 0),
    "bedrock": (b":event-type", 1, 5),
    "converse": (b"contentBlockDelta", 1, 0),
    "openai chat": (b'"finish_reason"', 1, 2),
    "openai responses": (b"event: response.output_text.delta", 1, 0),
}
"""What is counted in a stream of each dialect: how often it stands in each piece of the text, and how often besides."""


async def listen(device: Device, number: int, pieces: int) -> None:
    """Read a stream to its end without keeping it."""
    dialect = DIALECTS[number % len(DIALECTS)]
    (mark, each, others), seen, kept = MARKS[dialect.name], 0, b""
    reader, writer = await asyncio.open_connection(HOST, urlsplit(device.url).port)
    writer.write(request_of(dialect, device, f"slow {number}"))
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    while data := await reader.read(65_536):
        kept += data
        seen += kept.count(mark)
        kept = kept[max(kept.rfind(mark) + len(mark), len(kept) - len(mark) + 1, 0) :]
    writer.close()
    assert seen == each * pieces + others


@pytest.mark.parametrize(
    ("streams", "pieces", "pause"), [(100, 20, 0.05), pytest.param(500, 1200, 0.5, marks=pytest.mark.long)]
)
async def test_slow_streams_are_all_served_in_flat_memory(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, streams: int, pieces: int, pause: float
) -> None:
    gateway.document["budgets"] = [BUDGET]
    gateway.restart()
    scripted.default = Answer(text="word " * pieces, pieces=pieces, pause_seconds=pause)
    vitals = Vitals(gateway)
    listening = [asyncio.create_task(listen(ada, number, pieces)) for number in range(streams)]

    def least() -> int:
        """How many events the slowest of all streams has got."""
        return min((call.events_sent for call in scripted.calls), default=0) if len(scripted.calls) == streams else 0

    async with asyncio.timeout(PATIENCE + 4 * pieces * pause):
        while least() < pieces // 5:  # noqa: ASYNC110 -- another thread has no event
            await asyncio.sleep(0.02)
        early = vitals.resident_kib
        while least() < pieces:  # noqa: ASYNC110 -- the same
            await asyncio.sleep(0.02)
        late = vitals.resident_kib
        await asyncio.gather(*listening)
    assert late < early + SPARE_KIB // 3, "memory is flat while they run"
    await until(lambda: vitals.unsettled == 0, "everything is settled")
    rows = read(gateway.db, lambda connection: list(connection.execute(select(ledger))))
    assert [(row.outcome, row.output_tokens, row.estimated) for row in rows] == [
        ("ok", DEFAULT_USAGE.output, False)
    ] * streams
