"""A door for commands on the gateway's own machine, where the store is a file that only the gateway may write.

A Unix socket beside the file, open to the gateway's user alone: whoever can connect could also write the file. On a
shared store there is none: commands write there themselves.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import ClientSession, ClientTimeout, UnixConnector, web
from aiohttp.client_exceptions import ClientError

from llmgw_gateway.errors import GatewayError, StoreError
from llmgw_gateway.money.adjustments import Withdrawal
from llmgw_gateway.money.overrides import Adjustment
from llmgw_gateway.money.writeoff import WriteOff, write_off

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.money.adjustments import Adjustments
    from llmgw_gateway.store.database import Database

    Order = Adjustment | Withdrawal | WriteOff

MAKE: Final = "/adjustments"
WITHDRAW: Final = "/withdrawals"
WRITE_OFF: Final = "/write-offs"
SECONDS: Final = 10
LONGEST_PATH: Final = 100
"""Bytes: the system allows a few more for the path of a socket."""
FAULTY: Final = 400


def socket_of(store: Path) -> Path:
    """Where the gateway that has this file listens."""
    return store.with_name(store.name + ".control")


class Control:
    """The gateway's end."""

    def __init__(self, database: Database, adjustments: Adjustments, path: Path) -> None:
        self._database = database
        self._adjustments = adjustments
        self._path = path
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; StoreError when the socket cannot be made."""
        if len(os.fsencode(self._path)) > LONGEST_PATH:
            raise StoreError(f"{self._path} is too long for a socket: put the store into a folder with a shorter path")
        app = web.Application()
        app.router.add_post(MAKE, self._make)
        app.router.add_post(WITHDRAW, self._withdraw)
        app.router.add_post(WRITE_OFF, self._write_off)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        # The store's lock says that nobody else listens here: what is left is of a gateway that was killed.
        if self._path.exists() and stat.S_ISSOCK(self._path.lstat().st_mode):
            self._path.unlink()
        before = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        except OSError as error:
            raise StoreError(f"{self._path}: no socket for commands can be made: {error.strerror}") from None
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _make(self, request: web.Request) -> web.Response:
        try:
            adjustment = msgspec.json.decode(await request.read(), type=Adjustment)
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=FAULTY)
        return await _answer(self._adjustments.make(adjustment))

    async def _withdraw(self, request: web.Request) -> web.Response:
        try:
            withdrawal = msgspec.json.decode(await request.read(), type=Withdrawal)
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=FAULTY)
        return await _answer(self._adjustments.withdraw(withdrawal))

    async def _write_off(self, request: web.Request) -> web.Response:
        try:
            item = msgspec.json.decode(await request.read(), type=WriteOff)
        except msgspec.DecodeError as error:
            return web.json_response({"error": str(error)}, status=FAULTY)
        return await _answer(self._database.submit(write_off, item))


async def _answer(work: Any) -> web.Response:  # noqa: ANN401 -- a coroutine
    try:
        return web.json_response({"result": await work})
    except GatewayError as error:
        return web.json_response({"error": error.message}, status=error.code.wire.status)


async def ask(path: Path, route: str, item: Order) -> Any:  # noqa: ANN401 -- the answer's JSON
    """The command's end: have the gateway that listens at `path` do it. StoreError says why it did not."""
    try:
        async with (
            ClientSession(connector=UnixConnector(str(path)), timeout=ClientTimeout(total=SECONDS)) as session,
            session.post(f"http://gateway{route}", data=msgspec.json.encode(item)) as response,
        ):
            answer = await response.json()
    except (ClientError, OSError, TimeoutError, ValueError) as error:
        raise StoreError(
            f"the store is in use by a gateway that does not answer at {path} ({type(error).__name__}): "
            "run the command as the gateway's user, or stop the gateway"
        ) from None
    if "error" in answer:
        raise StoreError(f"the gateway refused: {answer['error']}")
    return answer["result"]
