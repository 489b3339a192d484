"""The journal: what was durable is read again whatever was cut off, and damage is never taken for a cut."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgw_gateway.call import Usage
from llmgw_gateway.errors import StoreError
from llmgw_gateway.money.items import Draw, Settlement
from llmgw_gateway.money.journal import Journal, contents
from tests.gateway.money import accounts

if TYPE_CHECKING:
    from pathlib import Path


def draw(name: str) -> Draw:
    return Draw(name, accounts.paying(name), (("user", "2026-11"),), ("alw_1",), (5, 6, 7), (10, 20, 30))


def end(name: str, cost: int | None = 7) -> Settlement:
    return accounts.settlement(name, cost, now=9, usage=Usage(input=3, output=4), observed=2)


async def written(path: Path, names: list[str]) -> bytes:
    """A journal with a draw and an end of each name, as it is on disk."""
    journal = Journal(path)
    journal.open()
    journal.begin()
    for name in names:
        await journal.draw(draw(name))
        await journal.end(end(name))
    await journal.close()
    return path.read_bytes()  # noqa: ASYNC240 -- nothing else runs


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return asyncio.run(written(tmp_path_factory.mktemp("journal") / "j", ["att_1", "att_2", "att_3"]))


async def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    data = await written(tmp_path / "j", ["att_1", "att_2"])
    journal = Journal(tmp_path / "j")
    found = journal.open()
    assert found.draws == {name: draw(name) for name in ("att_1", "att_2")}
    assert found.ends == {name: end(name) for name in ("att_1", "att_2")}
    assert (found.length, found.damaged) == (len(data), False)
    assert found.replica.startswith("rep_")
    await journal.close()


@given(data=st.data())
def test_a_torn_tail_costs_only_the_record_that_was_torn(three: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(three)))
    torn = three[:length] + data.draw(st.sampled_from([b"", b"\0" * 40, b"garbage", b"?\n"]))
    found = contents(torn)
    whole = three[:length].count(b"\n")
    assert len(found.draws) + len(found.ends) == max(0, whole - 1)
    assert bool(found.replica) == (whole > 0)
    assert not found.damaged
    assert found.length == sum(map(len, three.splitlines(keepends=True)[:whole]))


@given(data=st.data())
def test_a_changed_byte_is_noticed_and_hides_no_other_record(three: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(three) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != three[place]))
    found = contents(three[:place] + bytes([other]) + three[place + 1 :])
    line = three[:place].count(b"\n")
    last = three.count(b"\n") - 1
    lost = 7 - len(found.draws) - len(found.ends) - bool(found.replica)
    # A line end that was changed joins two lines.
    assert lost == (2 if three[place : place + 1] == b"\n" and line < last else 1)
    assert found.damaged == (line < last and not (line == last - 1 and lost == 2))
    assert all(found.draws[name] == draw(name) for name in found.draws)
    assert all(found.ends[name] == end(name) for name in found.ends)


async def test_what_waits_at_the_same_time_shares_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j")
    journal.open()
    journal.begin()
    syncs = []
    real = os.fsync

    def sync(file: int) -> None:
        syncs.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", sync)
    await asyncio.gather(*(journal.draw(draw(f"att_{number}")) for number in range(100)))
    assert len(contents((tmp_path / "j").read_bytes()).draws) == 100
    assert len(syncs) == 1
    await journal.close()


async def test_a_disk_that_refused_once_is_not_trusted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "j")
    journal.open()
    journal.begin()
    await journal.draw(draw("att_1"))

    def refuse(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        answers = await asyncio.gather(journal.draw(draw("att_2")), journal.draw(draw("att_3")), return_exceptions=True)
        assert all(isinstance(answer, OSError) for answer in answers)
    assert not journal.usable
    with pytest.raises(OSError, match="not usable"):
        await journal.draw(draw("att_4"))
    await journal.close()
    assert "att_1" in contents((tmp_path / "j").read_bytes()).draws


async def test_what_is_appended_after_a_truncation_is_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.open()
    journal.begin()
    await journal.draw(draw("att_1"))
    # As many calls at once as can be: whatever their order, what comes later is behind the cut.
    await asyncio.gather(journal.truncate(), journal.draw(draw("att_2")))
    found = contents(path.read_bytes())
    assert (set(found.draws), found.damaged, found.length) == ({"att_2"}, False, path.stat().st_size)
    assert found.replica == journal.replica
    await journal.close()


@pytest.mark.parametrize("refused", ["ftruncate", "fsync"])
async def test_nothing_is_promised_behind_a_truncation_that_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    path = tmp_path / "j"
    journal = Journal(path)
    journal.open()
    journal.begin()
    await journal.draw(draw("att_1"))
    real, refusals = getattr(os, refused), [OSError(5, "Input/output error")]

    def once(*given: int) -> None:
        if refusals:
            raise refusals.pop()
        real(*given)

    monkeypatch.setattr(os, refused, once)
    answers = await asyncio.gather(journal.truncate(), journal.draw(draw("att_2")), return_exceptions=True)
    assert [isinstance(answer, OSError) for answer in answers] == [True, True]
    assert not journal.usable
    with pytest.raises(OSError, match="not usable"):
        await journal.draw(draw("att_3"))
    await journal.close()
    assert not contents(path.read_bytes()).damaged


async def test_a_replica_keeps_its_name(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j")
    first.open()
    first.begin()
    await first.close()
    second = Journal(tmp_path / "j")
    second.open()
    second.begin()
    assert second.replica == first.replica
    await second.close()


async def test_two_gateways_never_share_a_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.open()
    with pytest.raises(StoreError, match="in use by another gateway"):
        Journal(tmp_path / "j").open()
    await journal.close()
