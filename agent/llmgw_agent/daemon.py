"""The background process: the one place where the parts are put together, started, served and drained."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import random
import signal
import sys
import time
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llmgw_agent import __version__, settings
from llmgw_agent.broker import Broker
from llmgw_agent.entrance import Entrance
from llmgw_agent.errors import AgentError, ConfigurationError, speak_for
from llmgw_agent.exchange import Gateway
from llmgw_agent.forward import Forward
from llmgw_agent.listener import DaemonLock, identity, inherited, listen, private_folder, remove
from llmgw_agent.localapi import LocalApi
from llmgw_agent.notice import Notices
from llmgw_agent.outgoing import Outgoing, trust
from llmgw_agent.session.current import CurrentSession
from llmgw_agent.session.id_token import Discovery
from llmgw_agent.session.late import LateEntra
from llmgw_agent.session.login import Logins
from llmgw_agent.session.oidc import OidcProvider
from llmgw_agent.standing import Standing
from llmgw_agent.tripwire import Tripwire
from llmgw_agent.vault import Vault

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from llmgw_agent.session.record import Provider
    from llmgw_agent.settings import Settings

log = logging.getLogger("llmgw_agent.daemon")  # also when it runs as __main__

WATCH_SECONDS: Final = 20.0
"""Between looks at the wall clock: timers sleep when a laptop does, so nothing waits longer than this in one piece."""
ACTIVE_SECONDS: Final = 900.0
"""Tokens are renewed in the background for as long after a tool's last question. Then the agent falls silent."""
DRAIN_SECONDS: Final = 8.0
LOG_BYTES: Final = 512 * 1024
PR_SET_DUMPABLE: Final = 4
CHECK: Final = "Check who owns it"


class Daemon:
    """One running agent."""

    def __init__(self, given: Settings) -> None:
        self._settings = given
        self._stopping = asyncio.Event()
        self._trust = trust(given.ca_file)
        self._outgoing = Outgoing(self._trust)
        self._vault = Vault(given.places.vault, profile=str(given.places.home))
        discovery = Discovery(self._outgoing)
        providers: dict[str, Provider] = {
            "oidc": OidcProvider(self._outgoing, discovery),
            "entra": LateEntra(discovery, self._trust),
        }
        self._session = CurrentSession(self._vault, providers)
        self._gateway = Gateway(given.gateway_url, self._outgoing, self._vault)
        self._notices = Notices()
        self._broker = Broker(self._session, self._gateway, notices=self._notices)
        self._standing = Standing(self._broker, self._gateway, self._session)
        self._logins = Logins(self._session, providers, self._signed_in)
        self._forward = Forward(self._broker, given.gateway_url, self._trust)
        self._entrance = Entrance(
            self._forward,
            gateway_url=given.gateway_url,
            file=given.places.door,
            socket=given.places.relay,
            port=given.forward_port,
        )
        self._api = LocalApi(
            broker=self._broker,
            gateway=self._gateway,
            session=self._session,
            logins=self._logins,
            providers=providers,
            vault=self._vault,
            entrance=self._entrance,
            standing=self._standing,
            tripwire=Tripwire(given.gateway_url, refuses=given.project_redirects == "refuse", notices=self._notices),
            methods=given.sign_in_methods,
            profile=given.places.profile,
            passes_folder=given.places.socket.parent,
            stop=self.stop,
        )

    def stop(self) -> None:
        """Begin to drain."""
        self._stopping.set()

    async def run(self) -> None:
        """Start, serve until told to stop, drain."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self._vault.open()
        self._session.restore()
        handed = inherited(self._settings.places.socket, os.environ)
        door = handed or listen(self._settings.places.socket)
        # A socket of the service manager stays: whoever asks meanwhile is answered by the next agent.
        bound = None if handed else identity(self._settings.places.socket)
        runner = web.AppRunner(self._api.application(), access_log=None, shutdown_timeout=DRAIN_SECONDS)
        await runner.setup()
        await self._entrance.start()
        await web.SockSite(runner, door).start()
        log.info("serving, version %s, gateway %s", __version__, self._settings.gateway_url)
        watch = asyncio.create_task(self._watch())
        try:
            await self._stopping.wait()
        finally:
            await self._drain(runner, door, watch, bound)

    async def _drain(
        self, runner: web.AppRunner, door: socket.socket, watch: asyncio.Task[None], bound: tuple[int, int] | None
    ) -> None:
        log.info("draining")
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        if bound is not None:
            remove(self._settings.places.socket, bound)
        await self._api.passes.close()
        await self._logins.close()
        await self._entrance.close()
        await self._standing.close()
        await self._broker.drain()
        await self._notices.close()
        await runner.cleanup()
        door.close()
        await self._vault.close()
        await self._forward.close()
        await self._outgoing.close()
        log.info("ended")

    async def _watch(self) -> None:
        """Keep the token fresh while tools are at work; the spread keeps a company's laptops out of step."""
        while True:
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 -- only a rhythm
            try:
                await self._api.passes.end_expired()
                await self._session.revive()
                await self._vault.retry()
                if time.time() - self._broker.asked_at > ACTIVE_SECONDS:
                    continue
                await self._broker.renew_if_due()
            except AgentError as error:
                log.info("not renewed in the background: %s", error)
            except Exception as error:  # noqa: BLE001 -- one bad round must not end the watch; the text may hold a secret
                log.error("not renewed in the background: unexpected %s", type(error).__name__)  # noqa: TRY400

    async def _signed_in(self) -> None:
        """The first exchange enrols this device, while the sign-in is recent; a refusal is the sign-in's outcome."""
        self._broker.forget()
        await self._broker.renew_if_due()


def harden() -> None:
    """Keep other processes of this user, and core files, out of our memory. ssh-agent does the same."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def log_to(path: Path) -> None:
    """Write the agent's own lines to a small rotating file that only its user reads.

    Lines of libraries stay out: some quote requests, with their credentials, when they cannot parse them.
    """
    private_folder(path.parent)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=2, encoding="utf-8")
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    own = logging.getLogger("llmgw_agent")
    own.addHandler(handler)
    own.setLevel(logging.INFO)
    own.propagate = False
    for name in ("aiohttp", "asyncio", "msal", "urllib3"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False


def run() -> bool:
    """Be the daemon, until told to stop. False, at once, if there is one already; AgentError if it cannot start."""
    os.umask(0o077)
    speak_for(settings.places(os.environ).profile)
    given = settings.load(os.environ)
    lock = DaemonLock(given.places.lock)
    try:
        if not lock.acquire():
            return False
        log_to(given.places.log)
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be used ({error.strerror})", CHECK) from None
    harden()

    async def serve() -> None:
        await Daemon(given).run()

    try:
        asyncio.run(serve())
    except OSError as error:
        raise ConfigurationError(f"{error.filename or 'a file'} cannot be used ({error.strerror})", CHECK) from None
    finally:
        lock.release()
    return True


def main() -> None:
    """The daemon as a command starts it: what goes wrong is one line on stderr and an exit code."""
    try:
        run()
    except AgentError as error:
        sys.stderr.write(f"{error.code}\t{error.message}\t{error.hint}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
