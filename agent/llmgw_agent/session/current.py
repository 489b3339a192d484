"""The sign-in that this daemon holds: kept in the vault, renewed at the provider, ended only when that is certain."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.errors import SessionEndedError, SignInRequiredError
from llmgw_agent.session.record import SignIn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_agent.session.record import Provider
    from llmgw_agent.vault import Vault

log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 270
"""Age up to which the provider's token is shown to the gateway, which wants at most 300 s."""
SKEW_SECONDS: Final = 30
"""Clocks of gateway and provider differ a little: a token from the near future is a fresh one."""
ENTRY: Final = "sign_in"


class CurrentSession:
    """One person's sign-in, or none."""

    def __init__(self, vault: Vault, providers: Mapping[str, Provider]) -> None:
        self._vault = vault
        self._providers = providers
        self._turn = asyncio.Lock()
        self._sign_in: SignIn | None = None
        self._ended = SignInRequiredError("you are not signed in", "Run: llmgw login")

    def restore(self) -> None:
        """Take the sign-in from the opened vault, if there is one."""
        document = self._vault.get(ENTRY)
        try:
            self._sign_in = SignIn.load(document) if document else None
        except (KeyError, TypeError):
            log.warning("the sign-in in the vault is of another version and is not used")

    def handed_over(self) -> dict[str, Any]:
        """Why nobody is signed in, for the agent that this one becomes; a sign-in itself is in the vault."""
        return {"message": self._ended.message, "hint": self._ended.hint}

    def take_over(self, left: dict[str, Any]) -> None:
        """Take up what was left, from a vault that was taken over before."""
        self._ended = SignInRequiredError(left["message"], left["hint"])
        self.restore()

    async def revive(self) -> None:
        """Take up the sign-in of a vault that could not be opened when we started, if it can be now.

        A service starts with the session, and the keyring is unlocked when its owner has typed the password.
        """
        if await self._vault.reopen() and self._sign_in is None:
            self.restore()

    @property
    def sign_in(self) -> SignIn | None:
        """Who is signed in, as known here; nobody is asked."""
        return self._sign_in

    def require(self) -> SignIn:
        """The sign-in; SignInRequiredError says why there is none."""
        if self._sign_in is None:
            raise type(self._ended)(self._ended.message, self._ended.hint)
        return self._sign_in

    async def begin(self, sign_in: SignIn) -> None:
        """Hold this sign-in in place of the one before."""
        async with self._turn:
            await self._vault.put(**{ENTRY: sign_in.dump()})
            self._sign_in = sign_in

    async def end(self) -> SignIn | None:
        """Forget it, here and in the vault; returns what was held, for revocation."""
        async with self._turn:
            held, self._sign_in = self._sign_in, None
            self._ended = SignInRequiredError("you are not signed in", "Run: llmgw login")
            await self._vault.put(**{ENTRY: None})
            return held

    async def fresh(self, provider_now: float, *, newer: bool = False) -> SignIn:
        """The sign-in with a token young enough for the gateway, renewed if need be.

        The renewed sign-in is in the vault before this returns: a provider that rotates refresh tokens takes a second
        use of the old one for theft and ends everything.

        Args:
            provider_now: Now, on the clock that judges ages (the gateway's), in seconds since the epoch.
            newer: Renew in any case: the gateway found the token too old.
        """
        async with self._turn:
            sign_in = self.require()
            if not newer and -SKEW_SECONDS <= provider_now - sign_in.subject_issued_at < FRESH_SECONDS:
                return sign_in
            try:
                renewed = await self._renew(sign_in)
            except SessionEndedError as error:
                log.warning("the session is over: %s", error)
                self._sign_in, self._ended = None, error
                await self._vault.put(**{ENTRY: None})
                raise
            await self._vault.put(**{ENTRY: renewed.dump()})
            self._sign_in = renewed
            return renewed

    async def _renew(self, sign_in: SignIn) -> SignIn:
        provider = self._providers[sign_in.offer.kind]
        try:
            return await provider.renew(sign_in)
        except SessionEndedError:
            # Before believing it: perhaps the refresh token was already spent, and its successor is in the vault.
            await self._vault.reread()
            document = self._vault.get(ENTRY)
            if not document or document["renewal"] == sign_in.renewal.reveal():
                raise
            return await provider.renew(SignIn.load(document))
