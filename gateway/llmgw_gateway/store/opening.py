"""Chooses the store that the configuration names, and brings it up to date."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from llmgw_gateway.errors import StoreError

if TYPE_CHECKING:
    from llmgw_gateway.settings import Settings
    from llmgw_gateway.store.database import Backend


def backend(settings: Settings) -> Backend:
    """The store of this gateway, not yet opened. StoreError when another process has the file."""
    if settings.store.path:
        from llmgw_gateway.store.sqlite import Sqlite  # noqa: PLC0415 -- only the one that is used is loaded

        return Sqlite(settings.path(settings.store.path))
    from llmgw_gateway.store.postgres import Postgres  # noqa: PLC0415 -- the same

    reread = settings.store_url if settings.store.url_file else None
    return Postgres(settings.store_url(), prepared=settings.store.prepared_statements, reread=reread)


def upgrade_apart(settings: Settings) -> None:
    """Let a process of its own bring the store's schema up to date: what that takes in memory goes with it.

    Call it while there is but one thread. What fails here fails again, in words, when the store is opened to serve.
    """
    with contextlib.suppress(StoreError, SQLAlchemyError, OSError, ValueError):
        store = backend(settings)
        try:
            if not store.outdated() or not hasattr(os, "fork"):
                return
            child = os.fork()
            if child:
                os.waitpid(child, 0)
                return
            try:
                store.open()
            finally:
                os._exit(0)  # nothing of the parent's is flushed or closed twice
        finally:
            store.close()
