"""How a command writes: into the store itself, or through the gateway that has the store's file."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from typing import TYPE_CHECKING, Any, TypeVar

from llmgw_gateway import control
from llmgw_gateway.errors import GatewayError, StoreAwayError, StoreError
from llmgw_gateway.store.database import Database
from llmgw_gateway.store.opening import backend

Item = TypeVar("Item", bound="control.Order")

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from llmgw_gateway.settings import Settings


def do(
    settings: Settings,
    route: str,
    item: control.Order,
    work: Callable[[Database], Coroutine[Any, Any, Any]],
) -> Any:  # noqa: ANN401 -- what the work gives
    """Write to the store; where a gateway has the file, let that gateway write. StoreError when neither can."""
    (done,) = do_all(settings, route, [item], lambda database, _: work(database))
    return done


def do_all(
    settings: Settings,
    route: str,
    items: Sequence[Item],
    work: Callable[[Database, Item], Coroutine[Any, Any, Any]],
    told: Callable[[Any], None] = lambda _: None,
) -> list[Any]:
    """The same for one item after the other, telling `told` what each gave. Those before an error are written."""
    try:
        store = backend(settings)
    except StoreError:
        path = control.socket_of(settings.path(settings.store.path))
        if not path.exists():
            raise

        async def ask() -> list[Any]:
            return [_tell(told, await control.ask(path, route, item)) for item in items]

        return asyncio.run(ask())

    async def write() -> list[Any]:
        database = Database(store)
        database.start()
        try:
            return [_tell(told, await work(database, item)) for item in items]
        except StoreAwayError as error:
            raise StoreError(f"{error.message} {control.UNKNOWN}" if error.uncertain else error.message) from None
        except GatewayError as error:
            raise StoreError(error.message) from None
        finally:
            database.close()

    return asyncio.run(write())


def _tell(told: Callable[[Any], None], done: Any) -> Any:  # noqa: ANN401 -- what the work gives
    told(done)
    return done


def who() -> str:
    """The system's word for who runs the command: the environment can say anything. Under sudo also for whom."""
    name = pwd.getpwuid(os.getuid()).pw_name
    behind = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    return f"{behind}/{name}@{socket.gethostname()}" if behind else f"{name}@{socket.gethostname()}"
