from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gateway.admin.office import Office

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmgw_gateway.store.database import Database


@pytest.fixture
async def office(both: Database, tmp_path: Path) -> AsyncIterator[Office]:
    """The Admin API on each kind of store in turn."""
    office = Office(both, tmp_path)
    await office.open()
    yield office
    await office.close()
