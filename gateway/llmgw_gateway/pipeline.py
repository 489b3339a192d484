"""THE PATH of a model call, from credential to audit line.

Settling and auditing are the exits of the context managers: no branch can forget them, and a dialect can reach the
budget only through them.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from llmgw_gateway.call import MICRO
from llmgw_gateway.dialects import bedrock as bedrock_dialect
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers import answers
from llmgw_gateway.providers.answers import OK, REFUSED_BY_ROLE, Refused
from llmgw_gateway.streams.meter import Meter
from llmgw_gateway.streams.presence import Presence, gone
from llmgw_gateway.streams.refusals import StreamRefused
from llmgw_wire import headers
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from llmgw_gateway.call import Account, Call, Grant, Target
    from llmgw_gateway.identity.authenticate import Authenticator
    from llmgw_gateway.identity.directory import Directory
    from llmgw_gateway.money.hold import Hold
    from llmgw_gateway.money.holds import Money
    from llmgw_gateway.money.traffic import Place, Rates
    from llmgw_gateway.observe.audit import Audit, Entry
    from llmgw_gateway.observe.metrics import Metrics
    from llmgw_gateway.policy.models import Policy
    from llmgw_gateway.providers.bedrock import Bedrock, Upstream
    from llmgw_gateway.streams.answer import Writer
    from llmgw_gateway.streams.relay import Relay


class Dialect(Protocol):
    """One request in its client's dialect, as the edge matched it."""

    async def read(self, request: web.BaseRequest) -> Call:
        """Read the body into a call."""

    def writer(self) -> Writer:
        """How its stream is written."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Serves model calls."""

    audit: Audit
    metrics: Metrics
    authenticator: Authenticator
    directory: Directory
    policy: Policy
    rates: Rates
    money: Money
    bedrock: Bedrock
    relay: Relay

    def unready(self) -> str:
        """Why this replica should get no requests; empty when there is no reason."""
        return "the audit spool is full" if self.audit.full else self.money.unready()

    async def invoke(self, request: web.BaseRequest, entry: Entry, dialect: Dialect) -> web.StreamResponse:
        """One call to one model."""
        async with self.audit.entry(entry):  # written on every way out
            caller = self.authenticator.authenticate(request.headers)  # 401
            entry.caller(caller)
            account = await self.directory.account(caller, request.headers.get(headers.PROJECT, ""))  # 400
            entry.account(account)
            call = await dialect.read(request)  # 400
            entry.call(call)
            grant = self.policy.authorize(call.model, call.max_tokens)  # refusal by policy: model, caps
            entry.granted(grant.target)
            async with self.rates.admit(account, grant, call) as place:  # 429; given back if money refuses
                response = await self._attempts(request, entry, dialect, account, grant, call, place)
            entry.status = response.status
            return response

    async def count_tokens(self, request: web.BaseRequest, entry: Entry, dialect: Dialect) -> web.StreamResponse:
        """How many tokens a prompt has: asked of Bedrock, free of charge, hence without the money stage."""
        async with self.audit.entry(entry):
            caller = self.authenticator.authenticate(request.headers)
            entry.caller(caller)
            self.rates.question(caller.person_id)  # 429
            call = await dialect.read(request)
            entry.call(call)
            grant = self.policy.authorize(call.model, call.max_tokens)
            entry.granted(grant.target)
            upstream_status, body = await self.bedrock.count_tokens(grant.target, call)
            if upstream_status in REFUSED_BY_ROLE:
                raise answers.denied()
            entry.status = upstream_status
            return web.Response(status=upstream_status, body=body, content_type="application/json")

    async def _attempts(
        self,
        request: web.BaseRequest,
        entry: Entry,
        dialect: Dialect,
        account: Account,
        grant: Grant,
        call: Call,
        place: Place,
    ) -> web.StreamResponse:
        """Ask one target after the other, each under a hold of its own, until one begins to answer.

        The next is asked only when the last one has refused for a reason of its own, free of charge, and before the
        client was sent anything; a prompt that may have been billed is not sent again.
        """
        head_by = math.inf
        targets = (grant.target, *grant.fallbacks)
        for number, target in enumerate(targets, 1):
            entry.granted(target)
            aimed = replace(grant, target=target, max_tokens=call.max_tokens or grant.max_tokens)
            try:
                async with self.money.admit(account, aimed, call, entry.request_id) as hold:  # 402; settles on leaving
                    entry.outcome = hold.outcome
                    place.follow(hold.outcome)
                    head_by = min(head_by, self.bedrock.deadline())
                    return await self._attempt(
                        request, entry, dialect, call, hold, target, head_by, again=number < len(targets)
                    )
            except Refused as refused:
                if number == len(targets) or not refused.elsewhere or _late(head_by) or gone(request):
                    return _told(refused, _headers(entry, hold))
                self.metrics.fallbacks.labels(target.model).inc()
        raise AssertionError  # a grant has a target

    async def _attempt(
        self,
        request: web.BaseRequest,
        entry: Entry,
        dialect: Dialect,
        call: Call,
        hold: Hold,
        target: Target,
        head_by: float,
        *,
        again: bool,
    ) -> web.StreamResponse:
        """Send to one target and give its answer to the client; Refused when it has none."""
        try:
            with Presence(request, hold.outcome):  # a client that leaves frees its slots, not its money
                async with self.bedrock.send(target, call, hold.outcome, head_by, again=again) as upstream:
                    return await self._deliver(request, entry, dialect, call, upstream, hold)  # 502, 503, 529
        except GatewayError as error:
            if error.code is ErrorCode.UPSTREAM_UNREACHABLE and not hold.outcome.dispatched:
                raise Refused(elsewhere=True, error=error) from error
            raise

    async def _deliver(
        self, request: web.BaseRequest, entry: Entry, dialect: Dialect, call: Call, upstream: Upstream, hold: Hold
    ) -> web.StreamResponse:
        if upstream.status != OK:
            raise await answers.refusal(upstream, hold.outcome)
        ours, meter = _headers(entry, hold), Meter(long_cache=call.long_cache)
        answers.check_form(upstream, hold.outcome, stream=entry.stream)
        if not entry.stream:
            call.release()
            body = await answers.whole(upstream, meter, hold.outcome)
            self.authenticator.check(entry.session)  # 401: paid and settled, but not for who must not have it
            if meter.completeness == "complete":
                ours |= {headers.COST: f"{hold.cost(meter.usage) / MICRO:.6f}"}
            return web.Response(status=OK, body=body, content_type="application/json", headers=ours)
        try:
            return await self.relay.run(
                request,
                upstream.content,
                dialect.writer(),
                bedrock_dialect.inner_event,
                ours,
                meter,
                hold.outcome,
                entry.session,
                dispatched_at=upstream.dispatched_at,
                cancel_stops_billing=self.bedrock.cancel_stops_billing,
                opens=call.release,
            )
        except StreamRefused as refused:
            raise answers.refused_in_stream(refused, hold.outcome) from refused


def _late(head_by: float) -> bool:
    return asyncio.get_running_loop().time() >= head_by


def _told(refused: Refused, ours: dict[str, str]) -> web.Response:
    """What the client is told when no other target is asked."""
    if refused.error is not None:
        raise refused.error
    return web.Response(status=refused.status, body=refused.body, headers=refused.headers | ours)


def _headers(entry: Entry, hold: Hold) -> dict[str, str]:
    ours = {
        headers.REQUEST_ID: entry.request_id,
        headers.LLMGW_REQUEST_ID: entry.request_id,
        headers.TARGET: entry.target,
        "server": "llmgw",
    }
    if hold.remaining is not None:
        ours[headers.BUDGET_REMAINING] = f"{hold.remaining / MICRO:.6f}"
    if hold.clamped_by:
        ours[headers.MAX_TOKENS] = str(hold.max_tokens)
    return ours
