"""The audit trail: what was begun is always written; a disk that refuses stops new work before it costs anything."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_gateway.observe.audit import Audit, Entry
from llmgw_wire.errors import ErrorCode


def entry(number: int = 0) -> Entry:
    return Entry(f"req_{number}", "POST", "/v1/messages")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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
    audit = Audit(tmp_path / "audit.jsonl")
    audit.start()
    with suppress(type(error)):
        async with audit.entry(entry()):
            raise error
    assert audit.close() == 0
    assert [(line["code"], line["status"]) for line in lines(tmp_path / "audit.jsonl")] == [(code, status)]


async def test_what_was_begun_can_be_written_and_what_has_no_room_is_refused_before_it_begins(tmp_path: Path) -> None:
    """Requests that are under way count: when all of them end at once, there is still room for each."""
    audit = Audit(tmp_path / "audit.jsonl", most_waiting=3)
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
    audit = Audit(Path("/dev/full"), most_waiting=2)
    audit.start()
    for number in range(2):
        async with audit.entry(entry(number)):
            pass
    assert audit.full
    assert audit.close(seconds=0.01) == 2


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.jsonl")
    audit.start()
    audit.close()
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
