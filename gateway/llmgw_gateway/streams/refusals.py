"""A provider's refusal inside a stream: before anything was sent, it is told as the status it would have been. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from llmgw_gateway.streams.frames import Frame

STATUS_OF_EXCEPTION: Final = {
    "throttlingException": 429,
    "validationException": 400,
    "modelTimeoutException": 408,
    "modelStreamErrorException": 424,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
}
"""The statuses that Bedrock gives the same errors outside a stream (API reference, InvokeModelWithResponseStream)."""

STATUS_OF_ERROR: Final = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The same for an `error` event (API reference of Anthropic, Errors); all else is the provider's own failure: 500."""

FAILED_AT_WORK: Final = frozenset({408, 424, 504})
"""The model took too long, or failed while it worked (API reference, InvokeModel: ModelTimeoutException,
ModelErrorException; Anthropic's, Errors: timeout_error): it did begin, and nobody says that this is not billed."""

AWS_TYPES: Final = {
    400: "ValidationException",
    404: "ResourceNotFoundException",
    413: "ValidationException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
    504: "ModelTimeoutException",
    529: "ServiceUnavailableException",
}
"""What AWS would call a refusal in the Anthropic format: AWS's SDKs raise by it."""
_NAME: Final = re.compile(r"[A-Za-z]{1,64}")
UNKNOWN: Final = "InternalServerException"


def status_of(name: str) -> int:
    """The status of a failure by its name, in either format; 500 for one that nobody knows."""
    return STATUS_OF_EXCEPTION.get(name) or STATUS_OF_ERROR.get(name, 500)


class StreamRefused(Exception):  # noqa: N818 -- no failure of ours: the provider's answer, before any head was sent
    """The provider reported an error as the first event: it can still be told as an HTTP status."""

    def __init__(self, status: int, error_type: str, body: bytes) -> None:
        super().__init__(error_type)
        self.status = status
        self.error_type = error_type
        """What `x-amzn-errortype` would be: fit for a header, whatever the provider has written."""
        self.body = body

    @classmethod
    def by_frame(cls, frame: Frame) -> StreamRefused:
        """An exception frame. Outside a stream its type begins with a capital, and the body is its payload."""
        exception = frame.exception or ""
        kind = exception[:1].upper() + exception[1:] if _NAME.fullmatch(exception) else UNKNOWN
        told = _object(frame.payload) is not None
        body = frame.payload if told else json.dumps({"message": message_of(frame)}).encode()
        return cls(STATUS_OF_EXCEPTION.get(exception, 500), kind, body)

    @classmethod
    def by_event(cls, data: bytes) -> StreamRefused:
        """An `error` event, which is an error body already."""
        status = STATUS_OF_ERROR.get(error_type(data), 500)
        return cls(status, AWS_TYPES.get(status, UNKNOWN), data)


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""


class _ErrorEvent(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)


_error_event = msgspec.json.Decoder(_ErrorEvent)


def error_type(data: bytes) -> str:
    """The type of the error in an `error` event; "" where there is none."""
    return _error_of(data).type


def error_text(data: bytes) -> str:
    """What an `error` event says."""
    return _error_of(data).message or "no message"


def _error_of(data: bytes) -> _Error:
    try:
        return _error_event.decode(data).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()


def message_of(frame: Frame) -> str:
    """What an exception or error frame says: in its payload, or in a header (errors of the protocol)."""
    told = (_object(frame.payload) or {}).get("message")
    return str(told or frame.headers.get(":error-message") or "no message")


def _object(payload: bytes) -> dict[str, Any] | None:
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
