"""A gateway small enough to be told what to answer: bootstrap, exchange and /v1/me over real HTTP, proofs verified.

The agent is tested against the real gateway elsewhere (tests/functional); here its answers must be wrong on demand.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Self

import jwt
from aiohttp import web

from llmgw_wire.errors import ErrorCode, anthropic_body, oauth_body
from llmgw_wire.jwk import thumbprint
from llmgw_wire.messages import Bootstrap, BudgetView, ExchangeAnswer, IssuerOffer, LimitView, Me
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from multidict import CIMultiDictProxy

OFFER = IssuerOffer(issuer="http://127.0.0.1:9/op", client_id="llmgw-agent")
LIMIT = LimitView("request limit", "user", "requests", 1_200, 3)
BUDGET = BudgetView(
    name="monthly",
    level="user",
    period="month",
    period_key="2026-11",
    limit=20_000_000,
    spent=5_000_000,
    held=0,
    overshoot_limit=1_000_000,
    resets_at="2099-12-01T00:00:00Z",
)


@dataclass
class Asked:
    """One request to a model, as it arrived."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass
class SmallGateway:
    offers: tuple[IssuerOffer, ...] = (OFFER,)
    life: int = 600
    delay: float = 0.0
    refusals: list[ErrorCode] = field(default_factory=list)
    """Answers of the next exchanges; afterwards they succeed."""
    elsewhere: str = ""
    """A token endpoint at another origin."""
    minimum_agent_version: str = "0.1.0"
    binds_tokens: bool = False
    """Whether it has tokens that are bound to the device's key."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Closed, it has taken an exchange and does not answer yet."""
    closing: int | None = None
    """So many exchanges are answered yet; then it is closed."""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an exchange waits because of that."""
    clock_offset: float = 0.0
    """Seconds that its clock is ahead."""
    exchanges: list[dict[str, str]] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    blocks: list[ErrorCode] = field(default_factory=list)
    """Answers of the next questions to a model; afterwards it answers."""
    unwelcome: set[str] = field(default_factory=set)
    """Tokens with which no model is reached."""
    asked: list[Asked] = field(default_factory=list)
    """What reached the model."""
    model: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """Answers instead of the gateway what a model is asked."""

    async def __aenter__(self) -> Self:
        self.open.set()
        await self.come(0)
        return self

    def close_after(self, exchanges: int) -> None:
        """Answer so many exchanges, and leave the next ones waiting until it is opened."""
        self.closing = exchanges
        self.held.clear()

    async def go(self) -> None:
        """Be away: nobody listens at the address."""
        await self._runner.cleanup()

    async def come_back(self) -> None:
        """Be there again, at the same address."""
        await self.come(int(self.url.rpartition(":")[2]))

    async def come(self, port: int) -> None:
        """Serve at this port; 0: at a free one."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.on_response_prepare.append(self._date)
        app.router.add_get("/.well-known/llmgw", self._bootstrap)
        app.router.add_post("/oauth/token", self._exchange)
        app.router.add_post("/oauth/revoke", self._revoke)
        app.router.add_get("/v1/me", self._me)
        app.router.add_route("*", "/{path:.*}", self._ask)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(time.time() + self.clock_offset, usegmt=True)

    async def _bootstrap(self, _request: web.Request) -> web.Response:
        endpoint = self.elsewhere or f"{self.url}/oauth/token"
        document = Bootstrap(
            self.url, endpoint, "llmgw", self.offers, self.minimum_agent_version, binds_tokens=self.binds_tokens
        )
        return web.Response(body=document.dump(), content_type="application/json")

    async def _exchange(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        header = jwt.get_unverified_header(request.headers["DPoP"])
        key = jwt.PyJWK(header["jwk"], algorithm="ES256")
        proof = jwt.decode(request.headers["DPoP"], key.key, algorithms=["ES256"])
        assert proof["htu"] == f"{self.url}/oauth/token"
        assert proof["htm"] == "POST"
        assert abs(proof["iat"] - time.time()) < 5
        self.devices.append(thumbprint(header["jwk"]))
        self.exchanges.append(form)
        await asyncio.sleep(self.delay)
        if self.closing is not None:
            self.closing -= 1
            if self.closing < 0:
                self.closing = None
                self.open.clear()
                self.held.set()
        await self.open.wait()
        if self.refusals:
            code = self.refusals.pop(0)
            return web.Response(
                status=code.wire.status, body=oauth_body(code, "Said no.", "r1"), content_type="application/json"
            )
        token = Secret(f"gw.{secrets.token_urlsafe(16)}")
        answer = ExchangeAnswer(token, self.life, token_type=form.get("token_type", "Bearer"))
        return web.Response(body=answer.dump(), content_type="application/json")

    async def _revoke(self, request: web.Request) -> web.Response:
        self.revoked.append(str((await request.post())["token"]))
        return web.Response()

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        if self.model is not None:
            return await self.model(request)
        self.asked.append(Asked(request.method, request.raw_path, request.headers, await request.read()))
        is_unwelcome = request.headers.get("Authorization", "").removeprefix("Bearer ") in self.unwelcome
        if self.blocks or is_unwelcome:
            code = ErrorCode.TOKEN_INVALID if is_unwelcome else self.blocks.pop(0)
            body = anthropic_body(code, "Said no.", "r1")
            return web.Response(status=code.wire.status, body=body, content_type="application/json")
        return web.Response(text="42", headers={"x-from": "the model"})

    async def _me(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("Bearer gw.")
        me = Me("per_1", "Ada", "ada@example.com", OFFER.issuer, "ses_1", 4102444800, ("claude",), (BUDGET,), (LIMIT,))
        return web.Response(body=me.dump(), content_type="application/json")
