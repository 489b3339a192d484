"""`kill -9` at any moment: what was acknowledged is there, and the books are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmgw_gateway.money.items import Sweep
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.sqlite import Sqlite
from tests.gateway.money import accounts
from tests.gateway.money.accounts import faults

REPOSITORY = Path(__file__).parents[3]


def life(store: Path, name: str, acknowledgements: int) -> set[str]:
    """Let a process settle, kill it after so many acknowledgements, and return all that it gave."""
    command = [sys.executable, "-m", "tests.gateway.money.settle_forever", str(store), name]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            seen = [child.stdout.readline() for _ in range(acknowledgements)]
        finally:
            child.kill()
        seen += child.stdout.readlines()
    # The last line may have been cut off by the kill.
    return {line.strip() for line in seen if line.endswith("\n")}


@pytest.mark.parametrize("acknowledgements", [1, 40, 400])
async def test_a_killed_process_loses_no_row_that_it_acknowledged(store: Path, acknowledgements: int) -> None:
    given = set[str]()
    for name in ("first", "second"):  # the second starts on what the first left behind
        given |= life(store, name, acknowledgements)
    assert len(given) >= 2 * acknowledgements
    database = Database(Sqlite(store))
    database.start()
    try:
        assert await database.read(faults) == []
        written = accounts.entries(store)
        assert {(attempt, "settlement") for attempt in given} <= written.keys()
        # What was under way is still held, and the sweep settles exactly that.
        open_attempts = accounts.rows(store, "SELECT COUNT(*) FROM attempts")[0][0]
        assert await accounts.Desk(database)(Sweep(accounts.LEASE + 1)) == open_attempts
        assert await database.read(faults) == []
    finally:
        database.close()
    spent = 7 * len(written) + 5 * open_attempts
    assert {(counted, held) for counted, held, _ in accounts.counters(store).values()} == {(spent, 0)}
    assert accounts.rows(store, "PRAGMA integrity_check") == [("ok",)]
