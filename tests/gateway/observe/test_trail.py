"""Whoever changes, removes, adds or reorders records of the audit trail is found, at the first place."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from llmgw_gateway.observe import chain, trail
from llmgw_gateway.observe.anchors import STORE, UNKNOWN, Anchors, anchor
from llmgw_gateway.observe.audit import Audit
from llmgw_gateway.observe.chain import FIRST, Head, Key, key_of
from llmgw_gateway.observe.entry import Entry
from llmgw_gateway.observe.metrics import Metrics
from llmgw_gateway.observe.spool import Spool
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.schema import audit_heads
from tests.gateway.store.interrupted import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


KEY, OTHER = key_of(b"k" * 32), key_of(b"o" * 32)
NOON = 1_800_000_000.0
DAY = 86_400.0
WRITER = "gateway-1:/var/lib/llmgw/audit.jsonl"


class Clock:
    """Says what it is told."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def spool(path: Path, key: Key = KEY, clock: Callable[[], float] = Clock(), most: int = 1 << 20) -> Spool:  # noqa: B008 -- never moved
    made = Spool(path, key, writer=WRITER, most_bytes=most, now=clock)
    made.open()
    return made


def put(to: Spool, *numbers: int) -> Head:
    """Write a record each, as the audit's thread does."""
    for number in numbers:
        to.turn()
        to.take([b'{"request_id":"req_%d"}' % number])
        to.flush()
    assert to.head is not None
    return to.head


def told(head: Head, key: Key = KEY, writer: str = WRITER) -> trail.Anchor:
    """The store's record of a head."""
    row = anchor(key, head, writer, 0)
    return trail.Anchor(head, writer, str(row["key_id"]), str(row["mac"]))


def check(folder: Path, *anchors: trail.Anchor, keys: tuple[Key, ...] = (KEY,), writer: str = WRITER) -> trail.Report:
    return trail.verify(trail.files([folder]), keys, anchors, writer)


def written(folder: Path, *bodies: bytes) -> tuple[Path, Head]:
    """An opening record, and six requests; and other records behind them."""
    path = folder / "audit.jsonl"
    made = spool(path)
    head = put(made, *range(1, 7))
    for body in bodies:
        made.take([body])
        made.flush()
    assert made.head is not None
    head = made.head
    made.close()
    return path, head


def swap(lines: list[bytes]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def resealed(lines: list[bytes]) -> None:
    """As somebody would who knows the format, and not the key: everything from a record on is written anew."""
    previous = chain.opened(lines[2])
    assert previous is not None
    seal, thief = previous[1], key_of(b"t" * 32)
    for number in range(3, len(lines)):
        lines[number], seal = chain.sealed(thief, seal, number, b'{"request_id":"req_x%d"}' % number)


DAMAGE: dict[str, tuple[Callable[[list[bytes]], object], str]] = {
    "altered": (lambda x: x.__setitem__(3, x[3].replace(b"req_3", b"req_9")), "line 4: record 3 (req_9) was altered"),
    "a seal that was altered": (
        lambda x: x.__setitem__(3, x[3][:-4] + (b"0" if x[3][-4:-3] != b"0" else b"1") + x[3][-3:]),
        "line 4: record 3 (req_3) was altered",
    ),
    "the opening record altered": (
        lambda x: x.__setitem__(0, x[0].replace(b"gateway-1", b"gateway-2")),
        "line 1: record 0 was altered",
    ),
    "removed": (lambda x: x.pop(3), "line 4: record 3 is missing before record 4"),
    "two removed": (lambda x: (x.pop(3), x.pop(3)), "line 4: records 3 to 4 are missing before record 5"),
    "reordered": (swap, "line 4: record 3 is missing before record 4"),
    "repeated": (lambda x: x.insert(4, x[3]), "line 5: record 3 stands after record 3: repeated, or in another order"),
    "added": (lambda x: x.insert(4, b'{"request_id":"req_7"}\n'), "line 5: no record of an audit trail"),
    "emptied": (lambda x: x.__setitem__(3, b"\n"), "line 4: no record of an audit trail"),
    "sealed anew without the key": (resealed, "line 4: record 3 (req_x3) was altered"),
    "the last one removed": (lambda x: x.pop(), "it ends after line 6, and the store was told of 7: cut off"),
    "all but the first removed": (
        lambda x: x.__delitem__(slice(1, None)),
        "it ends after line 1, and the store was told of 7: cut off",
    ),
    "the opening record removed": (lambda x: x.pop(0), "line 1: no audit file begins so"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_the_first_record_that_is_not_as_it_was_is_named(tmp_path: Path, how: str) -> None:
    path, head = written(tmp_path)
    assert check(tmp_path, told(head)).faults == []
    damage, said = DAMAGE[how]
    lines = path.read_bytes().splitlines(keepends=True)
    damage(lines)
    path.write_bytes(b"".join(lines))
    assert f"audit.jsonl: {said}" in check(tmp_path, told(head)).faults


def test_no_byte_can_be_changed_unseen(tmp_path: Path) -> None:
    path, head = written(tmp_path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 0x01
        path.write_bytes(data)
        assert check(tmp_path, told(head)).faults, place


def test_a_file_that_is_gone_is_missed(tmp_path: Path) -> None:
    path, head = written(tmp_path)
    path.unlink()
    assert check(tmp_path, told(head)).faults == [
        f"the file of {head.chain} ({head.day}, 7 records) is missing: the store knows of it"
    ]
    assert check(tmp_path, told(head), writer="gateway-2:/x").notes == [f"1 file of {WRITER} not looked at"]


def test_an_anchor_that_somebody_else_wrote_into_the_store_is_not_believed(tmp_path: Path) -> None:
    path, head = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    opened = chain.opened(lines[2])
    assert opened is not None
    shorter = Head(head.chain, head.day, 3, opened[1].hex())
    forged = trail.Anchor(shorter, WRITER, KEY.key_id, told(head).mac)
    assert check(tmp_path, forged).faults == [f"the store's record of {head.chain} ({head.day}) was altered"]


def at(seconds: float, **members: object) -> bytes:
    """A record so many seconds after the file's first one."""
    time = datetime.fromtimestamp(NOON + seconds, UTC).isoformat(timespec="milliseconds")
    return json.dumps(members | {"time": time}, separators=(",", ":")).encode()


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_who_cuts_the_end_off_and_deletes_what_the_store_knows_is_found(tmp_path: Path) -> None:
    """Whoever holds the disk and the database, and not the key."""
    path, head = written(tmp_path, at(60, request_id="req_7"), at(61, request_id="req_8"))
    assert check(tmp_path, told(head)).faults == []
    path.write_bytes(b"".join(lines_of(path)[:-1]))
    assert check(tmp_path).faults == [
        "audit.jsonl: the store knows nothing of it (8 records): its record was deleted, and the end may be cut off"
    ]
    assert check(tmp_path, writer="gateway-2:/x").faults == []
    assert "of another gateway" in check(tmp_path, writer="gateway-2:/x").notes[0]


def test_a_crash_before_the_store_has_heard_of_a_file_is_no_fault(tmp_path: Path) -> None:
    written(tmp_path, at(9, request_id="req_7"))
    report = check(tmp_path)
    assert report.faults == []
    assert "a crash in its first seconds" in report.notes[0]


def test_a_file_says_itself_that_the_store_was_away_and_is_excused_for_that_time_only(tmp_path: Path) -> None:
    away = at(60, kind=STORE, away=True)
    path, _ = written(tmp_path, away, at(90, request_id="req_7"))
    report = check(tmp_path)
    assert report.faults == []
    assert "the store was away" in report.notes[0]
    made = spool(path)
    made.take([at(91, kind=STORE, away=False)])
    made.flush()
    made.close()
    assert "its record was deleted" in check(tmp_path).faults[0]


@pytest.mark.parametrize(("seconds", "faults"), [(60, 1), (5, 0)])
def test_a_start_that_finds_no_word_of_its_file_does_not_make_it_whole(
    tmp_path: Path, seconds: int, faults: int
) -> None:
    path, head = written(
        tmp_path, at(seconds, request_id="req_7"), at(99, kind=UNKNOWN, records=8), at(100, request_id="req_9")
    )
    report = check(tmp_path, told(head))
    found = report.faults if faults else report.notes
    assert len(report.faults) == faults
    assert found[0].startswith("audit.jsonl: line 9: a start found that the store knew nothing of the 8 records before")
    assert path.exists()


def test_what_was_kept_elsewhere_finds_store_and_files_that_were_put_back_together(tmp_path: Path) -> None:
    path, head = written(tmp_path, at(60, request_id="req_7"))
    kept = check(tmp_path, told(head)).heads.values()
    earlier = lines_of(path)[:-2]
    path.write_bytes(b"".join(earlier))
    opened = chain.opened(earlier[-1])
    assert opened is not None
    before = Head(head.chain, head.day, len(earlier), opened[1].hex())
    assert check(tmp_path, told(before)).faults == []
    found = trail.verify(trail.files([tmp_path]), [KEY], [told(before)], WRITER, kept=kept)
    assert found.faults == ["audit.jsonl: it ends after line 6, and the kept report knows of 8: cut off"]
    path.unlink()
    found = trail.verify([], [KEY], [], WRITER, kept=kept)
    assert found.faults == [f"the file of {head.chain} ({head.day}, 8 records) is missing: the kept report knows of it"]
    other = [Head(each.chain, each.day, each.count, "0" * 64) for each in kept]
    _, head = written(tmp_path, at(60, request_id="req_7"))
    same = [Head(head.chain, each.day, each.count, each.seal) for each in other]
    found = trail.verify(trail.files([tmp_path]), [KEY], [told(head)], WRITER, kept=same)
    assert found.faults == ["audit.jsonl: line 8: another record than the one that the kept report knows of"]


def test_a_file_that_was_taken_away_while_the_gateway_was_down_leaves_a_gap(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "audit.jsonl"
    made = spool(path, clock=clock)
    first = put(made, 1)
    clock.now += DAY
    put(made, 2)
    made.close()
    path.unlink()
    clock.now += DAY
    made = spool(path, clock=clock)
    last = put(made, 3)
    made.close()
    report = check(tmp_path, told(first), told(last))
    assert report.faults == []
    assert report.notes == ["audit.jsonl: its gateway had found no file before it when it began this one"]


def test_a_line_that_a_crash_has_torn_is_named_as_such_and_cut_off_at_the_next_start(tmp_path: Path) -> None:
    path, head = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq":7,"request_id":"req_')
    report = check(tmp_path, told(head))
    assert report.faults == []
    assert report.notes == ["audit.jsonl: line 8 is torn (27 bytes): a crash; the next start cuts it off"]
    again = spool(path)
    after = put(again, 7)
    again.close()
    assert after.chain == head.chain
    report = check(tmp_path, told(after))
    assert report.faults == []
    assert report.notes == ["audit.jsonl: line 8: a torn line of 27 bytes was cut off here"]


@pytest.mark.parametrize("rest", [b"\0" * 5_000, b"\0" * 100 + b"\n", b"garbage\nand more\n", b"\n\n"])
def test_what_a_power_cut_leaves_behind_is_cut_off(tmp_path: Path, rest: bytes) -> None:
    path, head = written(tmp_path)
    path.write_bytes(path.read_bytes() + rest)
    again = spool(path)
    after = put(again, 7)
    again.close()
    assert after.chain == head.chain
    assert check(tmp_path, told(after)).faults == []


def test_each_day_has_a_file_that_names_the_end_of_the_last_one(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "audit.jsonl"
    made = spool(path, clock=clock)
    first = put(made, 1, 2)
    clock.now += DAY
    second = put(made, 3)
    made.close()
    (aside,) = tmp_path.glob("audit-*")
    assert aside.name == f"audit-{first.day}.001.jsonl"
    assert aside.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600
    assert second.day > first.day
    assert check(tmp_path, told(first), told(second)).faults == []
    # The store knows only of the second: its file says how long the first one was.
    data = aside.read_bytes().splitlines(keepends=True)
    aside.write_bytes(b"".join(data[:-1]))
    assert check(tmp_path, told(second)).faults == ["the file before audit.jsonl ends after line 2, and had 3: cut off"]
    aside.unlink()
    assert "missing" in check(tmp_path, told(first), told(second)).faults[0]
    assert check(tmp_path, told(second)).faults == [
        f"the file before audit.jsonl ({first.day}, 3 records) is missing, and no retention says so"
    ]
    assert "is not here" in check(tmp_path, told(second), writer="gateway-2:/x").notes[0]
    by_day = trail.verify(trail.files([path]), [KEY], [told(second)], WRITER, day=second.day)
    assert (by_day.faults, len(by_day.notes)) == ([], 1), "the other day was not asked for"


def test_a_full_file_is_followed_by_another_of_the_same_day(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    made = spool(path, most=600)
    head = put(made, *range(10))
    made.close()
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names[:2] == [f"audit-{head.day}.001.jsonl", f"audit-{head.day}.002.jsonl"]
    found = trail.files([tmp_path])
    report = trail.verify(found, [KEY], [told(head)], WRITER)
    assert report.faults == []
    assert [each["request_id"] for each in trail.records(found) if "request_id" in each] == [
        f"req_{number}" for number in range(10)
    ]
    assert trail.of(path) == [each.path for each in found]


def test_another_key_begins_another_file_and_the_verifier_needs_both(tmp_path: Path) -> None:
    path, head = written(tmp_path)
    made = spool(path, OTHER)
    after = put(made, 8)
    made.close()
    assert after.chain != head.chain
    assert check(tmp_path, told(head), told(after, OTHER), keys=(OTHER, KEY)).faults == []
    lost = check(tmp_path, told(head), told(after, OTHER), keys=(OTHER,)).faults
    assert all(f"sealed with another key ({KEY.key_id})" in fault for fault in lost)
    assert len(lost) == 2


def test_a_file_that_was_tampered_with_is_not_continued(tmp_path: Path) -> None:
    path, head = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1].replace(b"req_6", b"req_0"))
    made = spool(path)
    after = put(made, 7)
    made.close()
    assert after.chain != head.chain
    assert check(tmp_path, told(head), told(after)).faults == [
        f"audit-{head.day}.001.jsonl: line 7: record 6 (req_0) was altered"
    ]


ENDLESS = """
import itertools, sys
from pathlib import Path
from llmgw_gateway.observe.chain import key_of
from llmgw_gateway.observe.spool import Spool
from llmgw_gateway.store.schema import audit_heads

spool = Spool(Path(sys.argv[1]), key_of(b"k" * 32), writer="w", most_bytes=1 << 30)
spool.open()
for number in itertools.count():
    spool.turn()
    spool.take([b'{"request_id":"req_%d","filled":"%b"}' % (number, b"x" * 20_000)] * 20)
    spool.flush()
    print(spool.head.count, spool.head.seal, spool.head.chain, spool.head.day, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    known = Head("", "", 0, FIRST.hex())
    for rounds in range(1, 6):
        command = [sys.executable, "-c", textwrap.dedent(ENDLESS), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rounds):
                count, seal, name, day = writer.stdout.readline().split()
            os.kill(writer.pid, signal.SIGKILL)
        known = Head(name, day, int(count), seal)
        report = check(tmp_path, told(known, writer="w"), writer="w")
        assert report.faults == []
        assert report.heads[name].count >= known.count
    again = spool(path, clock=lambda: __import__("time").time())
    put(again, 1)
    again.close()
    report = check(tmp_path, told(known, writer="w"), writer="w")
    assert report.faults == []
    seen = [json.loads(line)["seq"] for line in path.read_bytes().splitlines()]
    assert seen == list(range(len(seen)))


async def test_the_trail_says_when_the_store_cannot_be_told(store: Path, tmp_path: Path) -> None:
    backend = Interrupted(store)
    database = Database(backend)
    database.start()
    path = tmp_path / "trail" / "audit.jsonl"
    path.parent.mkdir()
    audit = Audit(path, KEY, writer=WRITER)
    audit.start()
    anchors = Anchors(database, audit, lambda: KEY)
    await anchors.start()
    try:
        for state, mark in (("away", b'"away":true'), ("here", b'"away":false')):
            backend.state = state  # type: ignore[assignment] # one of its states
            while mark not in path.read_bytes():  # noqa: ASYNC110 -- the trail tells nobody
                await asyncio.sleep(0.05)
    finally:
        assert audit.close() == 0
        await anchors.stop()
        database.close()
    found = trail.verify(trail.files([path]), [KEY], [], WRITER)
    assert found.faults == []


async def test_whoever_operates_sees_heads_that_are_late_and_a_spool_that_fills(store: Path, tmp_path: Path) -> None:
    backend, clock, metrics = Interrupted(store), Clock(), Metrics()
    database = Database(backend)
    database.start()
    audit = Audit(tmp_path / "late.jsonl", KEY, writer=WRITER, most_waiting=4)
    audit.start()
    anchors = Anchors(database, audit, lambda: KEY, clock)
    anchors.show(metrics)

    def shown() -> dict[str, float]:
        lines = (line.split() for line in metrics.text().decode().splitlines() if line.startswith("llmgw_audit_"))
        return {name.removeprefix("llmgw_audit_"): float(value) for name, value in lines}

    await anchors.start()
    try:
        async with audit.entry(Entry("req_1", "GET", "/")):
            assert anchors.standing() == []
        await audit.on_disk()
        await anchors.stop()
        assert shown() == {"waiting": 0, "most_waiting": 4, "records": 2, "untold_seconds": 0}
        backend.state = "away"
        async with audit.entry(Entry("req_2", "GET", "/")), audit.entry(Entry("req_3", "GET", "/")):
            assert anchors.standing() == ["audit: 2 lines wait for the disk; at 4 calls are refused"]
        await audit.on_disk()
        clock.now += 20
        assert anchors.standing() == ["audit: the store has not been told of the audit trail for 20 s"]
        assert shown()["untold_seconds"] == 20
        backend.state = "here"
        await anchors.stop()
        assert anchors.standing() == []
    finally:
        assert audit.close() == 0
        database.close()


async def test_a_secret_that_is_replaced_counts_without_a_restart(database: Database, tmp_path: Path) -> None:
    held = [KEY]
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, KEY, writer=WRITER)
    audit.start()
    anchors = Anchors(database, audit, lambda: held[0])
    await anchors.start()
    try:
        async with audit.entry(Entry("req_1", "GET", "/")):
            pass
        held[0] = OTHER
        chains: set[str] = set()
        while len(chains) < 2:  # the next line after the change begins the new file
            async with audit.entry(Entry("req_2", "GET", "/")):
                await asyncio.sleep(0.05)
            chains |= {audit.head.chain} if audit.head is not None else set()
    finally:
        assert audit.close() == 0
        await anchors.stop()
    found = trail.files([tmp_path])
    assert [each.opening.key for each in found if each.opening] == [KEY.key_id, OTHER.key_id]
    rows = await database.read(lambda connection: connection.execute(audit_heads.select()).all())
    heads = [trail.Anchor(Head(r.chain, r.day, r.records, r.seal), r.writer, r.key_id, r.mac) for r in rows]
    assert heads
    assert trail.verify(found, (KEY, OTHER), heads, WRITER).faults == []
