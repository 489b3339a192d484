"""SIGTERM: no new work, running streams end, everything is settled, exit 0."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.functional import ledger
from tests.lab.loopback import answers
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from tests.functional.device import Device
    from tests.lab.gateway import Gateway

STREAMS = 20


def _hold(ada: Device, opened: threading.Semaphore) -> bytes:
    with ada.streaming() as stream:
        assert stream.status == 200
        opened.release()
        return stream.read()


def test_sigterm_lets_twenty_streams_end_and_settles_them(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.default = Answer(hold_after=1)
    opened = threading.Semaphore(0)
    with ThreadPoolExecutor(STREAMS + 1) as pool:
        streams = [pool.submit(_hold, ada, opened) for _ in range(STREAMS)]
        for _ in range(STREAMS):
            assert opened.acquire(timeout=30)
        ending = pool.submit(gateway.terminate)
        while answers(f"{gateway.url}/readyz"):
            pass
        late = ada.ask()
        assert (late.status, late.headers["retry-after"]) == (503, "2")
        assert answers(f"{gateway.url}/healthz")
        scripted.release_all()
        bodies = [stream.result(timeout=30) for stream in streams]
        assert ending.result(timeout=30) == 0
    assert all(b"message_stop" in body for body in bodies)
    assert len(scripted.calls) == STREAMS
    rows = ledger.settled(gateway.db, STREAMS)
    assert not any(row.estimated for row in rows)
    lines = [line for line in gateway.audit_lines() if line["path"] == "/v1/messages"]
    assert len([line for line in lines if line["code"] == "ok"]) == STREAMS


@pytest.mark.configured(server={"drain_seconds": 1})
def test_at_the_deadline_a_stream_is_cut_off_with_a_terminal_event_and_settled(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.default = Answer(hold_after=1)
    with ada.streaming() as stream, ThreadPoolExecutor(1) as pool:
        ending = pool.submit(gateway.terminate)
        body = stream.read()
        assert ending.result(timeout=30) == 0
    assert b"event: error" in body
    (row,) = ledger.settled(gateway.db, 1)
    assert row.estimated
    assert row.cost > 0
    assert row.outcome == "shutdown"
    scripted.release_all()


def test_a_store_that_is_away_does_not_keep_the_gateway_from_ending(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    scripted.default = Answer(hold_after=1)
    away = sqlite3.connect(gateway.db, isolation_level=None, check_same_thread=False)
    with ada.streaming() as stream, closing(away):
        away.execute("BEGIN EXCLUSIVE")
        scripted.release_all()
        assert b"message_stop" in stream.read()
        code = gateway.terminate(seconds=90)
        away.execute("ROLLBACK")
    assert code == 4
    log = gateway.log.read_text()
    assert "1 attempt(s) could not be settled" in log
    assert "Traceback" not in log
    gateway.restart()
    assert ada.me()["budgets"][0]["held"] > 0, "what is not settled stays held"


def test_a_disk_that_takes_no_audit_lines_does_not_keep_the_gateway_from_ending(gateway: Gateway, ada: Device) -> None:
    gateway.document["audit"]["path"] = "/dev/full"
    gateway.restart()
    assert ada.ask().status == 200
    assert gateway.terminate() == 4
    log = gateway.log.read_text()
    assert "1 audit line(s) are lost" in log
    assert "Traceback" not in log
