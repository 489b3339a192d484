"""THE PATH of a model call, from credential to audit line.

Settling and auditing are the exits of the context managers: no branch can forget them, and a dialect can reach the
budget only through them.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web
from msgspec.structs import replace

from llmgw_gateway.call import MICRO
from llmgw_gateway.dialects import embeddings
from llmgw_gateway.dialects.embeddings import EmbeddingMeter
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers import answers
from llmgw_gateway.providers.answers import OK, REFUSED_BY_ROLE, Refused
from llmgw_gateway.providers.upstreams import able
from llmgw_gateway.streams import sse
from llmgw_gateway.streams.eventstream import FrameParser
from llmgw_gateway.streams.presence import Lookout, gone
from llmgw_gateway.streams.refusals import StreamRefused
from llmgw_gateway.streams.responses import Whole
from llmgw_gateway.streams.sse import EventParser
from llmgw_gateway.streams.usages import INTERVENED
from llmgw_wire import headers
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_gateway.call import Account, Call, Grant, Outcome, Target
    from llmgw_gateway.identity.authenticate import Authenticator
    from llmgw_gateway.identity.directory import Directory
    from llmgw_gateway.money.hold import Hold
    from llmgw_gateway.money.holds import Money
    from llmgw_gateway.money.traffic import Place, Rates
    from llmgw_gateway.observe.audit import Audit
    from llmgw_gateway.observe.entry import Entry
    from llmgw_gateway.observe.metrics import Metrics
    from llmgw_gateway.policy.health import Health
    from llmgw_gateway.policy.models import Policy
    from llmgw_gateway.providers.sending import Upstream
    from llmgw_gateway.providers.upstreams import Upstreams
    from llmgw_gateway.streams.answer import Writer
    from llmgw_gateway.streams.frames import Frame
    from llmgw_gateway.streams.meter import Meter
    from llmgw_gateway.streams.relay import Relay


UNSENT: Final = frozenset({ErrorCode.UPSTREAM_UNREACHABLE, ErrorCode.UPSTREAM_CREDENTIALS})
"""Why a call may not have left the gateway at all: then another target is asked."""
OF_THE_TARGET: Final = UNSENT | {ErrorCode.UPSTREAM_TIMEOUT, ErrorCode.UPSTREAM_INVALID}
"""Failures after which the next call had better go elsewhere."""


class Dialect(Protocol):
    """One request in its client's dialect, as the edge matched it."""

    async def read(self, request: web.BaseRequest) -> Call:
        """Read the body into a call."""

    def meter(self, call: Call, /) -> Meter:
        """What follows the usage of its answer."""

    @property
    def inner(self) -> Callable[[Frame], bytes | None]:
        """What finds the event in a frame of the provider, as its meter takes it."""

    def writer(self, meter: Meter, /) -> Writer:
        """How its stream is written from the provider's frames."""

    def event_writer(self, meter: Meter, /) -> Writer:
        """The same from server-sent events in the Anthropic format."""

    def answer(self, body: bytes, meter: Meter, /) -> bytes:
        """A whole answer of the provider as the client reads it."""

    def refusal(self, status: int, body: bytes, /, *, billed: bool) -> tuple[int, bytes]:
        """A refusal of the provider as the client reads it; `billed`: it may have been."""


class Pipeline:
    """Serves model calls."""

    def __init__(
        self,
        audit: Audit,
        metrics: Metrics,
        authenticator: Authenticator,
        directory: Directory,
        policy: Policy,
        rates: Rates,
        money: Money,
        upstreams: Upstreams,
        health: Health,
        relay: Relay,
    ) -> None:
        self.audit = audit
        self.metrics = metrics
        self.authenticator = authenticator
        self.directory = directory
        self.policy = policy
        """Replaced whole when the configuration changes."""
        self.rates = rates
        self.money = money
        self.upstreams = upstreams
        self.health = health
        self.relay = relay
        self.lookout = Lookout()

    def unready(self) -> str:
        """Why this replica should get no requests; empty when there is no reason."""
        return "the audit spool is full" if self.audit.full else self.money.unready()

    async def invoke(self, request: web.BaseRequest, entry: Entry, dialect: Dialect) -> web.StreamResponse:
        """One call to one model."""
        async with self.audit.entry(entry):  # written on every way out
            account = await self.account(request, entry)  # 401, 400
            call = await dialect.read(request)  # 400
            entry.call(call)
            grant = self.grant(account, call)  # refusal by policy: model, caps
            entry.permitted(grant)
            async with self.rates.admit(account, grant, call) as place:  # 429; given back if money refuses
                response = await self._attempts(request, entry, dialect, account, grant, call, place)
            entry.status = response.status
            return response

    async def account(self, request: web.BaseRequest, entry: Entry) -> Account:
        """Who calls and who pays."""
        caller = self.authenticator.authenticate(request.headers, request.method, request.raw_path)
        entry.caller(caller)
        entry.policy_version = self.policy.version
        account = await self.directory.account(caller, request.headers.get(headers.PROJECT, ""))
        entry.account(account)
        return account

    def grant(self, account: Account, call: Call, *, question: bool = False) -> Grant:
        """What the caller may have; an output cap that was left out is filled in where the upstream wants one.

        A question about a prompt has no answer to bound: no cap holds for it.
        """
        kind = call.kind or self.policy.kind_of(call.model)
        grant = self.policy.authorize(account, call.model, call.max_tokens, kind=kind, default=call.default_max_tokens)
        if not question:
            grant = self.policy.filled(account, call, grant) if kind == "text" else grant
            grant = self.policy.within_caps(account, call, grant)
        if call.kind is None and kind == "embedding":
            embeddings.prepare(call)
        if call.default_max_tokens and not call.max_tokens:
            call.clamp(grant.max_tokens)
        return grant

    async def count_tokens(self, request: web.BaseRequest, entry: Entry, dialect: Dialect) -> web.StreamResponse:
        """How many tokens a prompt has: asked of the provider, free of charge, hence without the money stage."""
        async with self.audit.entry(entry):
            caller = self.authenticator.authenticate(request.headers, request.method, request.raw_path)
            entry.caller(caller)
            entry.policy_version = self.policy.version
            self.rates.question(caller.person_id)  # 429
            account = await self.directory.account(caller, "")
            call = await dialect.read(request)
            entry.call(call)
            grant = self.grant(account, call, question=True)
            entry.permitted(grant)
            upstream_status, body = await self.upstreams.count_tokens(grant.target, call)
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
        head_by, clamped_by = math.inf, ""
        targets = self.asked(call, grant)
        for number, target in enumerate(targets, 1):
            entry.granted(target)
            most = call.max_tokens or grant.max_tokens
            if target is not grant.target or most != grant.max_tokens:
                grant = replace(grant, target=target, max_tokens=most)
            try:
                async with self.money.admit(account, grant, call, entry.request_id) as hold:  # 402; settles on leaving
                    # A cap that was lowered for one target stays lowered for the next.
                    clamped_by = hold.clamped_by = hold.clamped_by or clamped_by
                    entry.outcome = hold.outcome
                    entry.attempted(hold.attempt_id, target, hold.outcome)
                    place.follow(hold.outcome)
                    head_by = min(head_by, self.upstreams.deadline())
                    return await self._attempt(
                        request, entry, dialect, call, hold, target, head_by, again=number < len(targets)
                    )
            except Refused as refused:
                if number == len(targets) or not refused.elsewhere or _late(head_by) or gone(request):
                    return told(refused, dialect, answer_headers(entry, hold))
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
        with self.watched(target, hold.outcome), self.lookout.watch(request, hold.outcome):
            # A client that leaves frees its slots, not its money.
            async with self.upstreams.send(target, call, hold.outcome, head_by, again=again) as upstream:
                return await self._deliver(request, entry, dialect, call, upstream, hold, target)  # 502, 503, 529

    def asked(self, call: Call, grant: Grant) -> tuple[Target, ...]:
        """The targets that understand a call, in the order in which they are asked now."""
        return self.health.order(able(call, (grant.target, *grant.fallbacks)), time.monotonic())

    def watched(self, target: Target, outcome: Outcome) -> Watch:
        """A context for one attempt: its failure is remembered, and one that was never sent is a refusal."""
        return Watch(self, target, outcome)

    def failed(self, target: Target, wait: float) -> None:
        """A target has refused or failed; `wait`: for how many seconds it asks to be left alone."""
        if self.health.failed(target, time.monotonic(), wait):
            self.metrics.rests.labels(target.title).inc()

    async def _deliver(
        self,
        request: web.BaseRequest,
        entry: Entry,
        dialect: Dialect,
        call: Call,
        upstream: Upstream,
        hold: Hold,
        target: Target,
    ) -> web.StreamResponse:
        if upstream.status != OK:
            raise await answers.refusal(upstream, hold.outcome)
        ours = answer_headers(entry, hold)
        meter = EmbeddingMeter(upstream.input_tokens) if call.kind == "embedding" else dialect.meter(call)
        meter.guarded = target.guard is not None
        answers.check_form(upstream, hold.outcome, stream=entry.stream)
        if not entry.stream:
            call.release()
            body = await answers.whole(upstream, meter, hold.outcome)
            self.health.answered(target)
            _note(meter, hold.outcome)
            self.authenticator.check(entry.session)  # 401: paid and settled, but not for who must not have it
            if meter.completeness == "complete":
                ours[headers.COST] = f"{hold.cost(meter.usage) / MICRO:.6f}"
            ours["content-type"] = "application/json"
            return Whole(OK, dialect.answer(body, meter), ours)

        def opens() -> None:
            call.release()
            if meter.started:  # else only the time is up in which the head had to leave
                self.health.answered(target)

        events = upstream.speech == "events"
        try:
            response = await self.relay.run(
                request,
                upstream.content,
                dialect.event_writer(meter) if events else dialect.writer(meter),
                sse.inner_event if events else dialect.inner,
                ours,
                meter,
                hold.outcome,
                entry.session,
                dispatched_at=upstream.dispatched_at,
                cancel_stops_billing=upstream.cancel_stops_billing,
                opens=opens,
                parser=EventParser() if events else FrameParser(),
            )
        except StreamRefused as refused:
            raise answers.refused_in_stream(refused, hold.outcome) from refused
        _note(meter, hold.outcome)
        if not meter.started and hold.outcome.note.startswith("upstream_"):
            self.failed(target, 0)  # after the head: nobody else could be asked any more
        return response


def _note(meter: Meter, outcome: Outcome) -> None:
    """An answer that is whole, and not the model's: a guardrail has intervened."""
    if meter.intervened and outcome.note == "ok":
        outcome.note = INTERVENED


class Watch:
    """What one attempt tells of its target."""

    __slots__ = ("_outcome", "_pipeline", "_target")

    def __init__(self, pipeline: Pipeline, target: Target, outcome: Outcome) -> None:
        self._pipeline = pipeline
        self._target = target
        self._outcome = outcome

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Refused):
            if error.elsewhere:
                self._pipeline.failed(self._target, error.wait)
        elif isinstance(error, GatewayError):
            if error.code in OF_THE_TARGET:
                self._pipeline.failed(self._target, 0)
            if error.code in UNSENT and not self._outcome.dispatched:
                raise Refused(elsewhere=True, error=error) from error


def _late(head_by: float) -> bool:
    return asyncio.get_running_loop().time() >= head_by


class Refusing(Protocol):
    """How a client is told of a refusal."""

    def refusal(self, status: int, body: bytes, /, *, billed: bool) -> tuple[int, bytes]:
        """A refusal of the provider as the client reads it; `billed`: it may have been."""


def told(refused: Refused, dialect: Refusing, ours: dict[str, str]) -> web.Response:
    """What the client is told when no other target is asked."""
    if refused.error is not None:
        raise refused.error
    status, body = dialect.refusal(refused.status, refused.body, billed=refused.billed)
    return web.Response(status=status, body=body, headers=refused.headers | ours)


def answer_headers(entry: Entry, hold: Hold) -> dict[str, str]:
    """What every answer of a model says about itself."""
    ours = {
        headers.REQUEST_ID: entry.request_id,
        headers.LLMGW_REQUEST_ID: entry.request_id,
        headers.TARGET: entry.target,
        "server": "llmgw",
    }
    if hold.remaining is not None:
        ours[headers.BUDGET_REMAINING] = f"{hold.remaining / MICRO:.6f}"
    if hold.clamped_by or entry.capped:
        ours[headers.MAX_TOKENS] = str(hold.max_tokens)
    if entry.thinking_tokens is not None:
        ours[headers.THINKING_TOKENS] = str(entry.thinking_tokens)
    if entry.asked:
        ours[headers.MODEL] = entry.model
    if entry.guardrail:
        ours[headers.GUARDRAIL] = entry.guardrail
    return ours
