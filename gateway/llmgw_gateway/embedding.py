"""A request for embeddings: one operation of one or more attempts, because Titan takes one text a call and Cohere 96.

Each attempt has a hold and a settlement of its own. After a failure no further one begins; those that run are let
finish and are paid, because the provider bills them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web
from msgspec import structs

from llmgw_gateway.call import MICRO, Completeness, Outcome, Usage
from llmgw_gateway.dialects import openai, openai_embeddings
from llmgw_gateway.dialects.embeddings import EmbeddingMeter, vectors
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe.entry import printable
from llmgw_gateway.pipeline import answer_headers, told
from llmgw_gateway.providers import answers
from llmgw_gateway.providers.answers import OK, Refused
from llmgw_wire import headers
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_gateway.call import Account, Call, Grant, Target
    from llmgw_gateway.dialects.shapes import Vector
    from llmgw_gateway.intake import Body
    from llmgw_gateway.money.hold import Hold
    from llmgw_gateway.observe.entry import Entry
    from llmgw_gateway.pipeline import Pipeline

AT_ONCE: Final = 8
"""Attempts of one request that run at the same time."""


class _OpenAI:
    """How the provider's refusal is told."""

    def refusal(self, status: int, body: bytes, *, billed: bool) -> tuple[int, bytes]:  # noqa: ARG002 -- others need it
        return openai.refusal(status, body)


async def embed(pipeline: Pipeline, request: web.BaseRequest, entry: Entry, body: Body) -> web.StreamResponse:
    """`POST /openai/v1/embeddings`."""
    async with pipeline.audit.entry(entry):
        account = await pipeline.account(request, entry)
        wanted = openai_embeddings.read(await body(request))
        entry.model, entry.request_bytes = printable(wanted.model), wanted.size
        grant = pipeline.policy.authorize(account, wanted.model, 0, kind="embedding")
        entry.permitted(grant)
        model = pipeline.policy.named(wanted.model)
        calls = openai_embeddings.calls(wanted, model.bedrock_id if model else "")
        work = _Work(pipeline, entry, account, grant)
        whole = openai_embeddings.whole(calls)
        entry.outcome = Outcome()
        async with pipeline.rates.admit(account, grant, whole) as place:
            place.follow(entry.outcome)
            try:
                found = await work.run(calls)
            except Refused as refusal:
                response = told(refusal, _OpenAI(), answer_headers(entry, work.holds[-1]))
                entry.status = response.status
                return response
            finally:
                _sum(entry.outcome, work.holds)
        pipeline.authenticator.check(entry.session)
        entry.status = OK
        ours = answer_headers(entry, work.holds[-1])
        ours[headers.COST] = f"{entry.outcome.cost / MICRO:.6f}"
        answer = openai_embeddings.answer(wanted, found, entry.outcome.usage.prompt)
        return web.Response(status=OK, body=answer, content_type="application/json", headers=ours)


class _Work:
    """The attempts of one request."""

    def __init__(self, pipeline: Pipeline, entry: Entry, account: Account, grant: Grant) -> None:
        self._pipeline = pipeline
        self._entry = entry
        self._account = account
        self._grant = grant
        self._failures: list[Exception] = []
        self.holds: list[Hold] = []

    async def run(self, calls: list[Call]) -> list[Vector]:
        """The vectors of all calls, in order; the first failure of any of them."""
        found: list[tuple[Vector, ...]] = [()] * len(calls)
        waiting = iter(enumerate(calls))
        await asyncio.gather(*(self._follow(waiting, found) for _ in range(min(AT_ONCE, len(calls)))))
        if self._failures:
            raise self._failures[0]
        return [vector for each in found for vector in each]

    async def _follow(self, waiting: Iterator[tuple[int, Call]], found: list[tuple[Vector, ...]]) -> None:
        for place, call in waiting:
            if self._failures:
                return
            try:
                found[place] = await self._attempt(call)
            except Exception as error:  # noqa: BLE001 -- raised by `run`, once the other attempts have ended
                self._failures.append(error)

    async def _attempt(self, call: Call) -> tuple[Vector, ...]:
        """Ask one target after the other, as for prompts; Refused when the last one does."""
        targets = self._pipeline.asked(call, self._grant)
        head_by = self._pipeline.upstreams.deadline()
        for number, target in enumerate(targets, 1):
            try:
                return await self._ask(target, call, head_by, again=number < len(targets))
            except Refused as refused:
                if number == len(targets) or not refused.elsewhere:
                    raise
                self._pipeline.metrics.fallbacks.labels(target.model).inc()
        raise AssertionError  # a grant has a target

    async def _ask(self, target: Target, call: Call, head_by: float, *, again: bool) -> tuple[Vector, ...]:
        pipeline = self._pipeline
        aimed = structs.replace(self._grant, target=target)
        async with pipeline.money.admit(self._account, aimed, call, self._entry.request_id) as hold:
            self.holds.append(hold)
            self._entry.attempted(hold.attempt_id, target, hold.outcome)
            with pipeline.watched(target, hold.outcome):
                async with pipeline.upstreams.send(target, call, hold.outcome, head_by, again=again) as upstream:
                    if upstream.status != OK:
                        raise await answers.refusal(upstream, hold.outcome)
                    answers.check_form(upstream, hold.outcome, stream=False)
                    body = await answers.whole(upstream, EmbeddingMeter(upstream.input_tokens), hold.outcome)
            pipeline.health.answered(target)
        found = vectors(body)
        if len(found) != call.prompts:
            raise GatewayError(
                ErrorCode.UPSTREAM_INVALID, f"The provider answered {call.prompts} texts with {len(found)} embeddings."
            )
        return found


def _sum(whole: Outcome, holds: list[Hold]) -> None:
    """What became of the operation: the sum of its attempts."""
    outcomes = [hold.outcome for hold in holds]
    sent = [each for each in outcomes if each.dispatched]
    whole.dispatched = bool(sent)
    whole.refused_upstream = bool(sent) and all(each.refused_upstream for each in sent)
    whole.usage = Usage(input=sum(each.usage.input for each in sent))
    complete = all(each.completeness == "complete" or each.refused_upstream for each in sent)
    known: Completeness = "complete" if complete else "partial"
    whole.completeness = known if whole.usage.input or complete else "none"
    whole.cost = sum(each.cost for each in outcomes)
    whole.estimated = any(each.estimated for each in outcomes)
    whole.note = next((each.note for each in outcomes if each.note != "ok"), "ok")
