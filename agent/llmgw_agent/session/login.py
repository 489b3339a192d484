"""Sign-ins under way: the daemon owns listener, state and verifier; a command gets an address and waits.

There is at most one at a time, and whoever asks for another joins it: ten terminals never open ten browser tabs.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmgw_agent.errors import UsageError
from llmgw_agent.session import device
from llmgw_agent.session.callback import SECONDS, Callback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llmgw_agent.session.current import CurrentSession
    from llmgw_agent.session.record import Attempt, DeviceAttempt, Provider, SignIn
    from llmgw_wire.messages import IssuerOffer


@dataclass(slots=True)
class Login:
    """One sign-in under way. `outcome` ends with the sign-in or an AgentError."""

    name: str
    attempt: Attempt | DeviceAttempt
    callback: Callback | None
    """None: the way back is a code, not an address."""
    expires_in: int
    outcome: asyncio.Task[SignIn]
    choose_account: bool = False


class Logins:
    """Starts sign-ins and remembers the latest."""

    def __init__(
        self,
        current: CurrentSession,
        providers: Mapping[str, Provider],
        signed_in: Callable[[], Awaitable[None]],
    ) -> None:
        self._current = current
        self._providers = providers
        self._signed_in = signed_in
        self._turn = asyncio.Lock()
        self._latest: Login | None = None

    async def start(self, offer: IssuerOffer, method: str, *, choose_account: bool = False) -> Login:
        """Begin a sign-in with this offer, or join the one under way with the same and in the same way.

        Args:
            offer: The provider.
            method: One of `settings.METHODS`.
            choose_account: Have the provider ask for the account. Whoever types a code in is asked in any case.
        """
        if method == "paste":
            # The address that is brought back has to hold the answer: with form_post it would not.
            offer = replace(offer, response_mode="query")
        async with self._turn:
            latest = self._latest
            if latest is not None and not latest.outcome.done():
                is_same = latest.attempt.offer == offer and (latest.callback is None) == (method == "device")
                if is_same and latest.choose_account == choose_account:
                    return latest
                await self._stop(latest)
            provider = self._providers[offer.kind]
            begun = await (
                self._begin_device(provider, offer)
                if method == "device"
                else self._begin(provider, offer, choose_account=choose_account)
            )
            begun.outcome.add_done_callback(_retrieve)
            self._latest = begun
            return begun

    async def _begin(self, provider: Provider, offer: IssuerOffer, *, choose_account: bool) -> Login:
        # Entra ID compares the path, too, and the registration for native apps there has none.
        callback = Callback(host=offer.redirect_host, path="" if offer.kind == "entra" else "/callback")
        await callback.start()
        try:
            attempt = await provider.begin(offer, callback.redirect_uri, choose_account=choose_account)
        except BaseException:
            await callback.close()
            raise
        callback.expect(attempt.state)
        outcome = asyncio.create_task(self._carry_out(provider, attempt, callback))
        return Login(secrets.token_hex(16), attempt, callback, SECONDS, outcome, choose_account)

    async def _begin_device(self, provider: Provider, offer: IssuerOffer) -> Login:
        attempt = await provider.begin_device(offer)
        outcome = asyncio.create_task(self._hold(device.wait(provider, attempt)))
        return Login(secrets.token_hex(16), attempt, None, attempt.expires_in, outcome)

    def get(self, name: str) -> Login:
        """A sign-in by its name; UsageError if it is not the latest."""
        if self._latest is None or not secrets.compare_digest(self._latest.name.encode(), name.encode()):
            raise UsageError("this sign-in is no longer known", "Run: llmgw login")
        return self._latest

    async def close(self) -> None:
        """End the one under way."""
        if self._latest is not None:
            await self._stop(self._latest)

    async def _carry_out(self, provider: Provider, attempt: Attempt, callback: Callback) -> SignIn:
        async def answered() -> SignIn:
            try:
                return await provider.finish(attempt, await callback.wait())
            finally:
                await callback.close()

        return await self._hold(answered())

    async def _hold(self, signing_in: Awaitable[SignIn]) -> SignIn:
        """What every way ends with."""
        sign_in = await signing_in
        await self._current.begin(sign_in)
        await self._signed_in()
        return sign_in

    @staticmethod
    async def _stop(login: Login) -> None:
        login.outcome.cancel()
        await asyncio.gather(login.outcome, return_exceptions=True)


def _retrieve(outcome: asyncio.Task[SignIn]) -> None:
    """Look at the result, so that an attempt that nobody waits for does not become a warning."""
    if not outcome.cancelled():
        outcome.exception()
