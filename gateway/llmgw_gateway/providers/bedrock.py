"""AWS Bedrock: builds, signs and sends. The only file that knows how Bedrock is called.

The path is quoted once and sent as it is signed: whoever quotes `%3A` anew turns it into `:`, and the signature no
longer matches what is sent.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import msgspec
from aiohttp import ClientError

from llmgw_gateway.call import Outcome
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers import bridge
from llmgw_gateway.providers.connections import Connections, Patience, UnreachableError
from llmgw_gateway.providers.sigv4 import Place, Signer
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from types import TracebackType

    from llmgw_gateway.call import Call, Target
    from llmgw_gateway.providers.connections import Answer
    from llmgw_gateway.providers.credentials import AwsCredentials
    from llmgw_gateway.streams.body import Body
    from llmgw_gateway.upstream import Bedrock as BedrockSettings

SERVICE: Final = "bedrock"
"""The name in the credential scope; the host is bedrock-runtime."""
ACTIONS: Final = {
    "invoke": ("invoke", "invoke-with-response-stream"),
    "converse": ("converse", "converse-stream"),
}
"""The last part of the path, whole and streamed."""
VISIBLE: Final[tuple[str, ...]] = ("content-type", "retry-after", "x-amzn-errortype", "x-amzn-requestid")
"""The headers that a client may see: everything else that an upstream says in them stays here."""
INPUT_TOKENS: Final = "x-amzn-bedrock-input-token-count"
MOST_COUNT_ANSWER: Final = 65_536
LARGE: Final = 1024 * 1024
"""From this size on, hashing the body would stall the loop for half a millisecond and more."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """An answer whose head has arrived."""

    status: int
    headers: dict[str, str]
    """The few that a client may see."""
    content: Body
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
    patience: Patience


class Bedrock:
    """Sends calls to one region (or one compatible endpoint)."""

    cancel_stops_billing: Final = False
    """By one public report, until it is measured on an account: an answer is billed to its end, read or not."""

    def __init__(
        self,
        settings: BedrockSettings,
        credentials: AwsCredentials,
        table: bridge.Table | None = None,
    ) -> None:
        self._table = table
        """What each model takes; None: as it ships."""
        self._settings = settings
        self._credentials = credentials
        base = settings.endpoint.rstrip("/") or f"https://bedrock-runtime.{settings.region}.amazonaws.com"
        self._connections = Connections(base)
        self._base = urlsplit(base)
        self._signer = Signer(settings.region, SERVICE)
        self._places: dict[tuple[str, str], tuple[str, Place]] = {}
        # The relay has its own idle timer: it knows whether the client is kept waiting by pings.
        self._stream_patience = Patience(settings.connect_seconds, settings.total_seconds)
        self._patience = Patience(settings.connect_seconds, settings.total_seconds, settings.idle_seconds)

    def close(self) -> None:
        """Close every connection, when nothing is asked any more."""
        self._connections.close()

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
        patience = self._stream_patience if call.stream else self._patience
        return Attempt(self, Question(target.invoke_id, action, body, head_by, patience), outcome)

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
        question = Question(model, "count-tokens", body, self.deadline(), self._patience)
        async with Attempt(self, question, Outcome()) as upstream:
            answer = b""
            while len(answer) < MOST_COUNT_ANSWER and (more := await upstream.content.readany()):
                answer += more
        count = None if own else _count(answer)
        return (upstream.status, answer) if count is None else (200, json.dumps({"input_tokens": count}).encode())

    async def dispatch(self, question: Question, outcome: Outcome) -> Answer:
        """Sign and send, and wait for the head of the answer; the errors are those of `send`."""
        opening, place = self._place(question.invoke_id, question.action)
        signed = await self._sign(place, question.body)
        if time.monotonic() > outcome.dispatch_by:
            raise GatewayError(
                ErrorCode.STORE_UNAVAILABLE,
                "The gateway was paused for longer than it may keep money for a request; nothing was sent. Try again.",
                retry_after=2,
            )
        outcome.dispatched = True
        lines = "".join([f"{name}: {value}\r\n" for name, value in signed.items()])
        head = f"{opening}{lines}Content-Length: {len(question.body)}\r\n\r\n".encode()
        try:
            return await self._connections.ask(head, question.body, question.patience, question.head_by)
        except UnreachableError as error:
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
        except ClientError as error:
            outcome.note = "upstream_broken"
            raise GatewayError(
                ErrorCode.UPSTREAM_INVALID, "The connection to AWS Bedrock broke before an answer came."
            ) from error

    async def _sign(self, place: Place, body: bytes) -> dict[str, str]:
        credentials = self._credentials.current()
        digest = await asyncio.to_thread(_sha256, body) if len(body) >= LARGE else _sha256(body)
        return self._signer.headers(credentials, place, digest, time.time())

    def _place(self, invoke_id: str, action: str) -> tuple[str, Place]:
        """How a request to a model begins, and what of it is signed. Only the models of the configuration come here."""
        known = self._places.get((invoke_id, action))
        if known is None:
            path = f"{self._base.path}/model/{quote(invoke_id, safe='')}/{action}"
            host = self._connections.host_header
            opening = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: llmgw\r\nAccept: */*\r\n"
            opening += "Accept-Encoding: identity\r\n"  # frames are read as they are
            known = self._places[invoke_id, action] = (opening, Place.of(host, path))
        return known


class Attempt:
    """A question to Bedrock: asked on entering, its connection given back or closed on leaving."""

    __slots__ = ("_answer", "_bedrock", "_outcome", "_question")

    def __init__(self, bedrock: Bedrock, question: Question, outcome: Outcome) -> None:
        self._bedrock = bedrock
        self._question: Question | None = question
        self._outcome = outcome
        self._answer: Answer | None = None

    async def __aenter__(self) -> Upstream:
        question, self._question = self._question, None  # nothing of the prompt is kept while the answer streams
        if question is None:
            raise RuntimeError("an attempt is made once")
        sent_at = time.monotonic()
        answer = self._answer = await self._bedrock.dispatch(question, self._outcome)
        self._outcome.status = answer.status
        said = answer.headers
        visible = {name: said[name] for name in VISIBLE if name in said}
        # AWS signs each of its answers with the type of the error or the number of the request, a proxy with neither.
        own_words = "x-amzn-errortype" in said or "x-amzn-requestid" in said
        return Upstream(answer.status, visible, answer.body, sent_at, own_words, said.get(INPUT_TOKENS, ""))

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._answer is not None:
            self._answer.release()


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _count(body: bytes) -> int | None:
    """The number in a CountTokens answer, or None when it has another form."""
    try:
        return msgspec.json.decode(body, type=dict[str, int])["inputTokens"]
    except (msgspec.DecodeError, KeyError):
        return None
