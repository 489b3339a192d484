"""THE PATH of a model call, from credential to audit line.

Settling and auditing are the exits of the context managers: no branch can forget them, and a dialect can reach the
budget only through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aiohttp import ClientError, web

from llmgw_gateway.call import MICRO
from llmgw_gateway.dialects import bedrock as bedrock_dialect
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.meter import Meter
from llmgw_gateway.streams.relay import MOST_ANSWER, StreamRefused
from llmgw_wire import headers
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from llmgw_gateway.call import Call, Outcome
    from llmgw_gateway.identity.authenticate import Authenticator
    from llmgw_gateway.identity.directory import Directory
    from llmgw_gateway.money.hold import Hold
    from llmgw_gateway.money.holds import Money
    from llmgw_gateway.money.traffic import Rates
    from llmgw_gateway.observe.audit import Audit, Entry
    from llmgw_gateway.observe.metrics import Metrics
    from llmgw_gateway.policy.models import Policy
    from llmgw_gateway.providers.bedrock import Bedrock, Upstream
    from llmgw_gateway.streams.relay import Relay, Writer

OK = 200
FIRST_ERROR = 400
REFUSED_BY_ROLE = frozenset({401, 403})


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
            meter = Meter(long_cache=call.long_cache)
            async with (
                self.rates.admit(account, grant, call) as place,  # 429; given back if money refuses
                self.money.admit(account, grant, call, entry.request_id) as hold,  # 402; settles on leaving
            ):
                entry.outcome = hold.outcome
                place.follow(hold.outcome)
                async with self.bedrock.send(grant.target, call, hold.outcome) as upstream:  # 502, 503, 529
                    response = await self._deliver(request, entry, dialect, meter, upstream, hold)
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
                raise _denied()
            entry.status = upstream_status
            return web.Response(status=upstream_status, body=body, content_type="application/json")

    async def _deliver(
        self,
        request: web.BaseRequest,
        entry: Entry,
        dialect: Dialect,
        meter: Meter,
        upstream: Upstream,
        hold: Hold,
    ) -> web.StreamResponse:
        ours = _headers(entry, hold)
        if upstream.status >= FIRST_ERROR:
            return await _refused(upstream, hold.outcome, ours)
        if upstream.status != OK:
            hold.outcome.refused_upstream = True
            raise GatewayError(ErrorCode.UPSTREAM_INVALID, f"The provider answered with status {upstream.status}.")
        if not entry.stream:
            answer = await _whole(upstream, meter, hold, ours)
            self.authenticator.check(entry.session)  # 401: paid and settled, but not for who must not have it
            return answer
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
            )
        except StreamRefused as refusal:
            error_type = {headers.AMZN_ERROR_TYPE: refusal.exception, "content-type": "application/json"}
            return web.Response(status=refusal.status, body=refusal.payload, headers=ours | error_type)


async def _whole(upstream: Upstream, meter: Meter, hold: Hold, ours: dict[str, str]) -> web.Response:
    """An answer that does not stream: read, metered, passed on as it is."""
    body = await _read(upstream)
    meter.answer(body)
    hold.outcome.usage, hold.outcome.completeness = meter.usage, meter.completeness
    if meter.completeness == "complete":
        ours |= {headers.COST: f"{hold.cost(meter.usage) / MICRO:.6f}"}
    return web.Response(status=OK, body=body, content_type="application/json", headers=ours)


async def _refused(upstream: Upstream, outcome: Outcome, ours: dict[str, str]) -> web.Response:
    """The provider's refusal, unmodified: clients recover by its wording. Nothing was generated, nothing is charged."""
    outcome.refused_upstream = True
    outcome.note = f"upstream_{upstream.status}"
    body = await _read(upstream)
    if upstream.status in REFUSED_BY_ROLE:
        raise _denied()
    return web.Response(status=upstream.status, body=body, headers=upstream.headers | ours)


def _denied() -> GatewayError:
    return GatewayError(
        ErrorCode.UPSTREAM_DENIED,
        "AWS refused the gateway's own role for this model, not your sign-in. Tell the platform team.",
    )


async def _read(upstream: Upstream) -> bytes:
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := await upstream.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_ANSWER:
                raise GatewayError(ErrorCode.UPSTREAM_INVALID, "The provider's answer is too large to be passed on.")
    except (ClientError, TimeoutError) as error:
        raise GatewayError(
            ErrorCode.UPSTREAM_INVALID, "The connection to the provider broke in the middle of the answer."
        ) from error
    return b"".join(chunks)


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
