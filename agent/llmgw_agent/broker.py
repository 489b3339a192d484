"""THE PATH, for every tool that asks: session -> cache -> (turn) -> refresh and exchange -> answer.

However many ask at once, one of them does the work and all get what it found, a failure included. After a failure
nobody tries again for a moment; if it is a temporary one, an old token that still lives is handed out meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.cache import CachedToken, Key, Repeats, TokenCache
from llmgw_agent.errors import AgentError, RefusedError, StaleSignInError, TemporaryError
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_agent.exchange import Gateway
    from llmgw_agent.notice import Notices
    from llmgw_agent.session.current import CurrentSession
    from llmgw_agent.session.record import SignIn

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 9.0
"""What a caller waits at most: `llmgw-token` gives up at 10 s, and should have our reason by then."""
PROOF_ONLY: Final = "this gateway gives only tokens that are bound to this device, which no tool can hold"
LONGEST_PAUSE: Final = 16.0
"""Seconds without an attempt after repeated failures: 1, 2, 4, ... up to this."""


@dataclass(slots=True)
class _Failures:
    """The last failure, and how long it stands for the answer to everybody."""

    error: AgentError | None = None
    until: float = 0.0
    pause: float = 0.5

    def record(self, error: AgentError, now: float) -> None:
        self.pause = min(self.pause * 2, LONGEST_PAUSE)
        self.error, self.until = error, now + self.pause


class Broker:
    """Hands out gateway tokens."""

    def __init__(
        self,
        session: CurrentSession,
        gateway: Gateway,
        now: Callable[[], float] = time.time,
        notices: Notices | None = None,
    ) -> None:
        self._session = session
        self._gateway = gateway
        self._now = now
        self._notices = notices
        self._cache = TokenCache()
        self._repeats = Repeats()
        self._flights: dict[Key, asyncio.Task[CachedToken]] = {}
        self._failures = _Failures()
        self._kinds: set[bool] = set()
        """Which kinds of token were asked for, bound ones or not."""
        self.asked_at = float("-inf")
        """When a tool last asked."""

    async def token(self, caller: str) -> CachedToken:
        """A gateway token for this caller (a name of its process; empty if unknown).

        Raises:
            SignInRequiredError: Nobody is signed in.
            RefusedError: The gateway will not give one.
            TemporaryError: It cannot be had now, and no old one is left.
        """
        await self._revived()
        if self._cache.fresh(self._key(bound=False), self._now()) is None:
            with contextlib.suppress(TemporaryError):  # an old token may be there, and is better than none
                if await self._gateway.requires_proof():
                    raise RefusedError(PROOF_ONLY, "Run: llmgw run -- COMMAND")
        return await self._token(caller, bound=False)

    async def bound(self) -> CachedToken:
        """A token for a request that the agent makes for a tool: bound to the device key, if the gateway has such ones.

        It is of no use to whoever copies it. Raises as `token` does.
        """
        await self._revived()
        return await self._token("", bound=await self._gateway.binds_tokens())

    async def own(self) -> CachedToken:
        """A token for the agent's own questions: what tools get, too, where they get any. Raises as `token` does."""
        await self._revived()
        return await self._token("", bound=await self._gateway.requires_proof())

    async def authorization(self, token: CachedToken, method: str, target: str) -> dict[str, str]:
        """The headers with which a request carries it."""
        return await self._gateway.authorization(token, method, target)

    async def _revived(self) -> None:
        """Somebody asks: look whether a vault that was locked can be opened now, and raise if nobody is signed in."""
        self.asked_at = self._now()
        if self._session.sign_in is None:
            await self._session.revive()
        self._session.require()

    async def _token(self, caller: str, *, bound: bool) -> CachedToken:
        key = self._key(bound=bound)
        self._kinds.add(bound)
        token = self._cache.fresh(key, self._now())
        refused = token if token and caller and self._repeats.suggest_renewal(caller, token, self._now()) else None
        if token is None or refused is not None:
            token = await self._renewed(key, refused)
        if caller:
            self._repeats.handed_out(caller, token, self._now())
        return token

    async def newer(self, refused: CachedToken) -> CachedToken:
        """A token in place of one that the gateway refused; the same one if a newer was had just now, in vain.

        Raises as `token` does.
        """
        key, now = self._key(bound=refused.bound), self._now()
        fresh = self._cache.fresh(key, now)
        if fresh is not None and fresh is not refused:
            return fresh
        if key in self._flights or self._repeats.may_renew(now):
            return await self._renewed(key, refused)
        return refused

    async def renew_if_due(self) -> None:
        """Renew in the background, so that the next tool does not wait."""
        if self._session.sign_in is None:
            return
        for bound in sorted(self._kinds or {await self._gateway.requires_proof()}):
            if self._cache.fresh(self._key(bound=bound), self._now()) is None:
                await self._renewed(self._key(bound=bound), None)

    def peek(self) -> CachedToken | None:
        """The token in hand, however old; nobody is asked."""
        return self._newest(self._session.sign_in.session) if self._session.sign_in is not None else None

    def _newest(self, session: str) -> CachedToken | None:
        held = [self._cache.newest(Key(session, self._gateway.url, bound)) for bound in (False, True)]
        return max((each for each in held if each is not None), key=lambda each: each.expires_at, default=None)

    def handed_over(self) -> dict[str, Any] | None:
        """The token in hand, for the agent that this one becomes (handover.py): a sign-out revokes by it."""
        token = self.peek()
        if token is None:
            return None
        times = {"obtained_at": token.obtained_at, "expires_at": token.expires_at}
        return {"value": token.value.reveal(), "bound": token.bound} | times

    def take_over(self, left: dict[str, Any] | None) -> None:
        """Take up what was left, for a session that was taken over before."""
        if left is not None and self._session.sign_in is not None:
            token = CachedToken(Secret(left["value"]), left["obtained_at"], left["expires_at"], left["bound"])
            self._cache.put(self._key(bound=token.bound), token)

    def forget(self) -> None:
        """The session changed: its tokens and failures are of no use."""
        self._cache.clear()
        self._kinds.clear()
        self._failures = _Failures()

    async def sign_out(self) -> tuple[SignIn | None, CachedToken | None]:
        """End the session; what was held of it, newest, for revocation. Afterwards nothing of it is left here.

        Work under way is finished first: a refresh token that the provider hands out in this moment, or a token that
        the gateway mints, must come back to us to be revoked, and nothing may be written after we have forgotten.
        """
        held = self._session.sign_in
        sign_in = await self._session.end()
        await self.drain()
        token = self._newest(held.session) if held is not None else None
        self.forget()
        return sign_in, token

    async def drain(self) -> None:
        """Wait for the work under way: what the provider gave must reach the vault."""
        await asyncio.gather(*self._flights.values(), return_exceptions=True)

    def _key(self, *, bound: bool) -> Key:
        return Key(self._session.require().session, self._gateway.url, bound)

    async def _renewed(self, key: Key, refused: CachedToken | None) -> CachedToken:
        """Join the flight or start it. A caller that goes away does not end it: others wait for it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fetch(key, refused))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(flight)
        except TimeoutError:
            return self._old_or(key, TemporaryError("gateway and provider took too long", "Try again in a moment"))
        except TemporaryError as error:
            return self._old_or(key, error)

    async def _fetch(self, key: Key, refused: CachedToken | None) -> CachedToken:
        token = self._cache.fresh(key, self._now())
        if token is not None and token is not refused:
            return token
        if self._failures.error is not None and self._now() < self._failures.until:
            raise self._failures.error
        try:
            token = await self._exchange(bound=key.bound)
        except AgentError as error:
            self._failures.record(error, self._now())
            if self._notices is not None:
                self._notices.failed(error)
            raise
        if self._notices is not None:
            self._notices.recovered()
        self._failures = _Failures()
        self._cache.put(key, token)
        return token

    async def _exchange(self, *, bound: bool) -> CachedToken:
        await self._gateway.bootstrap()  # measures the clock before anything is judged by it
        sign_in = await self._session.fresh(self._gateway.now())
        try:
            answer, born_at = await self._gateway.exchange(sign_in, bound=bound)
        except StaleSignInError:
            sign_in = await self._session.fresh(self._gateway.now(), newer=True)
            answer, born_at = await self._gateway.exchange(sign_in, bound=bound)
        log.info("new gateway token %s, %d s", answer.access_token.fingerprint(), answer.expires_in)
        return CachedToken(answer.access_token, born_at, born_at + answer.expires_in, bound)

    def _old_or(self, key: Key, error: TemporaryError) -> CachedToken:
        old = self._cache.usable(key, self._now())
        if old is None:
            raise error
        log.warning("an older token is handed out: %s", error)
        return old

    def _landed(self, key: Key, done: asyncio.Task[CachedToken]) -> None:
        self._flights.pop(key, None)
        if not done.cancelled():
            done.exception()  # looked at, so that a failure nobody waited for is no warning
