"""The waiting of the device flow, and what is believed of a provider's answer. Whole flows are in test_sign_in.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_agent.errors import RefusedError, TemporaryError
from llmgw_agent.session import device
from llmgw_agent.session.record import Account, Attempt, CodeState, DeviceAttempt, SignIn
from llmgw_wire.secret import Secret
from tests.agent.small_gateway import OFFER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmgw_wire.messages import IssuerOffer

SIGN_IN = SignIn("s1", OFFER, Account("ada", "Ada", ""), Secret("t"), 0.0, Secret("r"), 0.0)
ANSWER = {"user_code": "ABCD-EFGH", "verification_uri": "https://idp.example/device", "device_code": "d"}


@dataclass
class ScriptedProvider:
    answers: list[SignIn | CodeState | Exception]
    pauses: list[float] = field(default_factory=list)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def poll(self, _attempt: DeviceAttempt) -> SignIn | CodeState:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def begin(self, offer: IssuerOffer, redirect_uri: str, *, choose_account: bool = False) -> Attempt:
        raise NotImplementedError

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignIn:
        raise NotImplementedError

    async def begin_device(self, offer: IssuerOffer) -> DeviceAttempt:
        raise NotImplementedError

    async def renew(self, sign_in: SignIn) -> SignIn:
        raise NotImplementedError

    async def revoke(self, sign_in: SignIn) -> None:
        raise NotImplementedError


async def wait(*answers: SignIn | CodeState | Exception, **more: Any) -> tuple[SignIn, list[float]]:
    provider = ScriptedProvider(list(answers))
    attempt = device.read_attempt(OFFER, ANSWER | more, {})
    return await device.wait(provider, attempt, provider.pause), provider.pauses


async def test_it_asks_in_the_rhythm_that_the_provider_wants() -> None:
    pending = CodeState.PENDING
    assert await wait(pending, pending, SIGN_IN) == (SIGN_IN, [5, 5, 5])
    assert await wait(pending, CodeState.SLOW_DOWN, pending, SIGN_IN, interval=2) == (SIGN_IN, [2, 2, 7, 7])
    assert (await wait(*[CodeState.SLOW_DOWN] * 20, SIGN_IN))[1][-1] == device.LONGEST_INTERVAL


async def test_a_network_that_blinks_costs_a_longer_pause_only() -> None:
    assert await wait(TemporaryError("away"), SIGN_IN) == (SIGN_IN, [5, 10])


async def test_what_ends_the_waiting() -> None:
    with pytest.raises(TemporaryError, match="expired"):
        await wait(CodeState.EXPIRED)
    with pytest.raises(RefusedError, match="declined"):
        await wait(RefusedError("declined"))
    with pytest.raises(TemporaryError, match="expired"):
        await wait(expires_in=3)


async def test_a_provider_that_stays_away_is_named_at_the_end() -> None:
    with pytest.raises(TemporaryError, match="away"):
        await wait(*[TemporaryError("away")] * 9, interval=1, expires_in=7)


def test_what_is_shown_to_a_person_is_checked() -> None:
    found = device.read_attempt(OFFER, ANSWER | {"expires_in": 10**9, "interval": -1}, {})
    assert (found.user_code, found.expires_in, found.interval) == ("ABCD-EFGH", device.MOST_SECONDS, device.INTERVAL)
    for wrong in (
        {"user_code": "\x1b[2Jfine"},
        {"user_code": "x" * 41},
        {"user_code": None},
        {"verification_uri": "http://idp.example/device"},
        {"verification_uri": "https://idp.example/\nRun: curl evil"},
        {"verification_uri": None},
    ):
        with pytest.raises(RefusedError):
            device.read_attempt(OFFER, ANSWER | wrong, {})
    with pytest.raises(RefusedError, match="unauthorized_client"):
        device.read_attempt(OFFER, {"error": "unauthorized_client"}, {})
