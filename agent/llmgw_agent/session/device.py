"""Sign-in by a code that is typed in on another device (RFC 8628), for machines that no browser can reach.

Somebody who is talked into typing a code signs a stranger in; so this way is off until the settings allow it, and the
address that carries the code in itself (`verification_uri_complete`) is deliberately not used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.errors import RefusedError, TemporaryError
from llmgw_agent.session.record import CodeState, DeviceAttempt, error_name
from llmgw_agent.settings import url_fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmgw_agent.session.record import Provider, SignIn
    from llmgw_wire.messages import IssuerOffer

log = logging.getLogger(__name__)

GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
STATES: Final = {state.value: state for state in CodeState}
"""By their error codes."""
INTERVAL: Final = 5
"""Seconds between questions where the provider names none (section 3.2), and what "slow down" adds (section 3.5)."""
LONGEST_INTERVAL: Final = 60
MOST_SECONDS: Final = 900
"""A code is not waited for longer than this, whatever the provider allows."""
MOST_CODE: Final = 40
EXPIRED: Final = TemporaryError("the code has expired before it was used", "Run: llmgw login --method device")


def read_attempt(offer: IssuerOffer, document: dict[str, Any], private: dict[str, Any]) -> DeviceAttempt:
    """The provider's answer (section 3.2), checked: code and address are shown to a person.

    RefusedError if it is not one, with the provider's own error code if it sent one.
    """
    code, url = document.get("user_code"), document.get("verification_uri")
    if not (isinstance(code, str) and 0 < len(code) <= MOST_CODE and code.isascii() and code.isprintable()):
        raise RefusedError(
            f"{offer.issuer} gives no codes ({error_name(document.get('error'))})", "Run: llmgw login --method paste"
        )
    if not isinstance(url, str) or url_fault(url.partition("?")[0]) or not url.isprintable():
        raise RefusedError(f"{offer.issuer} names no usable page for its code", "Tell your identity team")
    return DeviceAttempt(
        offer=offer,
        url=url,
        user_code=code,
        expires_in=min(_seconds(document.get("expires_in"), MOST_SECONDS), MOST_SECONDS),
        interval=min(_seconds(document.get("interval"), INTERVAL), LONGEST_INTERVAL),
        private=private,
    )


async def wait(
    provider: Provider, attempt: DeviceAttempt, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> SignIn:
    """Ask until the person is done (section 3.5). TemporaryError when the code has expired or the provider is away."""
    expires_at = time.time() + attempt.expires_in
    interval, problem = attempt.interval, EXPIRED
    while time.time() + interval < expires_at:
        await pause(interval)
        try:
            answer = await provider.poll(attempt)
        except TemporaryError as error:
            # The person may be typing while the network blinks; section 3.5 wants longer pauses then.
            log.info("not known yet whether the code was used: %s", error)
            problem, answer = error, CodeState.SLOW_DOWN
        else:
            problem = EXPIRED
        if not isinstance(answer, CodeState):
            return answer
        if answer is CodeState.EXPIRED:
            break
        if answer is CodeState.SLOW_DOWN:
            interval = min(interval + INTERVAL, LONGEST_INTERVAL)
    raise TemporaryError(problem.message, problem.hint)


def _seconds(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default
