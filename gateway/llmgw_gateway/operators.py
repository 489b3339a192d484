"""The operators' listener: probes with reasons, and metrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from llmgw_gateway.edge import Edge
    from llmgw_gateway.listener import Handler
    from llmgw_gateway.observe.anchors import Anchors
    from llmgw_gateway.pipeline import Pipeline
    from llmgw_gateway.reloading import Reloader


def operators(pipeline: Pipeline, edge: Edge, reloader: Reloader, anchors: Anchors) -> Handler:
    """The operators' listener. It knows no person, hence takes no credential: bind it to loopback."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if (request.method, request.path) == ("GET", "/readyz"):
            why = edge.unready()
            lines = [why or "ready", *anchors.standing(), *reloader.standing.lines()]
            return web.Response(status=503 if why else 200, text="".join(f"{line}\n" for line in lines))
        if (request.method, request.path) != ("GET", "/metrics"):
            return web.Response(status=404, text="only GET /metrics and GET /readyz are served here\n")
        pipeline.metrics.tasks.set(len(asyncio.all_tasks()))
        return web.Response(
            body=pipeline.metrics.text(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    return serve
