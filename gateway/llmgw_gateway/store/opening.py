"""Chooses the store that the configuration names, and brings it up to date."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

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
    SIGTERM ends both: a schema is made in one transaction.
    """
    with contextlib.suppress(Exception):
        store = backend(settings)
        try:
            if not store.outdated() or not hasattr(os, "fork"):
                return
            child = os.fork()
            if child:
                _wait_for(child)
                return
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                store.open()
            finally:
                os._exit(0)  # nothing of the parent's is flushed or closed twice
        finally:
            store.close()


def _wait_for(child: int) -> None:
    """Until it has ended; SystemExit when this process is told to stop meanwhile, and the child has stopped."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        os.kill(child, signal.SIGKILL)  # it may wait for a lock, or be the first process of a container
        os.waitpid(child, 0)
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGTERM, before)
