from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gateway.identity.provider import Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with Provider() as running:
        yield running
