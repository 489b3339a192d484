"""What is handed to the store's writer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection


class Work(Struct, eq=False):
    """One item on its way through the writer. Compared by identity: the same item may be handed in twice."""

    run: Callable[[Connection, list[Any]], Sequence[Any]]
    item: object
    future: asyncio.Future[Any]
    since: int
    """The tick in which it was handed in."""
    state: Literal["queued", "taken", "withdrawn"] = "queued"
