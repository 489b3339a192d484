"""The yardstick: the least that a proxy on aiohttp can be. It forwards, and checks, counts and knows nothing.

python -m tests.bench.bare PORT UPSTREAM_PORT
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

from tests.lab.loopback import HOST

KEPT = ("content-type", "accept")


async def main(port: int, upstream: int) -> None:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as http:

        async def forward(request: web.BaseRequest) -> web.StreamResponse:
            headers = {name: request.headers[name] for name in KEPT if name in request.headers}
            url = f"http://{HOST}:{upstream}{request.raw_path}"
            async with http.post(url, data=await request.read(), headers=headers) as answer:
                kind = {"content-type": answer.headers["content-type"]}
                if answer.content_length is not None:
                    return web.Response(status=answer.status, body=await answer.read(), headers=kind)
                response = web.StreamResponse(status=answer.status, headers=kind)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response

        runner = web.ServerRunner(web.Server(forward, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, HOST, port, backlog=1024).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
