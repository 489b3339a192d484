"""Moments in what is sent: RFC 3339 with an offset, never in the past, never beyond what a column takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

Moment = Annotated[datetime, Meta(tz=True)]
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Beyond it some zones have no year for it."""


def milliseconds(moment: datetime | None, now: int) -> int | None:
    """Since the epoch. GatewayError(REQUEST_MALFORMED) for the past; None stays None."""
    if moment is None:
        return None
    if not datetime.fromtimestamp(now / 1000, UTC) < moment < LATEST:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "`ends_at` has to lie in the future, before the year 9000.")
    return int(moment.timestamp() * 1000)
