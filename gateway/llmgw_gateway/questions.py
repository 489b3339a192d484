"""What callers may ask about themselves: who they are, what is allowed, what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmgw_wire import headers
from llmgw_wire.messages import Me

if TYPE_CHECKING:
    from aiohttp import web

    from llmgw_gateway.observe.entry import Entry
    from llmgw_gateway.pipeline import Pipeline


async def me(pipeline: Pipeline, request: web.BaseRequest, entry: Entry) -> Me:
    """Who the gateway takes the caller for, with budgets and limits as they stand."""
    async with pipeline.audit.entry(entry):
        caller = pipeline.authenticator.authenticate(request.headers, request.method, request.raw_path)
        entry.caller(caller)
        pipeline.rates.question(caller.person_id)
        person = await pipeline.directory.person(caller.person_id)
        account = await pipeline.directory.account(caller, request.headers.get(headers.PROJECT, ""))
        entry.account(account)
        answer = Me(
            person=caller.person_id,
            name=person.name,
            email=person.email,
            issuer=person.issuer,
            session=caller.session,
            token_expires_at=caller.token_expires_at,
            models=pipeline.policy.permissions.allowed(account),
            budgets=await pipeline.money.budgets_of(account),
            limits=await pipeline.rates.views(account),
            caps=pipeline.policy.caps(account),
        )
        entry.status = 200
        return answer
