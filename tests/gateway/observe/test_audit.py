"""The audit trail: what was begun is always written; a disk that refuses stops new work before it costs anything."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from llmgw_gateway.call import Outcome, Target, Usage
from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_gateway.observe import trail
from llmgw_gateway.observe.audit import Audit
from llmgw_gateway.observe.chain import key_of
from llmgw_gateway.observe.entry import Entry
from llmgw_wire.errors import ErrorCode

KEY = key_of(b"a secret of thirty-two bytes, or more")


def entry(number: int = 0) -> Entry:
    return Entry(f"req_{number}", "POST", "/v1/messages")


def lines(path: Path) -> list[dict[str, object]]:
    """The requests in the trail."""
    return [line for line in map(json.loads, path.read_text().splitlines()) if "request_id" in line]


class BrokenError(Exception):
    """Anything that goes wrong inside."""


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (GatewayError(ErrorCode.BUDGET_EXCEEDED, "used up"), "budget_exceeded", 402),
        (ClientGoneError(), "client_gone", 499),
        (asyncio.CancelledError(), "draining", 503),
        (BrokenError(), "internal", 500),
    ],
)
async def test_a_line_is_written_on_every_way_out(tmp_path: Path, error: BaseException, code: str, status: int) -> None:
    audit = Audit(tmp_path / "audit.jsonl", KEY)
    audit.start()
    with suppress(type(error)):
        async with audit.entry(entry()):
            raise error
    assert audit.close() == 0
    assert [(line["code"], line["status"]) for line in lines(tmp_path / "audit.jsonl")] == [(code, status)]


async def test_a_line_tells_of_every_attempt(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl", KEY)
    audit.start()
    async with audit.entry(entry()) as told:
        for number, note in enumerate(("upstream_429", "ok")):
            outcome = Outcome(dispatched=True, note=note, cost=number * 7, usage=Usage(output=number * 3))
            told.attempted(f"att_{number}", Target("bedrock", "sonnet", f"eu.sonnet-{number}", "regional"), outcome)
            told.outcome = outcome
    audit.close()
    (line,) = lines(tmp_path / "audit.jsonl")
    assert line["attempts"] == [
        {
            "attempt_id": f"att_{number}",
            "target": f"eu.sonnet-{number}",
            "outcome": note,
            "status": 0,
            "cost_micro_usd": number * 7,
            "estimated": False,
        }
        for number, note in enumerate(("upstream_429", "ok"))
    ]
    assert line["cost_micro_usd"] == 7
    assert line["tokens"] == {"input": 0, "output": 3, "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0}


async def test_what_was_begun_can_be_written_and_what_has_no_room_is_refused_before_it_begins(tmp_path: Path) -> None:
    """Requests that are under way count: when all of them end at once, there is still room for each."""
    audit = Audit(tmp_path / "audit.jsonl", KEY, most_waiting=3)
    audit.start()
    async with AsyncExitStack() as running:
        for number in range(3):
            await running.enter_async_context(audit.entry(entry(number)))
        assert audit.full
        with pytest.raises(GatewayError) as caught:
            await audit.entry(entry(4)).__aenter__()
        assert caught.value.code is ErrorCode.STORE_UNAVAILABLE
        assert caught.value.retry_after == 2
    assert audit.close() == 0
    assert {line["request_id"] for line in lines(tmp_path / "audit.jsonl")} == {"req_0", "req_1", "req_2"}
    assert not audit.full


async def test_a_disk_that_refuses_is_not_waited_for_without_end() -> None:
    audit = Audit(Path("/dev/full"), KEY, most_waiting=2)
    audit.start()
    for number in range(2):
        async with audit.entry(entry(number)):
            pass
    assert audit.full
    assert audit.close(seconds=0.01) == 2


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe.audit import Audit
from llmgw_gateway.observe.entry import Entry
from llmgw_gateway.observe.chain import key_of

async def main() -> None:
    audit = Audit(Path(sys.argv[1]), key_of(sys.argv[2].encode()), most_waiting=20)
    audit.start()
    # A disk that takes two lines and a half: the kernel refuses what would make a file longer.
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, most))
    answered = 0
    try:
        while True:
            async with audit.entry(Entry(f"req_{answered}", "POST", "/v1/messages")):
                await asyncio.sleep(0)
            answered += 1
    except GatewayError as error:
        print(error.code.value, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    while audit.full:  # without a restart
        await asyncio.sleep(0.01)
    async with audit.entry(Entry(f"req_{answered}", "POST", "/v1/messages")):
        pass
    print(answered + 1, audit.close(), flush=True)

asyncio.run(main())
"""


def test_a_full_disk_stops_new_work_and_loses_no_line_when_there_is_room_again(tmp_path: Path) -> None:
    path, secret = tmp_path / "audit.jsonl", "s" * 32
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(path), secret]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    refused, counts = done.stdout.splitlines()
    answered, lost = map(int, counts.split())
    assert (refused, lost) == ("store_unavailable", 0)
    assert {line["request_id"] for line in lines(path)} == {f"req_{number}" for number in range(answered)}
    assert trail.verify(trail.files([path]), [key_of(secret.encode())], [], "").faults == []


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch(mode=0o644)
    audit = Audit(path, KEY)
    audit.start()
    audit.close()
    assert path.stat().st_mode & 0o777 == 0o600
