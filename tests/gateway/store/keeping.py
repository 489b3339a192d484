"""Batch functions of the tests: they keep names, in a table of the gateway's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.store.schema import proofs
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from sqlalchemy import Connection


class UnluckyError(Exception):
    """A fault of one item."""


def row(name: str) -> dict[str, object]:
    return {"proof": name, "exchange": "", "expires_at": 1}


def keep(connection: Connection, batch: list[str]) -> list[str | GatewayError]:
    """Keep each name; a name that begins with "bad" fails, and one that begins with "no" is refused."""
    good = [row(name) for name in batch if not name.startswith("no")]
    if good:
        connection.execute(insert(proofs), good)
    if any(name.startswith("bad") for name in batch):
        raise UnluckyError
    return [refused(name) if name.startswith("no") else name for name in batch]


def refused(name: str) -> GatewayError:
    return GatewayError(ErrorCode.TARGET_INVALID, f"{name} is refused")


def kept(connection: Connection) -> set[str]:
    return set(connection.scalars(select(proofs.c.proof)))
