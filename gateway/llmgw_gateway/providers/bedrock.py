"""AWS Bedrock: builds, signs and sends. The only file that knows how Bedrock is called.

The URL goes to aiohttp as already encoded: its default re-quoting turns `%3A` into `:`, and the signature no longer
matches what is sent.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from llmgw_gateway.call import Outcome
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers import bridge
from llmgw_gateway.providers.sigv4 import Place, Signer
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from types import TracebackType

    from llmgw_gateway.call import Call, Target
    from llmgw_gateway.providers.credentials import AwsCredentials
    from llmgw_gateway.upstream import Bedrock as BedrockSettings

SERVICE: Final = "bedrock"
"""The name in the credential scope; the host is bedrock-runtime."""
ACTIONS: Final = {
    "invoke": ("invoke", "invoke-with-response-stream"),
    "converse": ("converse", "converse-stream"),
}
"""The last part of the path, whole and streamed."""
INPUT_TOKENS: Final = "x-amzn-bedrock-input-token-count"
MOST_COUNT_ANSWER: Final = 65_536
LARGE: Final = 1024 * 1024
"""From this size on, hashing or copying the body would stall the loop for half a millisecond and more."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """An answer whose head has arrived."""

    status: int
    headers: dict[str, str]
    """The few that a client may see."""
    content: aiohttp.StreamReader
    dispatched_at: float
    """On the monotonic clock."""
    own_words: bool
    """Whether an error is the provider's own, and not that of a proxy on the way, which may have cut off an answer."""
    input_tokens: str = ""
    """What Bedrock counted of a call whose answer may not tell, such as one for embeddings; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is sent."""

    invoke_id: str
    action: str
    body: bytes
    head_by: float
    """Until when the head of the answer has to be there, on the loop's clock."""
    timeout: aiohttp.ClientTimeout


class Bedrock:
    """Sends calls to one region (or one compatible endpoint)."""

    cancel_stops_billing: Final = False
    """By one public report, until it is measured on an account: an answer is billed to its end, read or not."""

    def __init__(
        self,
        settings: BedrockSettings,
        credentials: AwsCredentials,
        http: aiohttp.ClientSession,
        table: bridge.Table | None = None,
    ) -> None:
        self._table = table
        """What each model takes; None: as it ships."""
        self._settings = settings
        self._credentials = credentials
        self._http = http
        self._base = settings.endpoint.rstrip("/") or f"https://bedrock-runtime.{settings.region}.amazonaws.com"
        self._signer = Signer(settings.region, SERVICE)
        self._places: dict[tuple[str, str], tuple[URL, Place]] = {}
        self._timeout = aiohttp.ClientTimeout(
            total=settings.total_seconds,
            sock_connect=settings.connect_seconds,
            sock_read=settings.idle_seconds,
        )
        # The relay has its own idle timer, one for all reads of a stream; aiohttp would set one for each.
        self._stream_timeout = aiohttp.ClientTimeout(
            total=settings.total_seconds, sock_connect=settings.connect_seconds
        )

    def deadline(self) -> float:
        """Until when the head of an answer has to be there if the first attempt begins now, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._settings.first_byte_seconds

    def send(self, target: Target, call: Call, outcome: Outcome, head_by: float, *, again: bool = False) -> Attempt:
        """One attempt, dispatched on entering. `again`: the prompt is kept for another one, otherwise let go at once.

        GatewayError(UPSTREAM_UNREACHABLE) when nothing was sent, UPSTREAM_TIMEOUT when no head came until `head_by`.
        """
        body = bridge.invoke_body(call, target.model, self._table)
        if not again:
            call.release()
        action = ACTIONS[call.operation][call.stream]
        timeout = self._stream_timeout if call.stream else self._timeout
        return Attempt(self, Question(target.invoke_id, action, body, head_by, timeout), outcome)

    async def count_tokens(self, target: Target, call: Call) -> tuple[int, bytes]:
        """Ask Bedrock how many tokens a prompt has (CountTokens, free of charge), by the model: it knows no profiles.

        Returns status and body: on success in the Anthropic form where that was the question's, else Bedrock's own.
        """
        body, own = bridge.invoke_body(call, target.model, self._table), call.operation == "count"
        if not own:
            inner = base64.b64encode(body).decode()
            body = json.dumps({"input": {"invokeModel": {"body": inner}}}).encode()
        call.release()
        model = target.foundation_id or target.invoke_id
        question = Question(model, "count-tokens", body, self.deadline(), self._timeout)
        async with Attempt(self, question, Outcome()) as upstream:
            answer = b""
            while len(answer) < MOST_COUNT_ANSWER and (more := await upstream.content.readany()):
                answer += more
        count = None if own else _count(answer)
        return (upstream.status, answer) if count is None else (200, json.dumps({"input_tokens": count}).encode())

    async def dispatch(self, question: Question, outcome: Outcome) -> aiohttp.ClientResponse:
        """Sign and send, and wait for the head of the answer; the errors are those of `send`."""
        url, place = self._place(question.invoke_id, question.action)
        headers = await self._sign(place, question.body)
        headers["Accept-Encoding"] = "identity"  # frames are read as they are
        if time.monotonic() > outcome.dispatch_by:
            raise GatewayError(
                ErrorCode.STORE_UNAVAILABLE,
                "The gateway was paused for longer than it may keep money for a request; nothing was sent. Try again.",
                retry_after=2,
            )
        outcome.dispatched = True
        try:
            async with asyncio.timeout_at(question.head_by):
                return await self._http.post(
                    url,
                    data=_payload(question.body),
                    headers=headers,
                    allow_redirects=False,
                    timeout=question.timeout,
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            outcome.dispatched = False
            raise GatewayError(
                ErrorCode.UPSTREAM_UNREACHABLE,
                "The gateway cannot reach AWS Bedrock; nothing was sent or charged. Try again.",
                retry_after=2,
            ) from error
        except TimeoutError as error:
            outcome.note = "upstream_timeout"
            raise GatewayError(
                ErrorCode.UPSTREAM_TIMEOUT,
                f"AWS Bedrock did not begin to answer within {self._settings.first_byte_seconds} s.",
            ) from error
        except aiohttp.ClientError as error:
            outcome.note = "upstream_broken"
            raise GatewayError(
                ErrorCode.UPSTREAM_INVALID, "The connection to AWS Bedrock broke before an answer came."
            ) from error

    async def _sign(self, place: Place, body: bytes) -> dict[str, str]:
        credentials = self._credentials.current()
        digest = await asyncio.to_thread(_sha256, body) if len(body) >= LARGE else _sha256(body)
        return self._signer.headers(credentials, place, digest, time.time())

    def _place(self, invoke_id: str, action: str) -> tuple[URL, Place]:
        """Where a model is asked. Kept: only the models of the configuration come here."""
        known = self._places.get((invoke_id, action))
        if known is None:
            url = URL(f"{self._base}/model/{quote(invoke_id, safe='')}/{action}", encoded=True)
            known = self._places[invoke_id, action] = (url, Place.of(url.host_port_subcomponent or "", url.raw_path))
        return known


class Attempt:
    """A question to Bedrock: asked on entering, its connection given back or closed on leaving."""

    __slots__ = ("_bedrock", "_outcome", "_question", "_response")

    def __init__(self, bedrock: Bedrock, question: Question, outcome: Outcome) -> None:
        self._bedrock = bedrock
        self._question: Question | None = question
        self._outcome = outcome
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> Upstream:
        question, self._question = self._question, None  # nothing of the prompt is kept while the answer streams
        if question is None:
            raise RuntimeError("an attempt is made once")
        sent_at = time.monotonic()
        response = self._response = await self._bedrock.dispatch(question, self._outcome)
        self._outcome.status = response.status
        counted = response.headers.get(INPUT_TOKENS, "")
        return Upstream(response.status, _visible(response), response.content, sent_at, _own_words(response), counted)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response is not None:
            await self._response.__aexit__(kind, error, trace)


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _payload(body: bytes) -> bytes | io.BytesIO:
    """A large body is written in pieces: in one, it would stall the loop while it is copied."""
    return io.BytesIO(body) if len(body) >= LARGE else body


def _visible(response: aiohttp.ClientResponse) -> dict[str, str]:
    """An allow-list: everything else that an upstream says in headers stays here."""
    names = ("content-type", "retry-after", "x-amzn-errortype", "x-amzn-requestid")
    return {name: response.headers[name] for name in names if name in response.headers}


def _own_words(response: aiohttp.ClientResponse) -> bool:
    """AWS signs each of its answers with the type of the error or the number of the request, a proxy with neither."""
    return "x-amzn-errortype" in response.headers or "x-amzn-requestid" in response.headers


def _count(body: bytes) -> int | None:
    """The number in a CountTokens answer, or None when it has another form."""
    try:
        return msgspec.json.decode(body, type=dict[str, int])["inputTokens"]
    except (msgspec.DecodeError, KeyError):
        return None
