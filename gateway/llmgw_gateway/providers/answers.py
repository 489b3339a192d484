"""What a provider's head and body mean: an answer, a refusal that costs nothing, or something that nobody can read.

Whether a failure is free decides two things: what the ledger charges for it, and whether the prompt may be sent to
another target. Only the provider's own words make it free; behind a proxy's error page it may still be generating.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from aiohttp import ClientError

from llmgw_gateway.errors import GatewayError
from llmgw_gateway.streams.limits import MOST_ANSWER
from llmgw_gateway.streams.refusals import FAILED_AT_WORK
from llmgw_wire import headers as names
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from llmgw_gateway.call import Outcome
    from llmgw_gateway.providers.sending import Upstream
    from llmgw_gateway.streams.meter import Meter
    from llmgw_gateway.streams.refusals import StreamRefused

OK: Final = 200
ANSWERED: Final = frozenset({201, 202, 203, 205, 206})
"""No answer of a provider, but perhaps one that a proxy has changed, or a part of one: it may be billed."""
FIRST_ERROR: Final = 400
FIRST_FAILURE: Final = 500
LONGEST_WAIT: Final = 6
"""Digits of a `retry-after` that is taken at its word."""
REFUSED_BY_ROLE: Final = frozenset({401, 403})
NOT_NOW: Final = frozenset({429, 503})
"""By their definition nothing was done (RFC 6585 section 4, RFC 9110 section 15.6.4), whoever says so."""
_STREAMED: Final = {"frames": names.EVENT_STREAM, "events": names.SERVER_SENT}
OF_THE_REQUEST: Final = frozenset({400, 413, 422})
"""Refusals that any other target would repeat."""


class Refused(Exception):  # noqa: N818 -- the provider's answer, not a failure of ours
    """A target did not begin to answer. `elsewhere`: another one may; then nothing was charged.

    What the client is told if no other is asked is `error`, or else `status`, `headers` and `body`.
    """

    def __init__(
        self,
        *,
        elsewhere: bool,
        error: GatewayError | None = None,
        status: int = 0,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        billed: bool = False,
    ) -> None:
        super().__init__()
        self.elsewhere = elsewhere
        self.error = error
        self.status = status
        self.headers = headers or {}
        self.body = body
        self.billed = billed
        """Whether it may have been: then its owner decides whether to ask again, and no program."""

    @property
    def wait(self) -> float:
        """For how many seconds the target asks to be left alone; 0 when it does not say."""
        asked = self.headers.get("retry-after", "")
        return int(asked) if asked.isascii() and asked.isdecimal() and len(asked) <= LONGEST_WAIT else 0


async def refusal(upstream: Upstream, outcome: Outcome) -> Refused | GatewayError:
    """What an answer with another status than 200 means. Errors of the provider are passed on unmodified."""
    status = upstream.status
    outcome.note = f"upstream_{status}"
    said = upstream.own_words or status in NOT_NOW or status < FIRST_FAILURE
    outcome.refused_upstream = said and status not in FAILED_AT_WORK and status not in ANSWERED
    if status in ANSWERED:
        return _not_the_provider(status, free=False)
    if status < FIRST_ERROR:
        error = GatewayError(ErrorCode.UPSTREAM_INVALID, f"The provider answered with status {status}.")
        return Refused(elsewhere=True, error=error)
    if status in REFUSED_BY_ROLE:
        return Refused(elsewhere=True, error=denied())
    if not upstream.own_words and not _is_json(upstream):
        return _not_the_provider(status, free=outcome.refused_upstream)
    body = await _read(upstream, outcome)
    outcome.note = f"upstream_{status}"
    if not body:
        body = json.dumps({"message": f"The provider gave no reason for status {status}."}).encode()
    elsewhere = outcome.refused_upstream and status not in OF_THE_REQUEST
    headers = upstream.headers | _again(outcome) | {"content-type": "application/json"}
    return Refused(elsewhere=elsewhere, status=status, headers=headers, body=body, billed=not outcome.refused_upstream)


def refused_in_stream(refused: StreamRefused, outcome: Outcome) -> Refused:
    """The same for an error that is the first event of a stream."""
    return Refused(
        elsewhere=outcome.refused_upstream and refused.status not in OF_THE_REQUEST,
        status=refused.status,
        headers={names.AMZN_ERROR_TYPE: refused.error_type, "content-type": "application/json"} | _again(outcome),
        body=refused.body,
        billed=not outcome.refused_upstream,
    )


def check_form(upstream: Upstream, outcome: Outcome, *, stream: bool) -> None:
    """GatewayError(UPSTREAM_INVALID) when an answer is not in the provider's format: it comes from somebody else."""
    if not (_content_type(upstream) == _STREAMED[upstream.speech] if stream else _is_json(upstream)):
        outcome.note = "upstream_wrong_type"
        raise GatewayError(
            ErrorCode.UPSTREAM_INVALID,
            "What answered is not the provider: the answer has another content type. Tell the platform team.",
        )


async def whole(upstream: Upstream, meter: Meter, outcome: Outcome) -> bytes:
    """An answer that does not stream: read and metered.

    GatewayError(UPSTREAM_INVALID) when it breaks off or cannot be read; what it cost is unknown then.
    """
    body = await _read(upstream, outcome)
    readable = meter.answer(body)
    outcome.usage, outcome.completeness = meter.usage, meter.completeness
    if not readable:
        outcome.note = "upstream_corrupt"
        raise GatewayError(ErrorCode.UPSTREAM_INVALID, "The provider's answer is not JSON, or not the whole of it.")
    return body


def _again(outcome: Outcome) -> dict[str, str]:
    """What may have been billed is not to be repeated by a program: its owner decides."""
    return {} if outcome.refused_upstream else {names.SHOULD_RETRY: "false"}


def denied() -> GatewayError:
    """The provider does not let the gateway in: nothing that a caller could mend."""
    return GatewayError(
        ErrorCode.UPSTREAM_DENIED,
        "The provider refused the gateway's own identity for this model, not your sign-in. Tell the platform team.",
    )


def _not_the_provider(status: int, *, free: bool) -> Refused | GatewayError:
    """A page of a proxy: it would hide every word from the client, and it is not the provider's answer."""
    if not free:
        return GatewayError(
            ErrorCode.UPSTREAM_INVALID,
            f"Something between gateway and provider answered with status {status}. The provider may still charge "
            "for the request: repeat it only if you have to.",
        )
    code = ErrorCode.UPSTREAM_UNREACHABLE if status in NOT_NOW else ErrorCode.UPSTREAM_INVALID
    text = f"Something between gateway and provider answered with status {status}; nothing was charged."
    return Refused(elsewhere=status not in OF_THE_REQUEST, error=GatewayError(code, text))


async def _read(upstream: Upstream, outcome: Outcome) -> bytes:
    body = upstream.content.at_once()
    if body is not None:  # a small one comes with its head
        return body
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := await upstream.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_ANSWER:
                outcome.note = "upstream_too_large"
                raise GatewayError(ErrorCode.UPSTREAM_INVALID, "The provider's answer is too large to be passed on.")
    except TimeoutError as error:
        outcome.note = "upstream_idle"
        raise GatewayError(
            ErrorCode.UPSTREAM_TIMEOUT, "The provider went silent in the middle of the answer."
        ) from error
    except ClientError as error:
        outcome.note = "upstream_broken"
        raise GatewayError(
            ErrorCode.UPSTREAM_INVALID, "The connection to the provider broke in the middle of the answer."
        ) from error
    return b"".join(chunks)


def _is_json(upstream: Upstream) -> bool:
    return _content_type(upstream) == "application/json"


def _content_type(upstream: Upstream) -> str:
    return upstream.headers.get("content-type", "").partition(";")[0].strip().lower()
