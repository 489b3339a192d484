"""Rates and slots that several replicas keep together, in Valkey: the decisions of `rates.py` as one function there.

Everything that is asked meanwhile travels in one call, over one connection: so a gateway under load pays for one round
trip and not for one for each request, and what is asked first is decided first. A server that does not answer within
the timeout is away: nobody waits for it from then on, one task knocks until it is back, and that is said once each way.

The function is loaded when the server does not know it: at the first start, after FUNCTION FLUSH, a restart, a
failover. Its name holds a digest of its text, so that old and new replicas live beside each other. It uses the server's
clock. All keys have one hash tag, because one call may touch all of them: in a cluster they live on one node, and more
nodes carry no more of this load. Every key expires when it no longer says anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import random
import secrets
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError, ResponseError

from llmgw_gateway.money.rates import AwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmgw_gateway.money.limits import LimitRef, Takes
    from llmgw_wire.secret import Secret

MOST_TOGETHER: Final = 256
"""Operations in one call: more would hold up the server's other work."""
MOST_WAITING: Final = 20_000
KNOCK_SECONDS: Final = (0.1, 5.0)
"""The first and the longest pause between attempts to reach a server that is away; each varies by half."""
CONNECT_SECONDS: Final = 2.0
MILLISECONDS: Final = 1000
log = logging.getLogger("llmgw.valkey")
Operation = list[Any]


class Library(NamedTuple):
    """A library of one function of the same name."""

    name: str
    code: str


@functools.cache
def library() -> Library:
    """The function as this version of the gateway has it."""
    lua = resources.files("llmgw_gateway.money").joinpath("rates.lua").read_text(encoding="utf-8")
    name = f"llmgw_rates_{hashlib.sha256(lua.encode()).hexdigest()[:12]}"
    return Library(name, f"#!lua name={name}\n" + lua.replace("FUNCTION_NAME", name))


class _Login(CredentialProvider):
    """User and password as they are when a connection is made."""

    def __init__(self, url: Secret, reread: Callable[[], Secret]) -> None:
        self._url = url
        self._reread = reread

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The last ones while they cannot be read: they may still be good."""
        try:
            self._url = self._reread()
        except (OSError, ValueError) as error:
            log.warning("Valkey's URL cannot be read again: %s", type(error).__name__)
        known = parse_url(self._url.reveal())
        user, password = known.get("username"), known.get("password", "")
        return (user, password) if user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same, off the loop."""
        return await asyncio.to_thread(self.get_credentials)


class Valkey:
    """One replica's way to the server. `available` says whether it is worth asking."""

    def __init__(
        self,
        url: Secret,
        *,
        prefix: str,
        timeout_ms: int,
        lease_seconds: int,
        ca_file: str = "",
        reread: Callable[[], Secret] | None = None,
    ) -> None:
        """`reread` gives the URL anew before each connection, so that its password can be replaced."""
        self.seconds = timeout_ms / MILLISECONDS
        """The longest that one question takes."""
        self.available = False
        self.replicas = 1
        """How many replicas there were when somebody last looked, this one included."""
        self.on_change: Callable[[bool], None] = _ignore
        """Told when the server has gone (False) or is back (True)."""
        self._prefix = f"{{{prefix}}}:"
        self._lease = lease_seconds * MILLISECONDS
        self._library = library()
        self._replica = secrets.token_hex(6)
        tls: dict[str, Any] = {"ssl_ca_certs": ca_file or None, "ssl_cert_reqs": "required", "ssl_check_hostname": True}
        address = url.reveal()
        login: dict[str, Any] = {}
        if reread is not None and parse_url(address).get("password"):
            parts = urlsplit(address)
            address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            login["credential_provider"] = _Login(url, reread)
        pool = ConnectionPool.from_url(
            address,
            **login,
            max_connections=1,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **(tls if url.reveal().startswith("rediss://") else {}),
        )
        self._client = Redis(connection_pool=pool)
        self._waiting: list[tuple[Callable[[dict[str, int]], Operation], asyncio.Future[list[int]] | None]] = []
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._said_policy = ""

    async def start(self) -> None:
        """Reach the server, or leave that to the background when it is away."""
        try:
            await self._greet()
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("Valkey cannot be reached (%s): each replica keeps its limits by itself", type(error).__name__)
            self._knock()
        self._tasks.append(asyncio.create_task(self._work(), name="valkey"))

    async def close(self) -> None:
        """Send what is still waiting, if the server takes it, and hang up."""
        with contextlib.suppress(AwayError):
            if self.available:
                await self._ask(lambda keys: ["release", self._replica, [_number(keys, "replicas")]])
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._hang_up()

    def admit(self, attempt: str, limits: Sequence[LimitRef], amounts: Takes) -> asyncio.Future[list[int]]:
        """Ask for all limits at once; `Full.read` reads the answer. AwayError."""

        def operation(keys: dict[str, int]) -> Operation:
            takes = [[int(ref.is_slots), _number(keys, ref.key), ref.limit, amounts[ref.amount]] for ref in limits]
            return ["admit", attempt, self._lease, takes]

        return self._ask(operation)

    def correct(self, changes: Sequence[tuple[str, int, int]]) -> None:
        """Pour into buckets or out of them: key, limit, difference. Once at most: an outage may swallow it."""
        self._tell(lambda keys: ["correct", [[_number(keys, key), limit, more] for key, limit, more in changes]])

    def renew(self, attempt: str, slots: Sequence[str]) -> None:
        """Extend an attempt's slots."""
        self._tell(lambda keys: ["renew", attempt, self._lease, [_number(keys, key) for key in slots]])

    def release(self, attempt: str, slots: Sequence[str]) -> None:
        """Free an attempt's slots."""
        self._tell(lambda keys: ["release", attempt, [_number(keys, key) for key in slots]])

    def used(self, limits: Sequence[LimitRef]) -> asyncio.Future[list[int]]:
        """What is in use of each limit. AwayError."""
        return self._ask(
            lambda keys: ["used", [[int(ref.is_slots), _number(keys, ref.key), ref.limit] for ref in limits]]
        )

    async def count_replicas(self) -> None:
        """Say that this one lives, and see how many others do."""
        with contextlib.suppress(AwayError):
            (self.replicas,) = await self._ask(self._present)

    def _present(self, keys: dict[str, int]) -> Operation:
        return ["present", self._replica, self._lease, _number(keys, "replicas")]

    def _ask(self, operation: Callable[[dict[str, int]], Operation]) -> asyncio.Future[list[int]]:
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        if not self.available or len(self._waiting) > MOST_WAITING:
            answer.set_exception(AwayError)
            return answer
        self._waiting.append((operation, answer))
        self._wake.set()
        return answer

    def _tell(self, operation: Callable[[dict[str, int]], Operation]) -> None:
        if self.available and len(self._waiting) <= MOST_WAITING:
            self._waiting.append((operation, None))
            self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                keys: dict[str, int] = {}
                operations = [operation(keys) for operation, _ in batch]
                try:
                    async with asyncio.timeout(self.seconds):
                        answers = await self._call(keys, operations)
                except Exception as error:  # noqa: BLE001 -- whatever it is, those who wait go on without the server
                    await self._lose(error, batch)
                    break
                for (_, future), answer in zip(batch, answers, strict=True):
                    if future is not None and not future.done():
                        future.set_result(answer)

    async def _lose(self, error: Exception, batch: list[Any]) -> None:
        lost, self._waiting = [*batch, *self._waiting], []
        self.available = False
        for _, future in lost:
            if future is not None and not future.done():
                future.set_exception(AwayError)
                future.exception()  # who no longer waits for it must not be reported
        why = str(error) if isinstance(error, ResponseError) else type(error).__name__
        share = f"1/{self.replicas} of each limit" if self.replicas > 1 else "the whole of each limit"
        log.warning("Valkey is away (%s): this replica keeps %s by itself until it is back", why, share)
        self.on_change(False)  # noqa: FBT003 -- a callback
        await self._hang_up()
        self._knock()

    def _knock(self) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._knocking(), name="valkey-knock"))

    async def _knocking(self) -> None:
        pause, longest = KNOCK_SECONDS
        while not self.available:
            await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311 -- no secret: replicas must not knock at once
            pause = min(pause * 2, longest)
            try:
                await self._greet()
            except Exception:  # noqa: BLE001 -- a server that talks nonsense is one that is away
                await self._hang_up()
        log.warning("Valkey is back: limits are kept together again")
        self.on_change(True)  # noqa: FBT003 -- a callback

    async def _greet(self) -> None:
        """The first words on a new connection: is the function there, who else is, and may keys be evicted?"""
        async with asyncio.timeout(CONNECT_SECONDS):
            keys: dict[str, int] = {}
            ((self.replicas,),) = await self._call(keys, [self._present(keys)])
            memory = await self._client.info("memory")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if policy not in {"noeviction", self._said_policy}:
            self._said_policy = policy
            log.warning("Valkey evicts keys when it is full (maxmemory-policy %s): set it to noeviction", policy)
        self.available = True

    async def _hang_up(self) -> None:
        """The connection may have half an answer in it, or lead to a server that is no longer the primary."""
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self._client.connection_pool.disconnect()

    async def _call(self, keys: dict[str, int], operations: list[Operation]) -> list[list[int]]:
        words = [self._prefix + key for key in keys]
        text = msgspec.json.encode(operations)
        try:
            answer = await self._client.fcall(self._library.name, len(words), *words, text)
        except ResponseError as error:
            if "function not found" not in str(error).lower():
                raise
            await self._client.function_load(self._library.code, replace=True)
            answer = await self._client.fcall(self._library.name, len(words), *words, text)
        answers: list[list[int]] = answer[1:]
        return answers


def _number(keys: dict[str, int], key: str) -> int:
    """The number by which Lua finds a key, counted from one."""
    return keys.setdefault(key, len(keys) + 1)


def _ignore(_available: bool) -> None:  # noqa: FBT001 -- stands for a callback
    """Nobody listens yet."""
