"""The table of refusals as real clients see it: code and dialect to status, body, headers, exception, and repetition.

The front door is the gateway's own; what stands behind it refuses every call with the code that the model's name says.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import anthropic
import boto3
import httpx2
import openai
import pytest
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import ClientError

from llmgw_gateway.edge import Edge
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.observe.metrics import Metrics
from llmgw_gateway.peers import Peers
from llmgw_wire.errors import ADMINISTRATION, OPENAI_TYPES, TABLE, ErrorCode, bedrock_status, openai_status
from tests.lab.threaded import ThreadedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmgw_gateway.observe.entry import Entry

CODES = list(TABLE)
TEXT = "This is what happened, to what, and what to do next."
ATTEMPTS = 2
BOTO_REPEATS = {500, 502, 503, 504}
"""botocore's standard mode repeats these statuses, and throttling, whatever a server says about it."""
SDK_REPEATS = {408, 409, 429}
EXCEPTIONS: dict[int, type[anthropic.APIStatusError]] = {
    400: anthropic.BadRequestError,
    401: anthropic.AuthenticationError,
    403: anthropic.PermissionDeniedError,
    404: anthropic.NotFoundError,
    409: anthropic.ConflictError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    502: anthropic.InternalServerError,
    503: anthropic.InternalServerError,
    529: anthropic.InternalServerError,
}


OPENAI_EXCEPTIONS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    429: openai.RateLimitError,
}


class Refusing:
    """A pipeline that refuses."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.asked: Counter[tuple[str, ErrorCode]] = Counter()

    async def invoke(self, request: web.Request, entry: Entry, _dialect: object) -> web.StreamResponse:
        body = await request.read()
        name = request.path.split("/")[3] if entry.dialect == "bedrock" else json.loads(body)["model"]
        code = ErrorCode(name)
        self.asked[entry.dialect, code] += 1
        raise GatewayError(code, TEXT)


class Door(ThreadedServer):
    """The gateway's front door on a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing = Refusing()

    async def application(self) -> web.Application:
        nothing: Any = None
        edge = Edge(
            pipeline=cast("Any", self.refusing),
            exchange=nothing,
            ring=nothing,
            bootstrap=nothing,
            body_seconds=10,
            peers=Peers((), in_clear=False),
            unready=(),
        )
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", edge.__call__)
        return app


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with Door() as door:
        yield door


@pytest.fixture(scope="module")
def seen_by_anthropic(door: Door) -> dict[ErrorCode, anthropic.APIStatusError]:
    """What the SDK raises for each code; it may repeat once."""

    def ask(code: ErrorCode) -> anthropic.APIStatusError:
        with (
            httpx2.Client(trust_env=False) as plain,
            anthropic.Anthropic(api_key="x", base_url=door.url, max_retries=ATTEMPTS - 1, http_client=plain) as sdk,
            pytest.raises(anthropic.APIStatusError) as caught,
        ):
            sdk.messages.create(model=code.value, max_tokens=1, messages=[{"role": "user", "content": "hi"}])
        return caught.value

    with ThreadPoolExecutor(len(CODES)) as pool:
        return dict(zip(CODES, pool.map(ask, CODES), strict=True))


@pytest.fixture(scope="module")
def seen_by_boto(door: Door) -> Iterator[dict[ErrorCode, ClientError]]:
    """The same by boto3."""
    with pytest.MonkeyPatch.context() as patch:
        # The only patch: boto3 takes a bearer token from this variable and from nowhere else.
        patch.setenv("AWS_BEARER_TOKEN_BEDROCK", "x")
        for name in ("AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.delenv(name, raising=False)
        config = Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, max_pool_connections=len(CODES))
        boto = boto3.client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=f"{door.url}/bedrock", config=config
        )

        def ask(code: ErrorCode) -> ClientError:
            with pytest.raises(ClientError) as caught:
                boto.invoke_model(modelId=code.value, body=b"{}")
            return caught.value

        with ThreadPoolExecutor(len(CODES)) as pool:
            yield dict(zip(CODES, pool.map(ask, CODES), strict=True))
        boto.close()


@pytest.fixture(scope="module")
def seen_by_openai(door: Door) -> dict[ErrorCode, openai.APIStatusError]:
    """The same by OpenAI's SDK."""

    def ask(code: ErrorCode) -> openai.APIStatusError:
        url = f"{door.url}/openai/v1"
        with (
            httpx2.Client(trust_env=False) as plain,
            openai.OpenAI(api_key="x", base_url=url, max_retries=ATTEMPTS - 1, http_client=plain) as sdk,
            pytest.raises(openai.APIStatusError) as caught,
        ):
            sdk.chat.completions.create(model=code.value, messages=[{"role": "user", "content": "hi"}])
        return caught.value

    with ThreadPoolExecutor(len(CODES)) as pool:
        return dict(zip(CODES, pool.map(ask, CODES), strict=True))


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.value)
def test_openai_s_sdk_raises_shows_and_repeats_as_the_table_says(
    door: Door, seen_by_openai: dict[ErrorCode, openai.APIStatusError], code: ErrorCode
) -> None:
    error, wire = seen_by_openai[code], code.wire
    status = openai_status(code)
    assert error.status_code == status
    assert isinstance(error, OPENAI_EXCEPTIONS.get(status, openai.APIStatusError))
    assert (error.code, error.type) == (code.value, OPENAI_TYPES.get(status, "server_error"))
    assert TEXT in error.message
    assert error.response.headers["request-id"].startswith("req_")
    assert (error.response.headers.get("x-should-retry") == "false") is (wire.retry == "never")
    repeats = wire.retry == "client" and (status in SDK_REPEATS or status >= 500)
    assert door.refusing.asked["openai", code] == (ATTEMPTS if repeats else 1)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.value)
def test_the_anthropic_sdk_raises_shows_and_repeats_as_the_table_says(
    door: Door, seen_by_anthropic: dict[ErrorCode, anthropic.APIStatusError], code: ErrorCode
) -> None:
    error, wire = seen_by_anthropic[code], code.wire
    assert error.status_code == wire.status
    assert isinstance(error, EXCEPTIONS.get(wire.status, anthropic.APIStatusError))
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    body: Any = error.body
    assert body["type"] == "error"
    assert body["request_id"] == error.request_id
    assert body["error"] == {"type": wire.anthropic_type, "message": TEXT, "code": code.value}
    assert TEXT in error.message
    assert (error.response.headers.get("x-should-retry") == "false") is (wire.retry == "never")
    repeats = wire.retry == "client" and (wire.status in SDK_REPEATS or wire.status >= 500)
    assert door.refusing.asked["anthropic", code] == (ATTEMPTS if repeats else 1)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.value)
def test_boto3_raises_and_repeats_as_the_table_says(
    door: Door, seen_by_boto: dict[ErrorCode, ClientError], code: ErrorCode
) -> None:
    error, wire = seen_by_boto[code], code.wire
    assert error.response["Error"]["Code"] == wire.aws_type
    assert error.response["Error"]["Message"] == TEXT
    metadata = error.response["ResponseMetadata"]
    status = bedrock_status(code)
    assert metadata["HTTPStatusCode"] == status
    assert metadata["HTTPHeaders"]["request-id"].startswith("req_")
    assert type(error).__name__ in {wire.aws_type, "ClientError"}, "its own class where the service model has one"
    repeats = status in BOTO_REPEATS or wire.aws_type == "ThrottlingException"
    assert not (repeats and wire.retry == "never"), "boto3 knows no header that keeps it from paying twice"
    assert door.refusing.asked["bedrock", code] == (ATTEMPTS if repeats else 1)


def test_nobody_is_answered_with_what_claude_code_repeats_for_minutes_or_hides() -> None:
    statuses = {code: code.wire.status for code in CODES if code not in ADMINISTRATION}
    assert 403 not in statuses.values()
    assert 413 not in statuses.values()
    assert {code for code, status in statuses.items() if status == 404} == {ErrorCode.NOT_FOUND}
    for code, status in statuses.items():
        if status == 400:
            assert (code.wire.anthropic_type, code.wire.retry) == ("policy_blocked", "never"), code
