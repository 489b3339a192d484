"""Trades a sign-in for a gateway token (RFC 8693). The only file that talks to the gateway.

The clock of a laptop is often wrong, so the gateway's is measured from the `Date` of each answer and used for whatever
the gateway checks. Nothing is ever sent to an address outside the origin that the settings name.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from llmgw_agent import __version__
from llmgw_agent.errors import (
    AgentError,
    ConfigurationError,
    RefusedError,
    SignInRequiredError,
    StaleSignInError,
    TemporaryError,
)
from llmgw_agent.proof import DeviceKey
from llmgw_wire.errors import ErrorCode, Refusal, read_refusal
from llmgw_wire.headers import AGENT_VERSION, BOOTSTRAP_PATH, DPOP, ME_PATH, REVOKE_PATH, USAGE_PATH
from llmgw_wire.messages import (
    ACCESS_TOKEN_TYPE,
    BOUND,
    TOKEN_EXCHANGE_GRANT,
    Bootstrap,
    ExchangeAnswer,
    Me,
    UsageReport,
)
from llmgw_wire.versions import is_older

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from llmgw_agent.cache import CachedToken
    from llmgw_agent.outgoing import Answer, Outgoing
    from llmgw_agent.session.record import SignIn
    from llmgw_agent.vault import Vault
    from llmgw_wire.secret import Secret

OK: Final = 200
NOT_FOUND: Final = 404
SERVER_ERROR: Final = 500
BUSY: Final = frozenset({408, 425, 429})
BOOTSTRAP_SECONDS: Final = 3600
UPDATE: Final = "Update llmgw"


class Gateway:
    """The gateway of the settings, as the agent uses it."""

    def __init__(self, url: str, outgoing: Outgoing, vault: Vault) -> None:
        self.url = url
        self._outgoing = outgoing
        self._vault = vault
        self._bootstrap: tuple[float, Bootstrap] | None = None
        self.clock_offset = 0.0
        """The gateway's clock minus ours, in seconds."""
        self.is_reachable = False
        """Whether the last request to it was answered."""
        self.answered_in = 0.0
        """Seconds that its last answer took."""

    def now(self) -> float:
        """Now, on the gateway's clock."""
        return time.time() + self.clock_offset

    async def bootstrap(self, *, again: bool = False) -> Bootstrap:
        """What the gateway offers; read every hour, or `again` now. ConfigurationError if it is no gateway of ours."""
        if self._bootstrap is not None and not again and 0 <= time.time() - self._bootstrap[0] < BOOTSTRAP_SECONDS:
            return self._bootstrap[1]
        answer = await self._send(self._outgoing.get(self.url + BOOTSTRAP_PATH, self._headers()))
        if answer.status == NOT_FOUND:
            raise ConfigurationError(f"{self.url} is not an llmgw gateway", "Correct gateway_url")
        if answer.status != OK:
            raise self._error(answer)
        try:
            found = Bootstrap.parse(answer.body)
        except ValueError as error:
            raise ConfigurationError(f"{self.url} is not an llmgw gateway ({error})", "Correct gateway_url") from None
        if is_older(__version__, found.minimum_agent_version):
            raise RefusedError(
                f"the gateway wants an agent of version {found.minimum_agent_version} or later, this is {__version__}",
                UPDATE,
            )
        if urlsplit(found.token_endpoint)[:2] != urlsplit(self.url)[:2]:
            raise ConfigurationError(
                f"the gateway {self.url} names a token endpoint elsewhere ({found.token_endpoint})",
                "Use the gateway's public address as gateway_url",
            )
        self._bootstrap = (time.time(), found)
        return found

    async def binds_tokens(self) -> bool:
        """Whether this gateway has tokens that are bound to the device key, as far as it has said so."""
        return (self._bootstrap[1] if self._bootstrap is not None else await self.bootstrap()).binds_tokens

    async def requires_proof(self) -> bool:
        """Whether it has no others."""
        return (self._bootstrap[1] if self._bootstrap is not None else await self.bootstrap()).require_pop

    async def authorization(self, token: CachedToken, method: str, target: str) -> dict[str, str]:
        """The headers with which a request to this gateway carries a token, with a proof where it needs one.

        Args:
            token: What the broker gave.
            method: The request's.
            target: Path and query, as they are sent.
        """
        if not token.bound:
            return {"Authorization": f"Bearer {token.value.reveal()}"}
        key = await DeviceKey.from_vault(self._vault)
        # The gateway's own name for itself, which a proxy in between may have another for.
        url = (await self.bootstrap()).gateway + target.partition("?")[0]
        return {
            "Authorization": f"{BOUND} {token.value.reveal()}",
            DPOP: key.prove(method, url, self.now(), token.value),
        }

    async def exchange(self, sign_in: SignIn, *, bound: bool = False) -> tuple[ExchangeAnswer, float]:
        """Trade the sign-in; the answer, and when its life began (this machine's clock, never too late).

        Args:
            sign_in: What is shown to the gateway.
            bound: Ask for a token that works with proofs of this device's key only.

        Raises:
            StaleSignInError: The provider's token is too old for the gateway: renew it and call again.
            SignInRequiredError: The gateway does not accept this sign-in.
            RefusedError: The person or device is disabled, or the exchange is set up wrongly.
            TemporaryError: The gateway or the network is away.
        """
        bootstrap = await self.bootstrap()
        key = await DeviceKey.from_vault(self._vault)
        form = {
            "grant_type": TOKEN_EXCHANGE_GRANT,
            "subject_token": sign_in.subject_token.reveal(),
            "subject_token_type": sign_in.offer.subject_token_type,
            "audience": bootstrap.audience,
            "requested_token_type": ACCESS_TOKEN_TYPE,
        } | ({"token_type": BOUND} if bound else {})
        # Twice: a clock that was set since the last answer makes a bad proof, and that answer tells the right time.
        for is_last in (False, True):
            sent = time.time()
            proof = key.prove("POST", bootstrap.token_endpoint, self.now())
            headers = self._headers() | {DPOP: proof}
            answer = await self._send(self._outgoing.post(bootstrap.token_endpoint, form, headers))
            if answer.status == OK:
                return _token_of(answer, bound=bound), sent
            if is_last or read_refusal(answer.status, answer.body).code is not ErrorCode.PROOF_INVALID:
                break
        raise self._error(answer)

    async def me(self, token: CachedToken) -> Me:
        """Who the gateway takes the bearer for, and the budgets."""
        headers = self._headers() | await self.authorization(token, "GET", ME_PATH)
        answer = await self._send(self._outgoing.get(self.url + ME_PATH, headers))
        if answer.status != OK:
            raise self._error(answer)
        try:
            return Me.parse(answer.body)
        except ValueError as error:
            raise TemporaryError(f"the gateway's answer cannot be used ({error})", "Try again") from None

    async def usage(self, token: CachedToken) -> UsageReport:
        """What the bearer used today, this week and this month."""
        headers = self._headers() | await self.authorization(token, "GET", USAGE_PATH)
        answer = await self._send(self._outgoing.get(self.url + USAGE_PATH, headers))
        if answer.status != OK:
            raise self._error(answer)
        try:
            return UsageReport.parse(answer.body)
        except ValueError as error:
            raise TemporaryError(f"the gateway's answer cannot be used ({error})", "Try again") from None

    async def revoke(self, token: Secret) -> None:
        """End this device's session at the gateway."""
        form = {"token": token.reveal(), "token_type_hint": "access_token"}
        answer = await self._send(self._outgoing.post(self.url + REVOKE_PATH, form, self._headers()))
        if answer.status != OK:
            raise self._error(answer)

    def _headers(self) -> dict[str, str]:
        return {AGENT_VERSION: __version__}

    async def _send(self, request: Awaitable[Answer]) -> Answer:
        """Every answer tells the time, and that the gateway is there."""
        self.is_reachable, began = False, time.monotonic()
        answer = await request
        self.is_reachable, self.answered_in = True, time.monotonic() - began
        if answer.clock_offset is not None:
            self.clock_offset = answer.clock_offset
        return answer

    def _error(self, answer: Answer) -> AgentError:
        refusal = read_refusal(answer.status, answer.body)
        text = _sentence(refusal)
        if refusal.code is ErrorCode.SIGN_IN_STALE:
            return StaleSignInError(text, "Run: llmgw login")
        if refusal.code in {ErrorCode.SIGN_IN_INVALID, ErrorCode.TOKEN_INVALID, ErrorCode.TOKEN_EXPIRED}:
            return SignInRequiredError(text, "Run: llmgw login")
        if refusal.code is ErrorCode.AGENT_OUTDATED:
            return RefusedError(text, UPDATE)
        if answer.status >= SERVER_ERROR or answer.status in BUSY:
            return TemporaryError(f"the gateway {self.url} answered {answer.status} ({text})", "Try again in a moment")
        if refusal.code is None:
            # Whatever answered is no gateway of ours: a captive portal, a proxy, a wrong address. The sign-in stays.
            return TemporaryError(
                f"{self.url} answered {answer.status}, and not as an llmgw gateway", "Check the network and gateway_url"
            )
        return RefusedError(f"the gateway refused: {text}", "Ask whoever runs the gateway")


def _token_of(answer: Answer, *, bound: bool) -> ExchangeAnswer:
    try:
        found = ExchangeAnswer.parse(answer.body)
    except ValueError as error:
        raise TemporaryError(f"the gateway's answer cannot be used ({error})", "Try again") from None
    if (found.token_type == BOUND) is not bound:
        raise TemporaryError("the gateway's token is of another kind than was asked for", "Try again")
    return found


def _sentence(refusal: Refusal) -> str:
    """The gateway's words, cut, printable, and without the advice that our own hint repeats."""
    text = "".join(letter for letter in refusal.message if letter.isprintable())[:300]
    return text.removesuffix("Sign in again with: llmgw login").strip().rstrip(".")
