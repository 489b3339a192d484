"""A reverse proxy between gateway and cloud that writes down what it sees and changes nothing.

Each request is judged by oracle A (`sigv4.fault`) and then forwarded byte for byte, with its Host header, so that the
emulator behind judges the very same signature with its own code (oracle B). Usage is read with botocore's parser.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.lab import sigv4, usage
from tests.lab.aws_frames import EventReader
from tests.lab.threaded import ThreadedServer
from tests.lab.usage import Usage, UsageMeter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.lab.ministack import AwsKey

HOP_BY_HOP = {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
EVENT_STREAM = "application/vnd.amazon.eventstream"
LARGEST_BODY = 64 * 1024 * 1024


@dataclass
class Recorded:
    """One upstream call."""

    request: sigv4.Received
    signature_fault: str
    status: int = 0
    usage: Usage | None = None
    answer: bytearray = field(default_factory=bytearray)
    complete: bool = False


class Recorder(ThreadedServer):
    """Stands before `upstream`; give its `url` to the gateway as endpoint."""

    def __init__(self, upstream: str, key: AwsKey, *, region: str) -> None:
        super().__init__()
        self.calls: list[Recorded] = []
        self._upstream = upstream
        self._key = key
        self._region = region

    @property
    def endpoint(self) -> str:
        return self.url

    @property
    def region(self) -> str:
        return self._region

    @property
    def key(self) -> AwsKey:
        return self._key

    @property
    def usages(self) -> list[Usage]:
        """The usage of every answer that had one, in order."""
        return [call.usage for call in self.calls if call.usage is not None]

    def assert_signatures(self) -> None:
        """Oracle A's verdict on everything so far."""
        faults = [(call.request.raw_path, call.signature_fault) for call in self.calls if call.signature_fault]
        assert not faults, faults

    async def application(self) -> web.Application:
        app = web.Application(client_max_size=LARGEST_BODY)
        app.cleanup_ctx.append(self._session)
        app.router.add_route("*", "/{path:.*}", self._relay)
        return app

    async def _session(self, _app: web.Application) -> AsyncIterator[None]:
        self._client = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        yield
        await self._client.close()

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = sigv4.Received(request.method, request.raw_path, request.headers.copy(), body)
        call = Recorded(received, sigv4.fault(received, self._key, region=self._region))
        self.calls.append(call)
        target = URL(self._upstream + request.raw_path, encoded=True)
        headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP)
        skip = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
        async with self._client.request(
            request.method, target, headers=headers, data=body or None, skip_auto_headers=skip, allow_redirects=False
        ) as upstream:
            call.status = upstream.status
            kept = CIMultiDict((k, v) for k, v in upstream.headers.items() if k.lower() not in HOP_BY_HOP)
            answer = web.StreamResponse(status=upstream.status, headers=kept)
            await answer.prepare(request)
            await self._copy(upstream, answer, call)
            await answer.write_eof()
        return answer

    async def _copy(self, upstream: aiohttp.ClientResponse, answer: web.StreamResponse, call: Recorded) -> None:
        """Everything is written down before the client can have seen it: a test may look as soon as it was answered."""
        if upstream.headers.get("Content-Type") != EVENT_STREAM:
            call.answer += await upstream.read()
            call.usage = usage.of_message(bytes(call.answer))
            call.complete = True
            await answer.write(bytes(call.answer))
            return
        meter, reader = UsageMeter(), EventReader()
        async for data in upstream.content.iter_any():
            call.answer += data
            for event in reader.feed(data):
                meter.see(event)
            call.usage = meter.usage
            await answer.write(data)
        call.complete = True
