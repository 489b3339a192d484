"""The background process: the one place where the parts are put together, started, served and drained."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
import time
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final

from aiohttp import web

from llmgw_agent import __version__, rest, settings, system
from llmgw_agent.broker import Broker
from llmgw_agent.entrance import Entrance
from llmgw_agent.errors import AgentError, ConfigurationError, speak_for
from llmgw_agent.exchange import Gateway
from llmgw_agent.forward import Forward
from llmgw_agent.handover import Handover
from llmgw_agent.listener import DaemonLock, Served, identity, inherited, listen, remove
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

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmgw_agent.session.record import Provider
    from llmgw_agent.settings import Settings

log = logging.getLogger("llmgw_agent.daemon")  # also when it runs as __main__

WATCH_SECONDS: Final = 20.0
"""Between looks at the wall clock: timers sleep when a laptop does, so nothing waits longer than this in one piece."""
ACTIVE_SECONDS: Final = 900.0
"""Tokens are renewed in the background for as long after a tool's last question. Then the agent falls silent, and when
nobody at all has asked for as long, it rests (rest.py)."""
DRAIN_SECONDS: Final = 8.0
REST_TRIES: Final = 20
REST_PAUSE: Final = 0.1
"""Seconds between two looks whether what was under way has ended."""
HEARD: Final = 3
"""Turns of the loop until it has called the handler of a signal that has come."""
LOG_BYTES: Final = 512 * 1024
CHECK: Final = "Check who owns it"


class Quiet:
    """For how long nobody has asked. Pure: what was counted and the time are arguments."""

    def __init__(self, now: float) -> None:
        self._requests = 0
        self._since = now

    def seconds(self, requests: int, now: float) -> float:
        """Seconds without a request, as far as known; `requests`: how many there have been."""
        if requests != self._requests or now < self._since:
            self._requests, self._since = requests, now
        return now - self._since


class Daemon:
    """One running agent."""

    def __init__(self, given: Settings, lock: DaemonLock, started: float) -> None:
        """`started`: when it was started first, in seconds since the epoch."""
        self._settings = given
        self._lock = lock
        self._started = started
        self._stopping = asyncio.Event()
        self._called = asyncio.Event()
        """Set with `_stopping`, and when it is time to rest."""
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
            rest=self._called.set,
            started=started,
        )

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Begin to drain."""
        self._stopping.set()
        self._called.set()

    async def run(self, left: Handover | None = None) -> list[int] | None:
        """Start, or go on with what was `left`; serve until told to stop, and drain: None.

        Or until it is time to rest: what `rest.lie_down` takes.
        """
        loop = asyncio.get_running_loop()
        for number in rest.ENDING:
            loop.add_signal_handler(number, self.stop)
        rest.hold_back(ends=False)
        if left is None:
            await self._vault.open()
            self._session.restore()
            handed = inherited(self._settings.places.socket, os.environ)
            door = handed or listen(self._settings.places.socket)
            # A socket of the service manager stays: whoever asks meanwhile is answered by the next agent.
            bound = None if handed else identity(self._settings.places.socket)
            await self._entrance.start()
        else:
            self._take_over(left)
            door, bound = socket.socket(fileno=left.door), left.bound
            await self._entrance.start(
                socket.socket(fileno=left.relay), socket.socket(fileno=left.port) if left.port is not None else None
            )
        runner = web.AppRunner(self._api.application(), access_log=None, shutdown_timeout=DRAIN_SECONDS)
        served = Served(runner, door)
        await served.start()
        log.info("%s, version %s, gateway %s", "awake" if left else "serving", __version__, self._settings.gateway_url)
        watch = asyncio.create_task(self._watch(served))
        try:
            await self._called.wait()
            while not self._stopping.is_set():
                self._called.clear()
                await _ended(watch)
                if (kept := await self._rest(served, bound)) is not None:
                    return kept
                watch = asyncio.create_task(self._watch(served))
                await self._called.wait()
        except BaseException:
            await self._drain(served, watch, bound)
            raise
        await self._drain(served, watch, bound)
        return None

    def _take_over(self, left: Handover) -> None:
        self._vault.take_over(left.parts["vault"])
        self._session.take_over(left.parts["session"])
        self._broker.take_over(left.parts["broker"])
        self._notices.take_over(left.parts["notices"])

    async def _rest(self, served: Served, bound: tuple[int, int] | None) -> list[int] | None:
        """Close everything but what has to stay; None, and all is as before, if something is under way."""
        everywhere = [served, *self._entrance.served]
        for _ in range(REST_TRIES):
            for each in everywhere:
                await each.pause()
            # Nobody comes in now. Whatever is under way, a request, a sign-in, a message, is a task or a guest.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            is_free = not others and not any(each.has_guests for each in everywhere) and not self._api.passes.listed()
            is_free = is_free and self._vault.is_settled
            rest.hold_back(ends=True)  # whoever ends us now ends us at rest
            for _ in range(HEARD):  # what came before is heard
                await asyncio.sleep(0)
            is_free = is_free and not self._stopping.is_set()
            if is_free and (files := self._kept(everywhere, bound).write()) is not None:
                await self._close(everywhere)
                return files
            rest.hold_back(ends=False)
            for each in everywhere:
                await each.start()
            if self._stopping.is_set():
                return None
            await asyncio.sleep(REST_PAUSE)
        log.info("not at rest: something is under way")
        return None

    def _kept(self, everywhere: Sequence[Served], bound: tuple[int, int] | None) -> Handover:
        door, relay, *port = (each.listener.fileno() for each in everywhere)
        return Handover(
            lock=self._lock.handle,
            door=door,
            relay=relay,
            port=port[0] if port else None,
            bound=bound,
            started=self._started,
            parts={
                "vault": self._vault.handed_over(),
                "session": self._session.handed_over(),
                "broker": self._broker.handed_over(),
                "notices": self._notices.handed_over(),
            },
        )

    async def _close(self, everywhere: Sequence[Served]) -> None:
        for each in everywhere:
            each.listener.detach()
            await each.close()
        await self._forward.close()
        await self._outgoing.close()
        # Threads hold back no signal. What they were given is heard here; without them, what comes waits for the next.
        await asyncio.get_running_loop().shutdown_default_executor()
        for _ in range(HEARD):
            await asyncio.sleep(0)
        log.info("at rest")

    async def _drain(self, served: Served, watch: asyncio.Task[None], bound: tuple[int, int] | None) -> None:
        log.info("draining")
        await _ended(watch)
        if bound is not None:
            remove(self._settings.places.socket, bound)
        await self._api.passes.close()
        await self._logins.close()
        await self._entrance.close()
        await self._standing.close()
        await self._broker.drain()
        await self._notices.close()
        await served.close()
        await self._vault.close()
        await self._forward.close()
        await self._outgoing.close()
        log.info("ended")

    async def _watch(self, served: Served) -> None:
        """Keep the token fresh while tools are at work; the spread keeps a company's laptops out of step."""
        quiet = Quiet(time.time())
        while True:
            await asyncio.sleep(WATCH_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 -- only a rhythm
            try:
                await self._api.passes.end_expired()
                await self._session.revive()
                await self._vault.retry()
                requests = sum(each.requests for each in (served, *self._entrance.served))
                if quiet.seconds(requests, time.time()) > ACTIVE_SECONDS and self._vault.is_settled:
                    self._called.set()
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


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _kind() -> type[Daemon]:
    if system.HAS_SOCKETS:
        return Daemon
    from llmgw_agent.windows.daemon import PipeDaemon  # noqa: PLC0415 -- for one system alone

    return PipeDaemon


def log_to(path: Path) -> None:
    """Write the agent's own lines to a small rotating file that only its user reads.

    Lines of libraries stay out: some quote requests, with their credentials, when they cannot parse them.
    """
    system.private_folder(path.parent)
    system.log_file(path)
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


def run(words: Sequence[str] = ()) -> bool:
    """Be the daemon, until told to stop. False, at once, if there is one already; AgentError if it cannot start.

    Args:
        words: Of a process that wakes (rest.py): whether only to end, and the files that were handed over.
    """
    os.umask(0o077)
    system.harden()
    left = Handover.read(int(words[1]), [int(each) for each in words[2:]]) if words else None
    speak_for(settings.places(os.environ).profile)
    given = settings.load(os.environ)
    lock = DaemonLock(given.places.lock, left.lock if left else -1)
    try:
        if left is None and not lock.acquire():
            return False
        log_to(given.places.log)
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be used ({error.strerror})", CHECK) from None

    async def serve() -> tuple[list[int] | None, bool]:
        daemon = _kind()(given, lock, left.started if left else time.time())
        if rest.END in words:
            daemon.stop()
        return await daemon.run(left), daemon.is_stopping

    try:
        kept, is_ending = asyncio.run(serve())
        if kept is not None and is_ending:  # told so while it lay down
            rest.wake(rest.END, *map(str, kept))
        if kept is not None:
            rest.lie_down(kept)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or 'a file'} cannot be used ({error.strerror})", CHECK) from None
    finally:
        lock.release()
    return True


def main() -> None:
    """The daemon as a command starts it: what goes wrong is one line on stderr and an exit code."""
    try:
        run(sys.argv[1:])
    except AgentError as error:
        sys.stderr.write(f"{error.code}\t{error.message}\t{error.hint}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
