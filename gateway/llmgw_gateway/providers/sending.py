"""One attempt over HTTP: sent once, its head awaited, its failures named. What every provider has in common.

A path is quoted once and sent as it is signed: whoever quotes `%3A` anew turns it into `:`, and the signature no longer
matches what is sent.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from aiohttp import ClientError

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers.connections import Connections, Patience
from llmgw_gateway.providers.failures import UnreachableError
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from llmgw_gateway.call import Outcome
    from llmgw_gateway.providers.connections import Answer
    from llmgw_gateway.sections.upstream import Bedrock
    from llmgw_gateway.streams.body import Body

    Headers = Callable[[bytes], Awaitable[dict[str, str]]]
    """The headers for a body, credential included; GatewayError(UPSTREAM_CREDENTIALS) when there is none."""
    Heard = Callable[[Answer, float], "Upstream"]
    """What a head means; the second argument is when the question was sent, on the monotonic clock."""

Speech = Literal["frames", "events"]
"""How an answer streams: in frames of AWS's event stream, or as server-sent events in the Anthropic format."""


class Upstream:
    """An answer whose head has arrived."""

    __slots__ = (
        "cancel_stops_billing",
        "content",
        "dispatched_at",
        "headers",
        "input_tokens",
        "own_words",
        "provider",
        "speech",
        "status",
    )

    def __init__(
        self,
        status: int,
        headers: dict[str, str],
        content: Body,
        dispatched_at: float,
        provider: str,
        *,
        own_words: bool,
        input_tokens: str = "",
        speech: Speech = "frames",
        cancel_stops_billing: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers
        """The few that a client may see."""
        self.content = content
        self.dispatched_at = dispatched_at
        """On the monotonic clock."""
        self.provider = provider
        """What it is called in what people read."""
        self.own_words = own_words
        """Whether an error is the provider's own, and not that of a proxy, which may have cut off an answer."""
        self.input_tokens = input_tokens
        """What Bedrock counted of a call whose answer may not tell, such as one for embeddings; empty: nothing."""
        self.speech = speech
        self.cancel_stops_billing = cancel_stops_billing
        """Whether an answer is billed only as far as it was read."""


class Sender:
    """Sends to one provider at a base URL, by the times that hold for all of them."""

    def __init__(self, base: str, times: Bedrock, called: str) -> None:
        """`called` is the provider's name in what people read."""
        self.called = called
        self._connections = Connections(base)
        self._prefix = urlsplit(base).path.rstrip("/")
        self._first_byte_seconds = times.first_byte_seconds
        self._patience = Patience(times.connect_seconds, times.total_seconds, times.idle_seconds)
        # The relay has its own idle timer: it knows whether the client is kept waiting by pings.
        self._stream_patience = Patience(times.connect_seconds, times.total_seconds)

    @property
    def host(self) -> str:
        """What the header `Host` says."""
        return self._connections.host_header

    def path(self, path: str) -> str:
        """A path below the base URL, as it is sent."""
        return self._prefix + path

    def opening(self, path: str) -> str:
        """How a request begins, down to the headers that every request has."""
        # What is forwarded is read on the way: nothing may be packed.
        return (
            f"POST {self.path(path)} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: llmgw\r\nAccept: */*\r\n"
            "Accept-Encoding: identity\r\n"
        )

    def close(self) -> None:
        """Close every connection, when nothing is asked any more."""
        self._connections.close()

    def deadline(self) -> float:
        """Until when the head of an answer has to be there if the first attempt begins now, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._first_byte_seconds

    async def dispatch(self, question: Question, outcome: Outcome) -> Answer:
        """Send, and wait for the head of the answer.

        GatewayError: UPSTREAM_UNREACHABLE when nothing was sent, UPSTREAM_TIMEOUT when no head came in time,
        UPSTREAM_INVALID when the connection broke, UPSTREAM_CREDENTIALS without a credential.
        """
        headers = await question.headers(question.body)
        if time.monotonic() > outcome.dispatch_by:
            raise GatewayError(
                ErrorCode.STORE_UNAVAILABLE,
                "The gateway was paused for longer than it may keep money for a request; nothing was sent. Try again.",
                retry_after=2,
            )
        outcome.dispatched = True
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"{question.opening}{lines}Content-Length: {len(question.body)}\r\n\r\n".encode()
        patience = self._stream_patience if question.stream else self._patience
        try:
            return await self._connections.ask(head, question.body, patience, question.head_by)
        except UnreachableError as error:
            outcome.dispatched = False
            raise GatewayError(
                ErrorCode.UPSTREAM_UNREACHABLE,
                f"The gateway cannot reach {self.called}; nothing was sent or charged. Try again.",
                retry_after=2,
            ) from error
        except TimeoutError as error:
            outcome.note = "upstream_timeout"
            raise GatewayError(
                ErrorCode.UPSTREAM_TIMEOUT,
                f"{self.called} did not begin to answer within {self._first_byte_seconds} s.",
            ) from error
        except ClientError as error:
            outcome.note = "upstream_broken"
            raise GatewayError(
                ErrorCode.UPSTREAM_INVALID, f"The connection to {self.called} broke before an answer came."
            ) from error


class Question:
    """What is sent."""

    __slots__ = ("body", "head_by", "headers", "opening", "stream")

    def __init__(self, opening: str, body: bytes, headers: Headers, head_by: float, *, stream: bool) -> None:
        self.opening = opening
        """The beginning of the request, by `Sender.opening`."""
        self.body = body
        self.headers = headers
        self.head_by = head_by
        """Until when the head of the answer has to be there, on the loop's clock."""
        self.stream = stream


class Attempt:
    """A question to a provider: asked on entering, its connection given back or closed on leaving."""

    __slots__ = ("_answer", "_heard", "_outcome", "_question", "_sender")

    def __init__(self, sender: Sender, question: Question, outcome: Outcome, heard: Heard) -> None:
        self._sender = sender
        self._question: Question | None = question
        self._outcome = outcome
        self._heard = heard
        self._answer: Answer | None = None

    async def __aenter__(self) -> Upstream:
        question, self._question = self._question, None  # nothing of the prompt is kept while the answer streams
        if question is None:
            raise RuntimeError("an attempt is made once")
        sent_at = time.monotonic()
        answer = self._answer = await self._sender.dispatch(question, self._outcome)
        self._outcome.status = answer.status
        return self._heard(answer, sent_at)

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._answer is not None:
            self._answer.release()


async def read(upstream: Upstream, most: int) -> bytes:
    """The body of a short answer: what comes after `most` bytes is left."""
    found = b""
    while len(found) < most and (more := await upstream.content.readany()):
        found += more
    return found


def visible(answer: Answer, names: tuple[str, ...]) -> dict[str, str]:
    """An allow-list: everything else that an upstream says in headers stays here."""
    return {name: answer.headers[name] for name in names if name in answer.headers}
