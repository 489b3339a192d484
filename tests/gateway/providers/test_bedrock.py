"""The way to Bedrock, against a real server on loopback: what is sent, what is believed, what is kept."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import ClientError

from llmgw_gateway.call import Outcome, Target
from llmgw_gateway.dialects import anthropic
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers.bedrock import Bedrock
from llmgw_gateway.providers.credentials import AwsCredentials
from llmgw_gateway.sections.upstream import Bedrock as BedrockSettings
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmgw_gateway.call import Call

    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

MIB = 1024 * 1024
TARGET = Target("bedrock", "claude-sonnet-4-5", "anthropic.claude-sonnet-4-5", "regional")


class Fixed(AwsCredentials):
    """A key that never expires."""

    def current(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials("AKIAEXAMPLE", "unused", None)


@asynccontextmanager
async def cloud(handler: Handler) -> AsyncIterator[Bedrock]:
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    settings = BedrockSettings(region="us-east-1", endpoint=f"http://127.0.0.1:{runner.addresses[0][1]}")
    bedrock = Bedrock(settings, Fixed())
    yield bedrock
    bedrock.close()
    await runner.cleanup()


def call(size: int = 10) -> Call:
    messages = [{"role": "user", "content": "x" * size}]
    return anthropic.read(json.dumps({"model": "m", "max_tokens": 5, "messages": messages}).encode(), "")


async def test_an_answer_is_asked_for_as_it_is_and_no_redirect_is_followed() -> None:
    seen: list[str] = []

    async def redirect(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.headers["Accept-Encoding"])
        await request.read()
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with cloud(redirect) as bedrock, bedrock.send(TARGET, call(), Outcome(), bedrock.deadline()) as upstream:
        assert upstream.status == 307
    assert seen == ["identity"]


async def test_nothing_of_a_prompt_is_kept_while_its_answer_streams() -> None:
    released = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        while await request.content.readany():
            pass
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await released.wait()
        return response

    async with cloud(answer) as bedrock:
        async with bedrock.send(
            TARGET, call(), Outcome(), bedrock.deadline()
        ) as upstream:  # what is made once is made now
            released.set()
            while await upstream.content.readany():
                pass
        released.clear()
        tracemalloc.start()
        try:
            prompt = call(16 * MIB)
            assert tracemalloc.get_traced_memory()[0] > 16 * MIB
            async with bedrock.send(TARGET, prompt, Outcome(), bedrock.deadline()) as upstream:
                assert await upstream.content.readany() == b"begun"
                async with asyncio.timeout(10):  # the thread that hashed it lets go of it when it comes to run again
                    while tracemalloc.get_traced_memory()[0] >= 4 * MIB:  # noqa: ASYNC110 -- memory has no event
                        await asyncio.sleep(0.01)
                released.set()
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("again", [False, True])
async def test_a_prompt_is_kept_only_for_another_attempt(again: bool) -> None:  # noqa: FBT001 -- a table
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response()

    prompt = call()
    async with cloud(answer) as bedrock, bedrock.send(TARGET, prompt, Outcome(), bedrock.deadline(), again=again):
        assert (prompt.members is not None) is again


async def test_a_count_that_arrives_in_pieces_is_read_whole() -> None:
    async def pieces(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"inputTo', b'kens":', b" 1234}"):
            await response.write(piece)
            await asyncio.sleep(0)
        return response

    async with cloud(pieces) as bedrock:
        assert await bedrock.count_tokens(TARGET, call()) == (200, b'{"input_tokens": 1234}')


@pytest.mark.parametrize("body", [b"", b"[]", b'{"inputTokens":"many"}', b"x" * 200_000])
async def test_an_answer_that_is_no_count_is_passed_on_and_bounded(body: bytes) -> None:
    async def odd(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(status=400, body=body)

    async with cloud(odd) as bedrock:
        status, answer = await bedrock.count_tokens(TARGET, call())
    assert status == 400
    assert body.startswith(answer)
    assert len(answer) <= 2 * 65_536


def expiring(seconds: int, error: Exception | None = None) -> tuple[Credentials, dict[str, Any]]:
    """Credentials of a role, as botocore keeps them, with so long to live; asking again fails or gives an hour."""

    def metadata(life: int) -> dict[str, str]:
        expiry = (datetime.now(UTC) + timedelta(seconds=life)).isoformat()
        return {"access_key": "AKIA1", "secret_key": "s", "token": "t", "expiry_time": expiry}

    def refresh() -> dict[str, str]:
        if state["error"]:
            raise state["error"]
        return metadata(3600)

    state: dict[str, Any] = {"error": error}
    return RefreshableCredentials.create_from_metadata(metadata(seconds), refresh, "assume-role"), state


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ExpiredTokenException"}}, "AssumeRole"),
        RuntimeError("anything else"),
        KeyError("Credentials"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_error_of_the_token_service_ends_the_refreshing(error: Exception) -> None:
    credentials = AwsCredentials()
    credentials._source, state = expiring(3600)
    await credentials.refresh()
    first = credentials.current()
    credentials._source, state = expiring(60, error)
    await credentials.refresh()
    assert credentials.current() is first, "the last good set stays in use until it ends"
    state["error"] = None
    await credentials.refresh()
    assert credentials.current() is not first


async def test_credentials_that_have_ended_are_not_used() -> None:
    credentials = AwsCredentials()
    credentials._source, _ = expiring(3600)
    await credentials.refresh()
    credentials._expires = datetime.now(UTC)
    with pytest.raises(GatewayError) as caught:
        credentials.current()
    assert caught.value.code is ErrorCode.UPSTREAM_CREDENTIALS
