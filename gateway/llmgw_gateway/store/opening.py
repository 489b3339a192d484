"""Chooses the store that the configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
