"""What the daemon does for the commands of its user: routes, answers, and errors as statuses.

| Route | Answer |
|---|---|
| GET /token | the token and a newline, text/plain |
| the same with `Accept: application/json` | `{"token": {value, expires_at, seconds_left}}` |
| POST /login `{"issuer": "...", "methods": [...], "choose_account": false}` | `{"login": {id, url, issuer, method, \
expires_in}}`: by the first method that is allowed; joins one under way |
| the same where that is `device` | also `user_code`, to be typed in at `url` |
| GET /login/{id} | after at most 20 s: `{"login": {id, state}}`, state `pending` or `signed_in`, then with `account` |
| POST /login/{id}/answer `{"address": "..."}` | the address a browser elsewhere ended at |
| POST /logout `{"local_only": false}` | `{"logout": {revoked, not_revoked}}` |
| POST /forward | `{"forward": {url, secret, socket, dialects}}`: opens the forwarder's port on 127.0.0.1 if need be |
| GET /glance | `{"glance": {account, budgets, models, error}}`: as it was seen last, at once |
| GET /statusline | the same as one line, text/plain |
| GET /status, GET /whoami | see `status` and `whoami` |
| GET /usage | `{"usage": {time_zone, periods}}`: what the user spent |
| POST /passes `{"for": "...", "seconds": 28800}` | `{"pass": {id, for, socket, expires_at, seconds_left}}`: passes.py |
| GET /passes, POST /passes/{id}/revoke | `{"passes": [...]}`, `{"pass": {...}}` |
| POST /rest | the daemon rests as soon as nothing is under way (rest.py) |
| POST /stop | the daemon drains and ends |

Every JSON answer is an object with `schema`. An error has a status, `x-llmgw-exit-code`, and `{"error": {code, message,
hint, exit_code}}`; for /token one line of text instead, which `llmgw-token` prints as it is. No route returns a refresh
token, a provider's token or a key, and none takes an address to send something to. The forwarder's secret, which one
does return, is good on this machine only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from llmgw_agent import __version__, listener, screens
from llmgw_agent.answers import body_of, error_document, errors, json_answer, moment
from llmgw_agent.caller import caller
from llmgw_agent.errors import (
    AgentError,
    ConfigurationError,
    RefusedError,
    TemporaryError,
    UsageError,
)
from llmgw_agent.passes import Passes
from llmgw_agent.session.record import DeviceAttempt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmgw_agent.broker import Broker
    from llmgw_agent.cache import CachedToken
    from llmgw_agent.entrance import Entrance
    from llmgw_agent.exchange import Gateway
    from llmgw_agent.passes import Pass
    from llmgw_agent.session.current import CurrentSession
    from llmgw_agent.session.login import Logins
    from llmgw_agent.session.record import Provider, SignIn
    from llmgw_agent.standing import Standing
    from llmgw_agent.tripwire import Tripwire
    from llmgw_agent.vault import Vault
    from llmgw_wire.messages import IssuerOffer, Me

log = logging.getLogger(__name__)

MOST_BYTES: Final = 64 * 1024
POLL_SECONDS: Final = 20.0
GATEWAY_SECONDS: Final = 6.0
"""How long `status` waits for the gateway."""


class LocalApi:
    """The routes over the parts of one daemon."""

    def __init__(
        self,
        *,
        broker: Broker,
        gateway: Gateway,
        session: CurrentSession,
        logins: Logins,
        providers: dict[str, Provider],
        vault: Vault,
        entrance: Entrance,
        standing: Standing,
        tripwire: Tripwire,
        methods: tuple[str, ...],
        profile: str,
        passes_folder: Path,
        stop: Callable[[], None],
        rest: Callable[[], None],
        started: float,
    ) -> None:
        self._broker = broker
        self._gateway = gateway
        self._session = session
        self._logins = logins
        self._providers = providers
        self._vault = vault
        self._entrance = entrance
        self._standing = standing
        self._tripwire = tripwire
        self._methods = methods
        self._profile = profile
        self._stop = stop
        self._rest = rest
        self.passes = Passes(passes_folder, self.pass_application)
        self._started = started

    def application(self) -> web.Application:
        """The application, guarded; nothing is served yet."""
        app = web.Application(middlewares=[listener.guard, errors], client_max_size=MOST_BYTES)
        app.router.add_get("/token", self.token)
        app.router.add_post("/login", self.login)
        app.router.add_get("/login/{id}", self.login_state)
        app.router.add_post("/login/{id}/answer", self.login_answer)
        app.router.add_post("/logout", self.logout)
        app.router.add_post("/forward", self.forward)
        app.router.add_get("/status", self.status)
        app.router.add_get("/glance", self.glance)
        app.router.add_get("/statusline", self.statusline)
        app.router.add_get("/whoami", self.whoami)
        app.router.add_get("/usage", self.usage)
        app.router.add_get("/passes", self.list_passes)
        app.router.add_post("/passes", self.open_pass)
        app.router.add_post("/passes/{id}/revoke", self.revoke_pass)
        app.router.add_post("/rest", self.rest)
        app.router.add_post("/stop", self.stop)
        return app

    async def token(self, request: web.Request) -> web.Response:
        """Print a token: what tools call."""
        pid = listener.peer(request)[0]
        who = await caller(pid)
        await self._tripwire.check(pid, who)
        token = await self._broker.token(who.label)
        log.info("token %s for %s", token.value.fingerprint(), who.label or f"process {pid}")
        if request.headers.get("Accept") == "application/json":
            return json_answer({"token": {"value": token.value.reveal()} | _token(token)})
        return web.Response(text=token.value.reveal() + "\n")

    async def login(self, request: web.Request) -> web.Response:
        """Begin a sign-in or join the one under way."""
        body = await body_of(request)
        method = self._allowed(body.get("methods"))
        offer = _choose((await self._gateway.bootstrap()).issuers, body.get("issuer"), self._providers)
        login = await self._logins.start(offer, method, choose_account=body.get("choose_account") is True)
        answer: dict[str, Any] = {"id": login.name, "url": login.attempt.url, "issuer": offer.issuer}
        answer |= {"method": method, "expires_in": login.expires_in}
        if isinstance(login.attempt, DeviceAttempt):
            answer |= {"user_code": login.attempt.user_code}
        return json_answer({"login": answer})

    def _allowed(self, wanted: object) -> str:
        """The first way to sign in that would do and is allowed."""
        words = [str(word) for word in wanted] if isinstance(wanted, list) and wanted else ["browser"]
        for word in words:
            if word in self._methods:
                return word
        raise RefusedError(
            f"signing in by {words[0][:20]} is not allowed here", f"Run: llmgw login --method {self._methods[0]}"
        )

    async def login_state(self, request: web.Request) -> web.Response:
        """Wait for a sign-in, for as long as a connection may be silent; its failure is this answer's."""
        login = self._logins.get(request.match_info["id"])
        await asyncio.wait({login.outcome}, timeout=POLL_SECONDS)
        if not login.outcome.done():
            return json_answer({"login": {"id": login.name, "state": "pending"}, "account": None})
        if login.outcome.cancelled():
            raise UsageError("another sign-in was started instead of this one", "Run: llmgw login")
        sign_in = login.outcome.result()
        return json_answer({"login": {"id": login.name, "state": "signed_in"}, "account": _account(sign_in)})

    async def login_answer(self, request: web.Request) -> web.Response:
        """Take the pasted address of a browser on another machine."""
        self._allowed(["paste"])
        login = self._logins.get(request.match_info["id"])
        if login.callback is None:
            raise UsageError("this sign-in ends with a code, not with an address", "Type the code in on its page")
        login.callback.deliver_pasted(str((await body_of(request)).get("address", "")))
        return json_answer({"login": {"id": login.name, "state": "pending"}, "account": None})

    async def logout(self, request: web.Request) -> web.Response:
        """Forget the sign-in and the device key; then tell gateway and provider, as far as they can be reached."""
        is_local = (await body_of(request)).get("local_only") is True
        await self._logins.close()
        sign_in, token = await self._broker.sign_out()
        await self._vault.put(device_key=None)
        revoked, failed = [], []
        if sign_in is not None and not is_local:
            attempts = [(sign_in.offer.issuer, self._providers[sign_in.offer.kind].revoke(sign_in))]
            if token is not None:
                attempts.append((self._gateway.url, self._gateway.revoke(token.value)))
            for party, attempt in attempts:
                try:
                    await attempt
                    revoked.append(party)
                except AgentError as error:
                    failed.append({"party": party, "reason": error.message})
        return json_answer(
            {"logout": {"was_signed_in": sign_in is not None, "revoked": revoked, "not_revoked": failed}}
        )

    async def forward(self, _request: web.Request) -> web.Response:
        """Say how tools reach the gateway through this daemon."""
        dialects = (await self._gateway.bootstrap()).dialects
        door = await self._entrance.open()
        answer = {"url": door.url, "secret": door.secret, "socket": self._entrance.place, "dialects": dialects}
        return json_answer({"forward": answer})

    async def status(self, _request: web.Request) -> web.Response:
        """Everything a person wants to know on one screen. Always 200: what is wrong stands in `error`."""
        me, away, problem = await self._look()
        sign_in, token = self._session.sign_in, self._broker.peek()
        document = {
            "ok": problem is None,
            "signed_in": sign_in is not None,
            "profile": self._profile or "default",
            "account": _account(sign_in) if sign_in else None,
            "session": _session(sign_in) if sign_in else None,
            "storage": {"persistent": self._vault.is_persistent, "description": self._vault.description},
            "token": _token(token) if token else None,
            "gateway": {
                "url": self._gateway.url,
                "reachable": self._gateway.is_reachable,
                "answered_in_ms": round(self._gateway.answered_in * 1000, 1) if self._gateway.is_reachable else None,
                "clock_offset_seconds": round(self._gateway.clock_offset, 1),
                "error": error_document(away) if away else None,
            },
            "forwarder": {
                "url": self._entrance.door.url if self._entrance.door else None,
                "socket": self._entrance.place,
            },
            "person": me.person if me else None,
            "models": list(me.models) if me else [],
            "budgets": _budgets(me) if me else [],
            "limits": _limits(me) if me else [],
            "daemon": {"version": __version__, "pid": os.getpid(), "started_at": moment(self._started)},
            "error": error_document(problem) if problem else None,
        }
        return json_answer(document)

    async def _look(self) -> tuple[Me | None, AgentError | None, AgentError | None]:
        """What the gateway says, what is wrong with it, and what is wrong at all: no sign-in comes before the rest."""
        me, away = None, None
        problem: AgentError | None = None
        try:
            async with asyncio.timeout(GATEWAY_SECONDS):
                try:
                    await self._gateway.bootstrap(again=True)
                except AgentError as error:
                    away = error
                    raise
                me = await self._standing.ask() if self._session.sign_in else None
        except AgentError as error:
            problem = error
        except TimeoutError:
            problem = away = TemporaryError(f"{self._gateway.url} is slow to answer", "Try again in a moment")
        try:
            self._session.require()
        except AgentError as error:
            problem = error
        return me, away, problem

    async def glance(self, _request: web.Request) -> web.Response:
        """How things stand, for a line that is drawn all the time: nobody is waited for."""
        return json_answer({"glance": self._glance()})

    async def statusline(self, _request: web.Request) -> web.Response:
        """The same as the line itself, for whoever draws it."""
        return web.Response(text=screens.statusline(self._glance(), datetime.now(UTC)) + "\n")

    def _glance(self) -> dict[str, Any]:
        me, problem = self._standing.glance()
        budgets = _budgets(me) if me else []
        sign_in = self._session.sign_in
        return {
            "account": _account(sign_in) if sign_in else None,
            "budgets": budgets,
            "models": list(me.models) if me else [],
            "error": error_document(problem) if problem else None,
        }

    async def whoami(self, _request: web.Request) -> web.Response:
        """Who the gateway takes this user for."""
        me = await self._standing.ask()
        document = asdict(me) | {"token_expires_at": moment(me.token_expires_at)}
        return json_answer(
            {"me": document | {"budgets": _budgets(me), "limits": _limits(me), "models": list(me.models)}}
        )

    async def usage(self, _request: web.Request) -> web.Response:
        """What this user spent, as the gateway has it in its books."""
        return json_answer({"usage": asdict(await self._standing.usage())})

    def pass_application(self, made: Pass) -> web.Application:
        """What is served on a socket for elsewhere: one verb, for as long as it lasts."""

        async def token(_request: web.Request) -> web.Response:
            if not made.seconds_left():
                raise RefusedError("the time of this forwarding is up", "Forward again on your own machine")
            token = await self._broker.token(f"pass {made.name}")
            log.info("token %s for pass %s (%s)", token.value.fingerprint(), made.name, made.meant_for)
            return web.Response(text=token.value.reveal() + "\n")

        app = web.Application(middlewares=[listener.guard, errors], client_max_size=MOST_BYTES)
        app.router.add_get("/token", token)
        return app

    async def open_pass(self, request: web.Request) -> web.Response:
        """Make a socket for elsewhere."""
        body = await body_of(request)
        self._session.require()
        seconds = body.get("seconds")
        made = await self.passes.open(str(body.get("for", "")), seconds if isinstance(seconds, int) else 0)
        return json_answer({"pass": _pass(made)})

    async def list_passes(self, _request: web.Request) -> web.Response:
        """Those that are open."""
        return json_answer({"passes": [_pass(each) for each in self.passes.listed()]})

    async def revoke_pass(self, request: web.Request) -> web.Response:
        """End one."""
        return json_answer({"pass": _pass(await self.passes.revoke(request.match_info["id"]))})

    async def stop(self, _request: web.Request) -> web.Response:
        """Drain and end, after this answer."""
        self._stop()
        return json_answer({"stop": {"pid": os.getpid()}})

    async def rest(self, _request: web.Request) -> web.Response:
        """Give back memory, after this answer, until somebody asks; whoever wakes is of the version installed then."""
        self._rest()
        return json_answer({"rest": {"pid": os.getpid()}})


def _choose(offers: tuple[IssuerOffer, ...], wanted: object, providers: dict[str, Provider]) -> IssuerOffer:
    known = [offer for offer in offers if offer.kind in providers]
    if not known:
        raise ConfigurationError("this agent knows none of the ways to sign in that the gateway offers", "Update llmgw")
    for offer in known:
        if wanted in {None, "", offer.issuer}:
            return offer
    names = ", ".join(offer.issuer for offer in known)
    raise UsageError(f"the gateway does not accept sign-ins of {str(wanted)[:200]!r}", f"It accepts: {names}")


def _pass(made: Pass) -> dict[str, Any]:
    return {
        "id": made.name,
        "for": made.meant_for,
        "socket": str(made.socket),
        "expires_at": moment(made.expires_at),
        "seconds_left": made.seconds_left(),
    }


def _account(sign_in: SignIn) -> dict[str, str]:
    return asdict(sign_in.account) | {"issuer": sign_in.offer.issuer}


def _session(sign_in: SignIn) -> dict[str, Any]:
    return {
        "kind": sign_in.offer.kind,
        "signed_in_at": moment(sign_in.signed_in_at),
        "renewable": bool(sign_in.renewal),
    }


def _token(token: CachedToken) -> dict[str, Any]:
    return {"seconds_left": int(token.seconds_left(time.time())), "expires_at": moment(token.expires_at)}


def _budgets(me: Me) -> list[dict[str, Any]]:
    return [asdict(budget) | {"remaining": budget.remaining} for budget in me.budgets]


def _limits(me: Me) -> list[dict[str, Any]]:
    return [asdict(limit) | {"remaining": limit.remaining} for limit in me.limits]
