"""Every refusal the gateway can make: one table, read in both directions.

The gateway turns a code into a status and a body; the agent turns the body back into the same code. Statuses and
`x-should-retry` were chosen by how Claude Code reacts to each (it repeats 403 for minutes, hides the text of 404 and
413, and takes a plain 400 as an invitation to try again with fewer features).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Wire:
    """How one code looks on the wire.

    `retry` "never" sends `x-should-retry: false`; "client" leaves the header out, so that the client follows its own
    rule for the status (for 401: run the credential helper again and repeat once).
    """

    status: int
    anthropic_type: str
    retry: Literal["never", "client"]
    aws_type: str
    oauth_error: str = "invalid_request"


class ErrorCode(Enum):
    """A named refusal. The name is stable: it stands in audit lines, metrics and documentation."""

    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_AMBIGUOUS = "credential_ambiguous"
    TOKEN_INVALID = "token_invalid"  # noqa: S105 -- the name of an error
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 -- the name of an error
    SIGN_IN_INVALID = "sign_in_invalid"
    SIGN_IN_STALE = "sign_in_stale"
    PROOF_INVALID = "proof_invalid"
    GRANT_UNSUPPORTED = "grant_unsupported"
    TARGET_INVALID = "target_invalid"
    AGENT_OUTDATED = "agent_outdated"
    PERSON_DISABLED = "person_disabled"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    CAP_EXCEEDED = "cap_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    BUDGET_PACED = "budget_paced"
    RATE_EXCEEDED = "rate_exceeded"
    REQUEST_MALFORMED = "request_malformed"
    REQUEST_TOO_LARGE = "request_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    DRAINING = "draining"
    STORE_UNAVAILABLE = "store_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_INVALID = "upstream_invalid"
    UPSTREAM_CREDENTIALS = "upstream_credentials"
    UPSTREAM_DENIED = "upstream_denied"
    IDENTITY_PROVIDER_UNAVAILABLE = "identity_provider_unavailable"
    ROLE_REQUIRED = "role_required"
    CONFLICT = "conflict"
    INTERNAL = "internal"

    @property
    def wire(self) -> Wire:
        """The status, error types and retry rule of this code."""
        return TABLE[self]


ADMINISTRATION = frozenset({ErrorCode.ROLE_REQUIRED, ErrorCode.CONFLICT})
"""What only the Admin API refuses with: no client of a model ever sees these."""
_BLOCKED = "policy_blocked"

TABLE: dict[ErrorCode, Wire] = {
    ErrorCode.CREDENTIAL_MISSING: Wire(401, "authentication_error", "never", "UnrecognizedClientException"),
    ErrorCode.CREDENTIAL_AMBIGUOUS: Wire(401, "authentication_error", "never", "UnrecognizedClientException"),
    ErrorCode.TOKEN_INVALID: Wire(401, "authentication_error", "client", "UnrecognizedClientException"),
    ErrorCode.TOKEN_EXPIRED: Wire(401, "authentication_error", "client", "ExpiredTokenException"),
    ErrorCode.SIGN_IN_INVALID: Wire(
        401, "authentication_error", "never", "UnrecognizedClientException", "invalid_grant"
    ),
    ErrorCode.SIGN_IN_STALE: Wire(401, "authentication_error", "never", "ExpiredTokenException", "invalid_grant"),
    ErrorCode.PROOF_INVALID: Wire(
        401, "authentication_error", "never", "UnrecognizedClientException", "invalid_dpop_proof"
    ),
    ErrorCode.GRANT_UNSUPPORTED: Wire(400, _BLOCKED, "never", "ValidationException", "unsupported_grant_type"),
    ErrorCode.TARGET_INVALID: Wire(400, _BLOCKED, "never", "ValidationException", "invalid_target"),
    ErrorCode.AGENT_OUTDATED: Wire(400, _BLOCKED, "never", "AccessDeniedException", "access_denied"),
    ErrorCode.PERSON_DISABLED: Wire(400, _BLOCKED, "never", "AccessDeniedException", "access_denied"),
    ErrorCode.MODEL_NOT_ALLOWED: Wire(400, _BLOCKED, "never", "AccessDeniedException"),
    ErrorCode.CAP_EXCEEDED: Wire(400, _BLOCKED, "never", "ValidationException"),
    ErrorCode.BUDGET_EXCEEDED: Wire(402, "billing_error", "never", "ServiceQuotaExceededException"),
    ErrorCode.BUDGET_PACED: Wire(429, "rate_limit_error", "client", "ThrottlingException"),
    ErrorCode.RATE_EXCEEDED: Wire(429, "rate_limit_error", "client", "ThrottlingException"),
    ErrorCode.REQUEST_MALFORMED: Wire(400, _BLOCKED, "never", "ValidationException"),
    ErrorCode.REQUEST_TOO_LARGE: Wire(400, _BLOCKED, "never", "ValidationException"),
    ErrorCode.HEADERS_TOO_LARGE: Wire(431, "invalid_request_error", "never", "ValidationException"),
    ErrorCode.NOT_FOUND: Wire(404, "not_found_error", "never", "ResourceNotFoundException"),
    ErrorCode.METHOD_NOT_ALLOWED: Wire(405, "invalid_request_error", "never", "ValidationException"),
    ErrorCode.DRAINING: Wire(
        503, "overloaded_error", "client", "ServiceUnavailableException", "temporarily_unavailable"
    ),
    ErrorCode.STORE_UNAVAILABLE: Wire(
        503, "api_error", "client", "ServiceUnavailableException", "temporarily_unavailable"
    ),
    ErrorCode.UPSTREAM_UNREACHABLE: Wire(502, "api_error", "client", "ServiceUnavailableException"),
    # A prompt repeated after our own time-out is paid twice: 529 with x-should-retry: false shows the text once.
    ErrorCode.UPSTREAM_TIMEOUT: Wire(529, "overloaded_error", "never", "ModelTimeoutException"),
    ErrorCode.UPSTREAM_INVALID: Wire(502, "api_error", "never", "ModelErrorException"),
    ErrorCode.UPSTREAM_CREDENTIALS: Wire(503, "api_error", "client", "ServiceUnavailableException"),
    # The provider refused the gateway's own role. As 401 or 403 the client would blame its user's credential and retry.
    ErrorCode.UPSTREAM_DENIED: Wire(400, _BLOCKED, "never", "AccessDeniedException"),
    ErrorCode.IDENTITY_PROVIDER_UNAVAILABLE: Wire(
        503, "api_error", "client", "ServiceUnavailableException", "temporarily_unavailable"
    ),
    ErrorCode.ROLE_REQUIRED: Wire(403, "permission_error", "never", "AccessDeniedException", "access_denied"),
    ErrorCode.CONFLICT: Wire(409, "invalid_request_error", "never", "ConflictException"),
    ErrorCode.INTERNAL: Wire(500, "api_error", "never", "InternalServerException", "server_error"),
}


def anthropic_body(code: ErrorCode, message: str, request_id: str) -> bytes:
    """The Anthropic error envelope (clients show `error.message` word for word)."""
    error = {"type": code.wire.anthropic_type, "message": message, "code": code.value}
    return json.dumps({"type": "error", "request_id": request_id, "error": error}).encode()


def bedrock_body(code: ErrorCode, message: str, request_id: str) -> bytes:
    """The Anthropic error envelope, with `message` where AWS's SDKs look for it."""
    return json.dumps(json.loads(anthropic_body(code, message, request_id)) | {"message": message}).encode()


_OPENAI_FORBIDDEN = frozenset(
    {ErrorCode.PERSON_DISABLED, ErrorCode.MODEL_NOT_ALLOWED, ErrorCode.CAP_EXCEEDED, ErrorCode.UPSTREAM_DENIED},
)
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}
"""`error.type` by status; every other is a `server_error`."""


def openai_status(code: ErrorCode) -> int:
    """The status in the OpenAI dialect: its clients do not repeat 403, and do not know 529."""
    if code in _OPENAI_FORBIDDEN:
        return 403
    return 504 if code is ErrorCode.UPSTREAM_TIMEOUT else code.wire.status


REPEATED_BY_AWS = frozenset({500, 502, 503, 504})
"""Statuses that AWS's SDKs repeat whatever a server says about it (botocore, legacy and standard retry mode)."""
MODEL_FAILED = 424
"""What Bedrock says of a model that failed at its work (ModelErrorException): its SDKs do not repeat it."""


def bedrock_status(code: ErrorCode) -> int:
    """The status in the Bedrock dialect, whose SDKs know no `x-should-retry`: what is not to be repeated says it so."""
    wire = code.wire
    return MODEL_FAILED if wire.retry == "never" and wire.status in REPEATED_BY_AWS else wire.status


def status_in(dialect: str, code: ErrorCode) -> int:
    """The status of a refusal as clients of a dialect see it."""
    if dialect == "bedrock":
        return bedrock_status(code)
    return openai_status(code) if dialect == "openai" else code.wire.status


def openai_body(code: ErrorCode, message: str, request_id: str) -> bytes:
    """OpenAI's error envelope; `code` is our code, so that programs can tell refusals apart."""
    kind = OPENAI_TYPES.get(openai_status(code), "server_error")
    error = {"message": message, "type": kind, "param": None, "code": code.value, "request_id": request_id}
    return json.dumps({"error": error}).encode()


def oauth_body(code: ErrorCode, message: str, request_id: str) -> bytes:
    """The error of an OAuth endpoint (RFC 6749 section 5.2), with our code beside it."""
    body = {
        "error": code.wire.oauth_error,
        "error_description": message,
        "code": code.value,
        "request_id": request_id,
    }
    return json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal as the agent reads it back. `code` is None when the answer did not come from a gateway of ours."""

    status: int
    code: ErrorCode | None
    message: str


def read_refusal(status: int, body: bytes) -> Refusal:
    """Turn an error answer back into a named refusal. Never raises: a body of any shape gives a `Refusal`."""
    document = _object(body)
    error = document.get("error")
    inner: dict[str, Any] = error if isinstance(error, dict) else document
    message = inner.get("message") or document.get("error_description") or f"HTTP status {status}"
    try:
        code = ErrorCode(inner.get("code"))
    except ValueError:
        code = None
    return Refusal(status=status, code=code, message=str(message))


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
