"""Forwards one model request to the gateway with the token added: bytes in, bytes out, nothing kept but a small body.

Exactly one request reaches the gateway for each that comes in, but for one case: the gateway refused the token itself,
and the whole body is still here. Then it is sent once more with a newer token. Nothing else is repeated: a prompt that
may have arrived would be paid twice.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from llmgw_agent.errors import AgentError
from llmgw_wire.errors import ErrorCode, anthropic_body, read_refusal
from llmgw_wire.headers import AMZN_ERROR_TYPE, SHOULD_RETRY

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from llmgw_agent.broker import Broker
    from llmgw_agent.cache import CachedToken

log = logging.getLogger(__name__)

SERVED: Final = ("/v1/messages", "/v1/models", "/bedrock/", "/openai/")
"""What tools ask a model with. The gateway's other endpoints are the agent's own business."""
MOST_KEPT: Final = 1024 * 1024
"""Bytes of a request that are kept until it is answered. A longer one is passed on as it comes, and not repeated."""
BUFFER: Final = 64 * 1024
MOST_STREAMS: Final = 512
TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=4, sock_read=900)
"""Seconds. Models think for minutes; the gateway's own limits end before this."""
KEEP_ALIVE: Final = 15.0
"""Seconds. Shorter than any gateway keeps a connection: a request must not meet one that is being closed."""
HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "expect"}
)
OURS: Final = frozenset(
    {"host", "authorization", "x-api-key", "cookie", "dpop"}
    | {"x-amz-security-token", "x-amz-date", "x-amz-content-sha256"}
)
"""What a tool says about these is about us, not about the gateway."""
DEFAULTS: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
CODES: Final = {
    "sign_in_required": ErrorCode.SIGN_IN_INVALID,
    "refused": ErrorCode.PERSON_DISABLED,
    "temporary": ErrorCode.UPSTREAM_UNREACHABLE,
}
REFUSED_TOKEN: Final = frozenset({ErrorCode.TOKEN_EXPIRED, ErrorCode.TOKEN_INVALID, ErrorCode.PROOF_INVALID})
"""A clock that was set makes bad proofs; whoever gets a newer token measures it again."""
UNAUTHORIZED: Final = 401


class Forward:
    """Forwards requests; who may ask was decided before (entrance.py)."""

    def __init__(self, broker: Broker, gateway_url: str, context: ssl.SSLContext) -> None:
        self._broker = broker
        self._url = gateway_url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=MOST_STREAMS, keepalive_timeout=KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=TIMEOUT,
            auto_decompress=False,
            read_bufsize=BUFFER,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections to the gateway."""
        await self._session.close()

    async def relay(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request with the gateway's answer, or with a refusal in the shape of its dialect."""
        if not is_served(request.raw_path):
            return refusal(
                request, ErrorCode.NOT_FOUND, "The forwarder serves what models are asked with, and no more."
            )
        try:
            answer, seen = await self._ask(request)
        except AgentError as error:
            return refusal(request, CODES.get(error.code, ErrorCode.INTERNAL), f"llmgw: {error.line}")
        except (aiohttp.ClientError, TimeoutError) as error:
            log.info("not forwarded: %s", type(error).__name__)
            text = f"The agent lost the gateway {self._url} before it answered ({type(error).__name__})."
            return refusal(request, ErrorCode.UPSTREAM_UNREACHABLE, text)
        async with answer:
            return await _copy(request, answer, seen)

    async def _ask(self, request: web.BaseRequest) -> tuple[aiohttp.ClientResponse, bytes | None]:
        """The gateway's answer to this request; where its token was refused, the answer to the next.

        Its body comes with it if it was looked at.
        """
        token = await self._broker.bound()
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body_of(request)
        answer = await self._send(request, body, token)
        if not isinstance(body, bytes) or answer.status != UNAUTHORIZED:
            return answer, None
        async with answer:
            seen = await answer.read()
        if read_refusal(answer.status, seen).code not in REFUSED_TOKEN:
            return answer, seen
        newer = await self._broker.newer(token)
        return (answer, seen) if newer is token else (await self._send(request, body, newer), None)

    async def _send(
        self, request: web.BaseRequest, body: bytes | AsyncIterator[bytes], token: CachedToken
    ) -> aiohttp.ClientResponse:
        headers = passed_on(request.headers)
        headers.update(await self._broker.authorization(token, request.method, request.raw_path))
        return await self._session.request(
            request.method,
            URL(self._url + request.raw_path, encoded=True),
            headers=headers,
            data=_pieces(body) if isinstance(body, bytes) and body else body or None,
            skip_auto_headers=DEFAULTS,
            allow_redirects=False,
        )


def is_served(raw_path: str) -> bool:
    """Whether a request target is one of a model's, in the one spelling that the gateway reads the same way."""
    path = raw_path.partition("?")[0]
    if not path.startswith(SERVED):
        return False
    return not any(unquote(part) in {"", ".", ".."} for part in path.split("/")[1:])


def passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that concern the other side (RFC 9110 section 7.6.1)."""
    kept = CIMultiDict(headers)
    named = {name.strip().lower() for name in kept.get("Connection", "").split(",")}
    for name in {name for name in kept if name.lower() in HOP_BY_HOP | OURS | named}:
        kept.popall(name, None)
    return kept


def refusal(request: web.BaseRequest, code: ErrorCode, message: str) -> web.Response:
    """An error as the gateway would put it in the dialect of this request."""
    wire = code.wire
    body = anthropic_body(code, message, "")
    if request.raw_path.startswith("/openai/"):
        body = json.dumps({"error": {"message": message, "type": wire.anthropic_type, "code": code.value}}).encode()
    response = web.Response(status=wire.status, body=body, content_type="application/json")
    if wire.retry == "never":
        response.headers[SHOULD_RETRY] = "false"
    if request.raw_path.startswith("/bedrock/"):
        response.headers[AMZN_ERROR_TYPE] = wire.aws_type
    # What is left of the request is not read: the connection is of no more use.
    response.force_close()
    return response


async def _body_of(request: web.BaseRequest) -> bytes | AsyncIterator[bytes]:
    """The whole body if it is small enough to be kept; else an iterator over all of it."""
    kept = bytearray()
    while len(kept) <= MOST_KEPT:
        part = await request.content.readany()
        if not part:
            return bytes(kept)
        kept += part

    async def everything() -> AsyncIterator[bytes]:
        yield bytes(kept)
        kept.clear()
        while part := await request.content.readany():
            yield part

    return everything()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """A kept body as it came: in pieces, between which others have their turn."""
    for start in range(0, len(body), BUFFER):
        yield body[start : start + BUFFER]


async def _copy(request: web.BaseRequest, answer: aiohttp.ClientResponse, seen: bytes | None) -> web.StreamResponse:
    """Pass the answer on as it comes; a reader that pauses pauses the gateway.

    When the gateway breaks off, so do we: the tool sees what it would see without us, and never a whole answer.
    """
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=passed_on(answer.headers))
    try:
        await response.prepare(request)
        if seen is not None:
            await response.write(seen)
        else:
            while part := await answer.content.readany():
                await response.write(part)
        await response.write_eof()
    except ConnectionResetError:
        log.debug("the tool has left")  # the gateway learns of it when its connection closes
    except (aiohttp.ClientError, TimeoutError) as error:
        log.info("the gateway broke off an answer: %s", type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
    return response
