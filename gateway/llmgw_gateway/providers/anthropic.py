"""Anthropic's own API, and others that speak its format. The only file that knows how they are called.

A request in the Anthropic dialect goes on as it came, member by member; so do its answer's events. Source: Anthropic's
API reference, Messages, Count message tokens, Errors, Versions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from llmgw_gateway.call import Outcome
from llmgw_gateway.errors import GatewayError
from llmgw_gateway.providers import bridge, bridging
from llmgw_gateway.providers.sending import Attempt, Question, Sender, Upstream, read, visible
from llmgw_gateway.streams.refusals import AWS_TYPES, UNKNOWN
from llmgw_wire import headers as names
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from llmgw_gateway.call import Call, Target
    from llmgw_gateway.providers.connections import Answer
    from llmgw_gateway.providers.credentials import ApiKey
    from llmgw_gateway.sections.upstream import Anthropic as AnthropicSettings
    from llmgw_gateway.sections.upstream import Bedrock as Times

VERSION: Final = "2023-06-01"
"""What is spoken for clients of other dialects, and for those that name no version (API reference, Versions)."""
_VERSION: Final = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")
VISIBLE: Final = ("content-type", "retry-after")
"""The provider's rate limits are the company's, not the caller's: `anthropic-ratelimit-*` stays here."""
REQUEST_ID: Final = "request-id"
MOST_COUNT_ANSWER: Final = 65_536


class Anthropic:
    """Sends calls to one endpoint."""

    def __init__(
        self,
        settings: AnthropicSettings,
        times: Times,
        key: ApiKey,
        table: bridging.Table | None = None,
    ) -> None:
        """`table`: what is sent on; None: as it ships."""
        self._settings = settings
        self._key = key
        self._table = table
        self._sender = Sender(settings.endpoint, times, f"the upstream {settings.name!r}")
        self._messages = self._sender.opening("/v1/messages")
        self._count = self._sender.opening("/v1/messages/count_tokens")

    def close(self) -> None:
        """Close every connection, when nothing is asked any more."""
        self._sender.close()

    def send(self, target: Target, call: Call, outcome: Outcome, head_by: float, *, again: bool = False) -> Attempt:
        """One attempt, dispatched on entering; as `Bedrock.send`."""
        body, betas = bridge.message(call, target.model, target.invoke_id, self._table)
        if not again:
            call.release()
        return self._ask(self._messages, body, self._headers(call.version, betas), outcome, head_by, stream=call.stream)

    async def count_tokens(self, target: Target, call: Call) -> tuple[int, bytes]:
        """Ask how many tokens a prompt has, free of charge; status and body. GatewayError as for `send`.

        A question in Bedrock's own form is refused by name: it may hold the prompt in formats that are not spoken here.
        """
        if call.operation == "count":
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"Tokens of {target.model} are not counted in Bedrock's dialect: use POST /v1/messages/count_tokens.",
            )
        body, betas = bridge.message(call, target.model, target.invoke_id, self._table)
        call.release()
        headers, head_by = self._headers(call.version, betas), self._sender.deadline()
        async with self._ask(self._count, body, headers, Outcome(), head_by, stream=False) as upstream:
            return upstream.status, await read(upstream, MOST_COUNT_ANSWER)

    def _ask(
        self, opening: str, body: bytes, headers: dict[str, str], outcome: Outcome, head_by: float, *, stream: bool
    ) -> Attempt:
        async def found(_body: bytes) -> dict[str, str]:
            key = self._key.current().reveal()
            if self._settings.credential == "x-api-key":
                return headers | {"x-api-key": key}
            return headers | {"Authorization": f"Bearer {key}"}

        return Attempt(self._sender, Question(opening, body, found, head_by, stream=stream), outcome, self._heard)

    @staticmethod
    def _headers(version: str, betas: str) -> dict[str, str]:
        """What a client may say in headers, in the client's version: what a body means depends on it."""
        spoken = version if _VERSION.fullmatch(version) else VERSION
        found = {"Content-Type": "application/json", "anthropic-version": spoken}
        return found | {"anthropic-beta": betas} if betas else found

    def _heard(self, answer: Answer, sent_at: float) -> Upstream:
        headers = visible(answer, VISIBLE)
        if answer.status >= 400:  # noqa: PLR2004 -- an error, by which AWS's SDKs raise
            headers[names.AMZN_ERROR_TYPE] = AWS_TYPES.get(answer.status, UNKNOWN)
        return Upstream(
            answer.status,
            headers,
            answer.body,
            sent_at,
            self._sender.called,
            own_words=REQUEST_ID in answer.headers,
            speech="events",
            cancel_stops_billing=self._settings.cancel_stops_billing,
        )
