"""How things stand for the person at the gateway: asked for, or as it was seen last for those who must not wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from llmgw_agent.errors import AgentError, SignInRequiredError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmgw_agent.broker import Broker
    from llmgw_agent.cache import CachedToken
    from llmgw_agent.exchange import Gateway
    from llmgw_agent.session.current import CurrentSession
    from llmgw_wire.messages import Me, UsageReport

Answer = TypeVar("Answer")
FRESH_SECONDS: Final = 60.0
"""Age up to which what was seen is not asked for again. A line that is drawn all the time costs a request a minute."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the gateway said, or why it did not, for one session."""

    session: str
    at: float
    me: Me | None
    problem: AgentError | None


class Standing:
    """Asks the gateway who the user is and what is left, and remembers the answer."""

    def __init__(self, broker: Broker, gateway: Gateway, session: CurrentSession) -> None:
        self._broker = broker
        self._gateway = gateway
        self._session = session
        self._seen: Seen | None = None
        self._looking: asyncio.Task[None] | None = None

    async def ask(self) -> Me:
        """What the gateway says; a token that it revoked is replaced once before that counts as a refusal."""
        name = self._session.require().session
        try:
            me = await self._ask()
        except AgentError as error:
            known = self._seen.me if self._seen is not None and self._seen.session == name else None
            self._seen = Seen(name, time.time(), known, error)
            raise
        self._seen = Seen(name, time.time(), me, None)
        return me

    def glance(self) -> tuple[Me | None, AgentError | None]:
        """What was seen last, at once. What is old is asked for behind this call, for the next one."""
        try:
            name = self._session.require().session
        except AgentError as error:
            return None, error
        seen = self._seen if self._seen is not None and self._seen.session == name else None
        is_fresh = seen is not None and 0 <= time.time() - seen.at < FRESH_SECONDS
        if not is_fresh and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())
        return (seen.me, seen.problem) if seen is not None else (None, None)

    async def close(self) -> None:
        """End what is asked for behind a glance."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        with contextlib.suppress(AgentError):  # it is remembered, for the next glance
            await self.ask()

    async def usage(self) -> UsageReport:
        """What the user spent; as `ask`, but not remembered."""
        return await self._with_token(self._gateway.usage)

    async def _ask(self) -> Me:
        return await self._with_token(self._gateway.me)

    async def _with_token(self, question: Callable[[CachedToken], Awaitable[Answer]]) -> Answer:
        try:
            return await question(await self._broker.own())
        except SignInRequiredError:
            self._broker.forget()
            return await question(await self._broker.own())
