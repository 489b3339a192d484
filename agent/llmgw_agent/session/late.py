"""Entra ID, once somebody signs in there: MSAL and what it brings take eight megabytes that others need not have."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from llmgw_agent.session.id_token import Discovery
    from llmgw_agent.session.record import Attempt, CodeState, DeviceAttempt, Provider, SignIn
    from llmgw_wire.messages import IssuerOffer


class LateEntra:
    """Signs in at Entra ID; loads what does so when it is first needed. Implements `record.Provider`."""

    def __init__(self, discovery: Discovery, context: ssl.SSLContext) -> None:
        self._discovery = discovery
        self._context = context
        self._loaded: Provider | None = None

    async def _entra(self) -> Provider:
        if self._loaded is None:
            # In a thread: it takes a tenth of a second, and others are waiting for their tokens.
            module = await asyncio.to_thread(importlib.import_module, "llmgw_agent.session.entra")
            self._loaded = module.EntraProvider(self._discovery, self._context)
        return self._loaded

    async def begin(self, offer: IssuerOffer, redirect_uri: str, *, choose_account: bool = False) -> Attempt:
        """Prepare a sign-in."""
        return await (await self._entra()).begin(offer, redirect_uri, choose_account=choose_account)

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignIn:
        """Turn the browser's answer into a sign-in."""
        return await (await self._entra()).finish(attempt, answer)

    async def begin_device(self, offer: IssuerOffer) -> DeviceAttempt:
        """Ask for a code to be typed in elsewhere."""
        return await (await self._entra()).begin_device(offer)

    async def poll(self, attempt: DeviceAttempt) -> SignIn | CodeState:
        """Ask once whether the code was used."""
        return await (await self._entra()).poll(attempt)

    async def renew(self, sign_in: SignIn) -> SignIn:
        """Get newer tokens."""
        return await (await self._entra()).renew(sign_in)

    async def revoke(self, sign_in: SignIn) -> None:
        """End it at the provider."""
        await (await self._entra()).revoke(sign_in)
