"""Who pays while the store is away: whoever it was when it was there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, insert

from llmgw_gateway.errors import StoreAwayError
from llmgw_gateway.identity import directory
from llmgw_gateway.identity.directory import Directory
from llmgw_gateway.policy.accounts import Accounts
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.schema import persons
from tests.gateway.store.interrupted import Interrupted

if TYPE_CHECKING:
    from pathlib import Path


def enrol(connection: Connection, batch: list[str]) -> list[str]:
    """A person of this id."""
    rows = [
        {"person_id": name, "issuer": "i", "subject": name, "name": name, "first_seen": 1, "last_seen": 1}
        for name in batch
    ]
    connection.execute(insert(persons), rows)
    return batch


async def test_who_was_known_stays_known_while_the_store_is_away(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "REMEMBER_SECONDS", -1)
    backend = Interrupted(store)
    database = Database(backend)
    database.start()
    try:
        people = Directory(database, Accounts((), ()))
        await database.submit(enrol, "per_1")
        assert (await people.person("per_1")).name == "per_1"
        backend.state = "away"
        assert (await people.person("per_1")).name == "per_1"
        with pytest.raises(StoreAwayError):
            await people.person("per_2")
    finally:
        backend.state = "here"
        database.close()
