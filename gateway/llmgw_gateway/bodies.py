"""Reads the body of a request: whole, bounded in size and time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import ClientError
from aiohttp.http_exceptions import HttpProcessingError

from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from aiohttp import web


async def read_body(request: web.BaseRequest, most: int, seconds: int) -> bytes:
    """The whole body, bounded in size and time.

    GatewayError(REQUEST_TOO_LARGE or REQUEST_MALFORMED), ClientGoneError when the client hangs up meanwhile.
    """
    announced = request.content_length
    if announced is not None and announced > most:
        raise _too_large(most)
    content = request.content
    if content.is_eof() and content.exception() is None:  # a small one has come with its head
        whole = content.read_nowait()
        if len(whole) > most:
            raise _too_large(most)
        return whole
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while chunk := await content.readany():
                size += len(chunk)
                if size > most:
                    raise _too_large(most)
                chunks.append(chunk)
    except TimeoutError:
        raise GatewayError(
            ErrorCode.REQUEST_MALFORMED, f"The request body did not arrive within {seconds} s."
        ) from None
    except (ConnectionError, ClientError, HttpProcessingError) as error:
        if request.transport is None or request.transport.is_closing():
            raise ClientGoneError from error
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "The request body is not well-formed HTTP/1.1.") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(most: int) -> GatewayError:
    return GatewayError(ErrorCode.REQUEST_TOO_LARGE, f"The request body is larger than {most // 1024} KiB.")
