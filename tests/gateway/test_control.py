"""Commands through the gateway that has the store: what they are told is certain, or said not to be."""

from __future__ import annotations

import asyncio
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import control
from llmgw_gateway.control import Control, ask, socket_of
from llmgw_gateway.errors import StoreAwayError, StoreError
from llmgw_gateway.identity.people import People
from llmgw_gateway.identity.roles import Roles
from llmgw_gateway.identity.service_keys import ServiceKeys
from llmgw_gateway.money.adjustments import Adjustments, NewAdjustment, Withdrawal
from llmgw_gateway.money.overrides import Adjustment
from llmgw_gateway.observe.anchors import key_in_force
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.retention import Retention
from llmgw_gateway.settings import load
from llmgw_gateway.store.database import Database
from tests.gateway import configuration
from tests.gateway.money import accounts
from tests.gateway.store.interrupted import Interrupted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GRANT = NewAdjustment(
    Adjustment("adj_1", "grant", "user/per_1//month/usd", 5, 0, None, "release week", "ada@host", 0),
    operator("ada@host"),
)


class Unreadable(Interrupted):
    """It can be written to; nothing can be read while `deaf_reader`."""

    deaf_reader = False

    def read(self, query: Any) -> Any:
        if self.deaf_reader:
            raise StoreAwayError(uncertain=False)
        return super().read(query)


@pytest.fixture(params=["short", "long"])
def place(store: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store in a folder whose path the system takes for a socket, or not."""
    if request.param == "short":
        return store
    folder = tmp_path / ("long-" * 20) / ("longer-" * 20)
    folder.mkdir(parents=True)
    return store.rename(folder / "gateway.db")


@pytest.fixture
async def served(place: Path) -> AsyncIterator[tuple[Unreadable, Path]]:
    """A store that a gateway has, and its socket."""
    backend = Unreadable(place)
    database = Database(backend)
    database.start()
    adjustments = Adjustments(database)
    await adjustments.start()
    settings = load(configuration.write(configuration.folder(place.parent), configuration.good()))
    retention = Retention(database, settings)
    listening = Control(
        database,
        adjustments,
        ServiceKeys(database),
        People(database),
        Roles(database),
        retention,
        partial(key_in_force, settings),
        socket_of(place),
    )
    await listening.start()
    yield backend, place
    await listening.stop()
    adjustments.stop()
    database.close()


def made(store: Path) -> list[tuple[Any, ...]]:
    return accounts.rows(store, "SELECT adjustment_id, withdrawn_by FROM adjustments")


async def test_a_change_is_made_and_withdrawn_through_the_socket(served: tuple[Unreadable, Path]) -> None:
    _, store = served
    path = socket_of(store)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert await ask(path, control.MAKE, GRANT) is None
    assert made(store) == [("adj_1", None)]
    assert await ask(path, control.WITHDRAW, Withdrawal("adj_1", operator("ada@host"), 1)) is True
    assert made(store) == [("adj_1", "ada@host")]
    rows = accounts.rows(store, "SELECT action, actor, role, object_id, before, after FROM changes ORDER BY at, action")
    text = '{"amount":5,"budget":"user/per_1//month/usd","ends_at":null,"kind":"grant"}'
    who = ("ada@host", "operator", "adj_1")
    assert sorted(rows) == [("budget.grant", *who, None, text), ("budget.withdraw", *who, text, None)]


async def test_what_was_written_and_cannot_be_read_back_is_not_refused(served: tuple[Unreadable, Path]) -> None:
    backend, store = served
    backend.deaf_reader = True
    assert await ask(socket_of(store), control.MAKE, GRANT) is None
    assert made(store) == [("adj_1", None)]


async def test_what_nobody_knows_is_said_to_be_unknown(served: tuple[Unreadable, Path]) -> None:
    backend, store = served
    backend.state = "deaf"
    with pytest.raises(StoreError, match="not known whether this was done: look with") as caught:
        await ask(socket_of(store), control.MAKE, GRANT)
    assert "refused" not in str(caught.value)
    assert made(store) == [("adj_1", None)]


async def test_what_was_not_done_is_refused(served: tuple[Unreadable, Path]) -> None:
    backend, store = served
    backend.state = "away"
    with pytest.raises(StoreError, match="the gateway refused: ") as caught:
        await ask(socket_of(store), control.MAKE, GRANT)
    assert "not known" not in str(caught.value)
    assert made(store) == []


async def test_a_gateway_that_ends_in_the_middle_leaves_it_unknown(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    path = tmp_path / "gateway.db.control"
    async with await asyncio.start_unix_server(hang_up, path):
        with pytest.raises(StoreError, match="not known whether this was done"):
            await ask(path, control.MAKE, GRANT)
    with pytest.raises(StoreError, match="does not answer at") as caught:
        await ask(path, control.MAKE, GRANT)
    assert "not known" not in str(caught.value)


async def test_a_name_that_is_too_long_in_every_form_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / ("name" * 30)
    with pytest.raises(StoreError, match="give the store a shorter path"):
        await ask(path, control.MAKE, GRANT)
