"""The path, against a gateway over real HTTP. The provider is scripted: which token it gives, which error it makes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt
import pytest

from llmgw_agent.broker import Broker
from llmgw_agent.errors import (
    AgentError,
    ConfigurationError,
    RefusedError,
    SessionEndedError,
    SignInRequiredError,
    TemporaryError,
)
from llmgw_agent.exchange import Gateway
from llmgw_agent.session.current import CurrentSession
from llmgw_agent.session.record import Account, Attempt, CodeState, DeviceAttempt, SignIn
from llmgw_agent.vault import Vault
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret
from tests.agent.small_gateway import OFFER, SmallGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llmgw_agent.outgoing import Outgoing
    from llmgw_wire.messages import IssuerOffer


def subject_token(age: float) -> Secret:
    return Secret(jwt.encode({"iat": int(time.time() - age)}, "k" * 32, algorithm="HS256"))


def sign_in(age: float = 0.0, renewal: str = "refresh-0") -> SignIn:
    token = subject_token(age)
    account = Account("ada", "Ada", "ada@example.com")
    return SignIn("s1", OFFER, account, token, time.time() - age, Secret(renewal), time.time())


@dataclass
class ScriptedProvider:
    failures: list[AgentError] = field(default_factory=list)
    renewals: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Closed, it leaves whoever asks waiting for its answer."""

    def __post_init__(self) -> None:
        self.open.set()

    async def renew(self, old: SignIn) -> SignIn:
        self.renewals.append(old.renewal.reveal())
        await self.open.wait()
        await asyncio.sleep(0.02)
        if self.failures:
            raise self.failures.pop(0)
        return old.renewed(subject_token(0), time.time(), Secret(f"refresh-{len(self.renewals)}"))

    async def begin(self, offer: IssuerOffer, redirect_uri: str, *, choose_account: bool = False) -> Attempt:
        raise NotImplementedError

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignIn:
        raise NotImplementedError

    async def begin_device(self, offer: IssuerOffer) -> DeviceAttempt:
        raise NotImplementedError

    async def poll(self, attempt: DeviceAttempt) -> SignIn | CodeState:
        raise NotImplementedError

    async def revoke(self, sign_in: SignIn) -> None:
        raise NotImplementedError


@dataclass
class Laptop:
    """A broker and the parts around it, with a clock that the test moves."""

    broker: Broker
    session: CurrentSession
    provider: ScriptedProvider
    vault: Vault
    gateway: Gateway
    ahead: float = 0.0

    def now(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
async def laptop(home: Path, gateway: SmallGateway, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    vault = Vault(home / "vault.bin", "profile")
    await vault.open()
    provider = ScriptedProvider()
    session = CurrentSession(vault, {"oidc": provider})
    far = Gateway(gateway.url, outgoing, vault)
    made = Laptop(Broker(session, far), session, provider, vault, far)
    made.broker = Broker(session, far, made.now)
    await session.begin(sign_in())
    return made


async def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_fifty_callers_cause_one_refresh_and_one_exchange(laptop: Laptop, gateway: SmallGateway) -> None:
    await laptop.session.begin(sign_in(age=1000))
    gateway.delay = 0.05
    tokens = await asyncio.gather(*(laptop.broker.token(f"tool {number}") for number in range(50)))
    assert len({token.value.reveal() for token in tokens}) == 1
    assert len(gateway.exchanges) == 1
    assert laptop.provider.renewals == ["refresh-0"]
    assert laptop.vault.get("sign_in")["renewal"] == "refresh-1"


async def test_fifty_callers_share_one_failure(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.refusals = [ErrorCode.DRAINING] * 50
    results = await asyncio.gather(*(laptop.broker.token("") for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {TemporaryError}
    assert len(gateway.exchanges) == 1


async def test_after_a_failure_there_is_a_pause(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.refusals = [ErrorCode.DRAINING]
    for _ in range(3):
        with pytest.raises(TemporaryError):
            await laptop.broker.token("")
    assert len(gateway.exchanges) == 1
    laptop.ahead += 2
    assert (await laptop.broker.token("")).value


async def test_a_caller_that_goes_away_does_not_end_the_work(laptop: Laptop, gateway: SmallGateway) -> None:
    await laptop.session.begin(sign_in(age=1000))
    gateway.delay = 0.1
    impatient = asyncio.create_task(laptop.broker.token(""))
    await asyncio.sleep(0.01)
    impatient.cancel()
    assert (await laptop.broker.token("")).value
    assert len(laptop.provider.renewals) == len(gateway.exchanges) == 1


async def test_the_warm_path_asks_nobody(laptop: Laptop, gateway: SmallGateway) -> None:
    first = await laptop.broker.token("")
    laptop.ahead += 299
    assert await laptop.broker.token("") is first
    assert len(gateway.exchanges) == 1
    laptop.ahead += 2
    assert await laptop.broker.token("") is not first


async def test_an_old_token_is_better_than_none(laptop: Laptop, gateway: SmallGateway) -> None:
    first = await laptop.broker.token("")
    gateway.refusals = [ErrorCode.STORE_UNAVAILABLE] * 9
    laptop.ahead += 400
    assert await laptop.broker.token("") is first
    laptop.ahead += 175
    with pytest.raises(TemporaryError):
        await laptop.broker.token("")


async def test_a_second_call_of_one_program_gets_a_newer_token_once(laptop: Laptop, gateway: SmallGateway) -> None:
    first = await laptop.broker.token("claude")
    laptop.ahead += 1
    second = await laptop.broker.token("claude")
    assert second is not first
    laptop.ahead += 1
    assert await laptop.broker.token("claude") is second
    assert len(gateway.exchanges) == 2


async def test_a_stale_sign_in_is_renewed_once_and_shown_again(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.refusals = [ErrorCode.SIGN_IN_STALE]
    assert (await laptop.broker.token("")).value
    assert len(gateway.exchanges) == 2
    assert gateway.exchanges[0]["subject_token"] != gateway.exchanges[1]["subject_token"] or laptop.provider.renewals
    assert len(laptop.provider.renewals) == 1


async def test_a_sign_in_that_stays_stale_is_not_renewed_for_ever(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.refusals = [ErrorCode.SIGN_IN_STALE] * 9
    with pytest.raises(SignInRequiredError):
        await laptop.broker.token("")
    assert len(laptop.provider.renewals) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (ErrorCode.SIGN_IN_INVALID, SignInRequiredError),
        (ErrorCode.AGENT_OUTDATED, RefusedError),
        (ErrorCode.PERSON_DISABLED, RefusedError),
        (ErrorCode.TARGET_INVALID, RefusedError),
        (ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE, TemporaryError),
        (ErrorCode.INTERNAL, TemporaryError),
    ],
)
async def test_refusals_by_their_names(
    laptop: Laptop, gateway: SmallGateway, code: ErrorCode, kind: type[AgentError]
) -> None:
    gateway.refusals = [code]
    with pytest.raises(kind) as failure:
        await laptop.broker.token("")
    assert type(failure.value) is kind
    assert laptop.session.sign_in is not None, "a refusal of the gateway does not sign anybody out"


async def test_a_bad_proof_is_made_again_with_the_time_of_the_answer(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.refusals = [ErrorCode.PROOF_INVALID]
    assert (await laptop.broker.token("")).value
    gateway.refusals = [ErrorCode.PROOF_INVALID] * 2
    laptop.broker.forget()
    with pytest.raises(RefusedError):
        await laptop.broker.token("")
    assert len(set(gateway.devices)) == 1


async def test_the_end_of_a_session(laptop: Laptop) -> None:
    await laptop.session.begin(sign_in(age=1000))
    laptop.provider.failures = [SessionEndedError("the provider ended the sign-in (invalid_grant)", "Run: llmgw login")]
    for _ in range(2):
        with pytest.raises(SignInRequiredError, match="invalid_grant"):
            await laptop.broker.token("")
    assert laptop.vault.get("sign_in") is None
    assert laptop.provider.renewals == ["refresh-0"]


async def test_an_ill_provider_ends_nothing(laptop: Laptop) -> None:
    await laptop.session.begin(sign_in(age=1000))
    laptop.provider.failures = [TemporaryError("the provider answered 500")]
    with pytest.raises(TemporaryError):
        await laptop.broker.token("")
    laptop.ahead += 2
    assert (await laptop.broker.token("")).value


async def test_before_a_session_ends_the_vault_is_read_again(laptop: Laptop) -> None:
    """A crash between the provider's answer and ours must not cost the sign-in."""
    await laptop.session.begin(sign_in(age=1000))
    laptop.provider.failures = [SessionEndedError("spent")]
    await laptop.vault.put(sign_in=sign_in(age=1000, renewal="refresh-newer").dump())
    assert (await laptop.broker.token("")).value
    assert laptop.provider.renewals == ["refresh-0", "refresh-newer"]


async def test_a_sign_out_while_the_provider_answers_leaves_nothing(laptop: Laptop) -> None:
    await laptop.session.begin(sign_in(age=1000))
    laptop.provider.open.clear()
    tool = asyncio.create_task(laptop.broker.token("claude"))
    await until(lambda: laptop.provider.renewals)
    out = asyncio.create_task(laptop.broker.sign_out())
    laptop.provider.open.set()
    held, _ = await out
    await asyncio.gather(tool, return_exceptions=True)
    assert held is not None
    assert held.renewal.reveal() == "refresh-1", "the provider's newest is what has to be revoked"
    assert laptop.session.sign_in is laptop.vault.get("sign_in") is None
    assert not laptop.broker._flights
    assert not laptop.broker._cache._tokens
    with pytest.raises(SignInRequiredError):
        await laptop.broker.token("claude")


async def test_a_token_minted_during_the_sign_out_is_there_to_be_revoked(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.open.clear()
    tool = asyncio.create_task(laptop.broker.token("claude"))
    await until(lambda: gateway.exchanges)
    out = asyncio.create_task(laptop.broker.sign_out())
    await until(lambda: laptop.session.sign_in is None)
    gateway.open.set()
    _, token = await out
    assert token is await tool
    assert token is not None
    assert not laptop.broker._flights
    assert not laptop.broker._cache._tokens


async def test_a_token_endpoint_elsewhere_gets_nothing(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.elsewhere = "https://evil.example/oauth/token"
    with pytest.raises(ConfigurationError, match=r"evil\.example"):
        await laptop.broker.token("")
    assert gateway.exchanges == []


async def test_an_agent_that_is_too_old_says_so(laptop: Laptop, gateway: SmallGateway) -> None:
    gateway.minimum_agent_version = "99.0"
    with pytest.raises(RefusedError, match=r"99\.0"):
        await laptop.broker.token("")


async def test_nothing_that_is_logged_or_raised_holds_a_secret(
    laptop: Laptop, gateway: SmallGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    token = await laptop.broker.token("claude")
    gateway.refusals = [ErrorCode.PERSON_DISABLED]
    laptop.broker.forget()
    with pytest.raises(RefusedError) as failure:
        await laptop.broker.token("claude")
    said = caplog.text + repr(failure.value) + repr(laptop.session.sign_in) + repr(token)
    for secret in (token.value.reveal(), sign_in().renewal.reveal(), gateway.exchanges[0]["subject_token"]):
        assert secret not in said
