"""Brings a store's schema up to date with Alembic, or says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from llmgw_gateway.errors import StoreError
from llmgw_gateway.store.schema import HEAD

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION = text("SELECT version_num FROM alembic_version")


def up_to_date(connection: Connection, name: str) -> bool:
    """Whether the schema is the one this gateway knows. StoreError for one that is newer: it is never changed."""
    known = inspect(connection).has_table("alembic_version")
    version = connection.execute(VERSION).scalar() if known else None
    if version is not None and version > HEAD:
        raise StoreError(
            f"{name} was written by a newer gateway (schema {version}, this one knows {HEAD}): upgrade this one"
        )
    return version == HEAD


def upgrade(connection: Connection, name: str) -> None:
    """Upgrade to HEAD within the caller's transaction, which has to keep others from doing the same."""
    from alembic import command  # noqa: PLC0415 -- 0.2 s of imports that an up-to-date store does not need
    from alembic.config import Config  # noqa: PLC0415 -- the same
    from alembic.util import CommandError  # noqa: PLC0415 -- the same

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"{name} has a schema that this gateway cannot upgrade: {error}") from None
