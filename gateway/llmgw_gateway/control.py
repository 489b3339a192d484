"""A door for commands on the gateway's own machine, where the store is a file that only the gateway may write.

A Unix socket beside the file, open to the gateway's user alone: whoever can connect could also write the file. On a
shared store there is none: commands write there themselves.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import ClientSession, ClientTimeout, UnixConnector, web
from aiohttp.client_exceptions import ClientConnectorError, ClientError

from llmgw_gateway.errors import GatewayError, StoreAwayError, StoreError
from llmgw_gateway.identity.erasing import Erasure, erase_person
from llmgw_gateway.identity.importing import Batch, Importing
from llmgw_gateway.identity.people import PersonOrder
from llmgw_gateway.identity.roles import NewCode, NewRole, RoleEnd
from llmgw_gateway.identity.service_keys import NewKey, Rotation, Withdrawn
from llmgw_gateway.money.adjustments import NewAdjustment, Withdrawal
from llmgw_gateway.money.writeoff import WriteOff, write_off
from llmgw_gateway.retention import Round

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from llmgw_gateway.identity.people import People
    from llmgw_gateway.identity.roles import Roles
    from llmgw_gateway.identity.service_keys import ServiceKeys
    from llmgw_gateway.money.adjustments import Adjustments
    from llmgw_gateway.observe.chain import Key
    from llmgw_gateway.retention import Retention
    from llmgw_gateway.store.database import Database

    Order = (
        NewAdjustment
        | Withdrawal
        | WriteOff
        | NewKey
        | Rotation
        | Withdrawn
        | PersonOrder
        | NewRole
        | RoleEnd
        | NewCode
        | Erasure
        | Batch
        | Round
    )
    Work = Callable[[Any], Coroutine[Any, Any, Any]]

MAKE: Final = "/adjustments"
WITHDRAW: Final = "/withdrawals"
WRITE_OFF: Final = "/write-offs"
MAKE_KEY: Final = "/keys"
ROTATE_KEY: Final = "/key-rotations"
REVOKE_KEY: Final = "/key-revocations"
PERSON: Final = "/people"
GRANT_ROLE: Final = "/roles"
REVOKE_ROLE: Final = "/role-revocations"
IMPORT: Final = "/imports"
MAKE_CODE: Final = "/setup-codes"
ERASE: Final = "/erasures"
RETAIN: Final = "/retention"
SECONDS: Final = 10
LONGEST_PATH: Final = 100
"""Bytes: the system allows a few more for the path of a socket."""
OPEN_FILES: Final = Path("/proc/self/fd")
"""On Linux, a folder that was opened has a short path here, however long its own is."""
FAULTY: Final = 400
UNKNOWN: Final = (
    "it is not known whether this was done: look with `llmgw-gateway budget show` (`budget allowances` for a "
    "write-off, `keys list`, `people show` or `roles list`), and do it again only if it is not there"
)


def socket_of(store: Path) -> Path:
    """Where the gateway that has this file listens."""
    return store.with_name(store.name + ".control")


@contextmanager
def short(path: Path) -> Iterator[str]:
    """The path of a socket as the system takes it; StoreError when it is too long in every form."""
    text = str(path)
    with ExitStack() as stack:
        if len(os.fsencode(text)) > LONGEST_PATH and OPEN_FILES.exists():
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            text = str(OPEN_FILES / str(folder) / path.name)
        if len(os.fsencode(text)) > LONGEST_PATH:
            raise StoreError(f"{path} is too long for a socket: give the store a shorter path")
        yield text


class Control:
    """The gateway's end."""

    def __init__(
        self,
        database: Database,
        adjustments: Adjustments,
        keys: ServiceKeys,
        people: People,
        roles: Roles,
        retention: Retention,
        sealing: Callable[[], Key],
        path: Path,
    ) -> None:
        """`sealing` reads the key of the audit trail."""
        self._path = path
        self._orders: dict[str, tuple[type[Any], Work]] = {
            MAKE: (NewAdjustment, adjustments.make),
            WITHDRAW: (Withdrawal, adjustments.withdraw),
            WRITE_OFF: (WriteOff, partial(database.submit, write_off)),
            MAKE_KEY: (NewKey, keys.make),
            ROTATE_KEY: (Rotation, keys.rotate),
            REVOKE_KEY: (Withdrawn, keys.revoke),
            PERSON: (PersonOrder, people.carry_out),
            GRANT_ROLE: (NewRole, roles.give),
            REVOKE_ROLE: (RoleEnd, roles.end),
            MAKE_CODE: (NewCode, roles.make_code),
            RETAIN: (Round, retention.begin),
            ERASE: (Erasure, partial(erase_person, database, sealing, tell=people.tell)),
            IMPORT: (Batch, Importing(database).write),
        }
        self._runner: web.AppRunner | None = None
        self._stack = ExitStack()

    async def start(self) -> None:
        """Listen; StoreError when the socket cannot be made."""
        place = self._stack.enter_context(short(self._path))
        app = web.Application()
        for route, (kind, work) in self._orders.items():
            app.router.add_post(route, partial(_do, kind, work))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        # The store's lock says that nobody else listens here: what is left is of a gateway that was killed.
        if self._path.exists() and stat.S_ISSOCK(self._path.lstat().st_mode):
            self._path.unlink()
        before = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, place).start()
        except OSError as error:
            raise StoreError(f"{self._path}: no socket for commands can be made: {error.strerror}") from None
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._stack.close()


async def _do(kind: type[Any], work: Work, request: web.Request) -> web.Response:
    try:
        order = msgspec.json.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        return web.json_response({"error": str(error)}, status=FAULTY)
    return await _answer(work(order))


async def _answer(work: Any) -> web.Response:  # noqa: ANN401 -- a coroutine
    try:
        return web.json_response({"result": await work})
    except StoreAwayError as error:
        unknown = {"unknown": True} if error.uncertain else {}
        return web.json_response({"error": error.message} | unknown, status=error.code.wire.status)
    except GatewayError as error:
        return web.json_response({"error": error.message}, status=error.code.wire.status)


async def ask(path: Path, route: str, item: Order) -> Any:  # noqa: ANN401 -- the answer's JSON
    """The command's end: have the gateway that listens at `path` do it.

    StoreError says why it did not, or that nobody knows whether it did.
    """
    try:
        with short(path) as place:
            answer = await _post(place, route, item)
    except ClientConnectorError as error:
        raise StoreError(
            f"the store is in use by a gateway that does not answer at {path} ({type(error).__name__}): "
            "run the command as the gateway's user, or stop the gateway"
        ) from None
    except (ClientError, OSError, TimeoutError, ValueError) as error:
        raise StoreError(f"the gateway gave no answer ({type(error).__name__}); {UNKNOWN}") from None
    if "unknown" in answer:
        raise StoreError(f"{answer['error']} {UNKNOWN[0].upper()}{UNKNOWN[1:]}")
    if "error" in answer:
        raise StoreError(f"the gateway refused: {answer['error']}")
    return answer["result"]


async def _post(place: str, route: str, item: Order) -> Any:  # noqa: ANN401 -- the answer's JSON
    async with (
        ClientSession(connector=UnixConnector(place), timeout=ClientTimeout(total=SECONDS)) as session,
        session.post(f"http://gateway{route}", data=msgspec.json.encode(item)) as response,
    ):
        return await response.json()
