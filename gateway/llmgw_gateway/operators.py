"""The operators' listener: probes with reasons, metrics, and SCIM with a credential of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from llmgw_gateway.observe.audit import new_request_id
from llmgw_gateway.scim.api import ROOT as SCIM_ROOT

if TYPE_CHECKING:
    from llmgw_gateway.edge import Edge
    from llmgw_gateway.listener import Handler
    from llmgw_gateway.pipeline import Pipeline
    from llmgw_gateway.reloading import Reloader
    from llmgw_gateway.scim.api import Scim


def operators(pipeline: Pipeline, edge: Edge, reloader: Reloader, scim: Scim) -> Handler:
    """The operators' listener: bind it to loopback, because all of it but SCIM takes no credential."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == SCIM_ROOT or request.path.startswith(f"{SCIM_ROOT}/"):
            return await scim(request, new_request_id())
        if (request.method, request.path) == ("GET", "/readyz"):
            why = edge.unready()
            lines = [why or "ready", *reloader.standing.lines()]
            return web.Response(status=503 if why else 200, text="".join(f"{line}\n" for line in lines))
        if (request.method, request.path) != ("GET", "/metrics"):
            return web.Response(status=404, text="only GET /metrics, GET /readyz and /scim/v2 are served here\n")
        pipeline.metrics.tasks.set(len(asyncio.all_tasks()))
        return web.Response(
            body=pipeline.metrics.text(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    return serve
