"""AWS Bedrock: builds, signs and sends. The only file that knows how Bedrock is called."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from llmgw_gateway.call import Outcome
from llmgw_gateway.providers import bridge, bridging
from llmgw_gateway.providers.sending import Attempt, Question, Sender, Upstream, read, visible
from llmgw_gateway.providers.sigv4 import Place, Signer

if TYPE_CHECKING:
    from llmgw_gateway.call import Call, Guard, Target
    from llmgw_gateway.providers.connections import Answer
    from llmgw_gateway.providers.credentials import AwsCredentials
    from llmgw_gateway.sections.upstream import Bedrock as BedrockSettings

SERVICE: Final = "bedrock"
"""The name in the credential scope; the host is bedrock-runtime."""
CALLED: Final = "AWS Bedrock"
ACTIONS: Final = {
    "invoke": ("invoke", "invoke-with-response-stream"),
    "converse": ("converse", "converse-stream"),
}
"""The last part of the path, whole and streamed."""
INPUT_TOKENS: Final = "x-amzn-bedrock-input-token-count"
VISIBLE: Final = ("content-type", "retry-after", "x-amzn-errortype", "x-amzn-requestid")
MOST_COUNT_ANSWER: Final = 65_536
LARGE: Final = 1024 * 1024
"""From this size on, hashing the body would stall the loop for half a millisecond and more."""
CANCEL_STOPS_BILLING: Final = False
"""By one public report, until it is measured on an account: an answer is billed to its end, read or not."""


class Bedrock:
    """Sends calls to one region (or one compatible endpoint)."""

    def __init__(
        self,
        settings: BedrockSettings,
        credentials: AwsCredentials,
        table: bridging.Table | None = None,
        *,
        region: str = "",
        endpoint: str = "",
    ) -> None:
        """`table`: what each model takes; None: as it ships. `region`: another one than that of the settings."""
        self._table = table
        self._credentials = credentials
        endpoint = endpoint if region else settings.endpoint
        region = region or settings.region
        self._sender = Sender(endpoint or f"https://bedrock-runtime.{region}.amazonaws.com", settings, CALLED)
        self._signer = Signer(region, SERVICE)
        self._places: dict[tuple[str, str, Guard | None], tuple[str, Place]] = {}

    def close(self) -> None:
        """Close every connection, when nothing is asked any more."""
        self._sender.close()

    def deadline(self) -> float:
        """Until when the head of an answer has to be there if the first attempt begins now, on the loop's clock."""
        return self._sender.deadline()

    def send(self, target: Target, call: Call, outcome: Outcome, head_by: float, *, again: bool = False) -> Attempt:
        """One attempt, dispatched on entering. `again`: the prompt is kept for another one, otherwise let go at once.

        GatewayError(UPSTREAM_UNREACHABLE) when nothing was sent, UPSTREAM_TIMEOUT when no head came until `head_by`.
        """
        guard = target.guard
        body = bridge.invoke_body(call, target.model, self._table, _converse_guard(call, guard))
        if not again:
            call.release()
        action = ACTIONS[call.operation][call.stream]
        return self._ask(
            target.invoke_id,
            action,
            body,
            outcome,
            head_by,
            stream=call.stream,
            guard=None if call.operation == "converse" else guard,
        )

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
        async with self._ask(model, "count-tokens", body, Outcome(), self.deadline(), stream=False) as upstream:
            answer = await read(upstream, MOST_COUNT_ANSWER)
        count = None if own else _count(answer)
        return (upstream.status, answer) if count is None else (200, json.dumps({"input_tokens": count}).encode())

    def _ask(
        self,
        invoke_id: str,
        action: str,
        body: bytes,
        outcome: Outcome,
        head_by: float,
        *,
        stream: bool,
        guard: Guard | None = None,
    ) -> Attempt:
        opening, place = self._place(invoke_id, action, guard)
        question = Question(opening, body, partial(self._sign, place), head_by, stream=stream)
        return Attempt(self._sender, question, outcome, _heard)

    async def _sign(self, place: Place, body: bytes) -> dict[str, str]:
        credentials = self._credentials.current()
        digest = await asyncio.to_thread(_sha256, body) if len(body) >= LARGE else _sha256(body)
        return self._signer.headers(credentials, place, digest, time.time())

    def _place(self, invoke_id: str, action: str, guard: Guard | None) -> tuple[str, Place]:
        """How a request to a model begins, and what of it is signed. Only the models of the configuration come here."""
        known = self._places.get((invoke_id, action, guard))
        if known is None:
            path = f"/model/{quote(invoke_id, safe='')}/{action}"
            place = Place.of(self._sender.host, self._sender.path(path), _invoke_guard(guard))
            known = self._places[invoke_id, action, guard] = (self._sender.opening(path), place)
        return known


def _invoke_guard(guard: Guard | None) -> dict[str, str]:
    """The headers that name a guardrail (API reference, InvokeModel); none without one."""
    if guard is None:
        return {}
    return {
        "x-amzn-bedrock-guardrailidentifier": guard.id,
        "x-amzn-bedrock-guardrailversion": guard.version,
        "x-amzn-bedrock-trace": guard.trace.upper(),
    }


def _converse_guard(call: Call, guard: Guard | None) -> dict[str, msgspec.Raw]:
    """The member that names it in Converse (API reference, GuardrailConfiguration, GuardrailStreamConfiguration).

    Streams wait for it: nothing reaches a client that the guardrail has not looked at.
    """
    if guard is None or call.operation != "converse":
        return {}
    named = {"guardrailIdentifier": guard.id, "guardrailVersion": guard.version, "trace": guard.trace}
    waits = {"streamProcessingMode": "sync"} if call.stream else {}
    return {"guardrailConfig": msgspec.Raw(msgspec.json.encode(named | waits))}


def _heard(answer: Answer, sent_at: float) -> Upstream:
    # AWS signs each of its answers with the type of the error or the number of the request, a proxy with neither.
    own_words = "x-amzn-errortype" in answer.headers or "x-amzn-requestid" in answer.headers
    return Upstream(
        answer.status,
        visible(answer, VISIBLE),
        answer.body,
        sent_at,
        CALLED,
        own_words=own_words,
        input_tokens=answer.headers.get(INPUT_TOKENS, ""),
        cancel_stops_billing=CANCEL_STOPS_BILLING,
    )


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _count(body: bytes) -> int | None:
    """The number in a CountTokens answer, or None when it has another form."""
    try:
        return msgspec.json.decode(body, type=dict[str, int])["inputTokens"]
    except (msgspec.DecodeError, KeyError):
        return None
