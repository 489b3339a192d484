"""What goes wrong, as SCIM clients read it (RFC 7644 section 3.12)."""

from __future__ import annotations

from typing import Any, Final

from llmgw_gateway.errors import GatewayError
from llmgw_wire.errors import ErrorCode

ERROR: Final = "urn:ietf:params:scim:api:messages:2.0:Error"


class ScimError(GatewayError):
    """A refusal with the status and the word for it that the standard has."""

    def __init__(self, status: int, detail: str, kind: str = "") -> None:
        super().__init__(ErrorCode.REQUEST_MALFORMED, detail)
        self.status = status
        self.kind = kind
        """`scimType`: invalidFilter, uniqueness, noTarget, ...; empty where the standard has none."""


def body(status: int, detail: str, kind: str = "") -> dict[str, Any]:
    """The answer's document."""
    named = {"scimType": kind} if kind else {}
    return {"schemas": [ERROR], "status": str(status), **named, "detail": detail}


def invalid_value(detail: str) -> ScimError:
    """A value that cannot be."""
    return ScimError(400, detail, "invalidValue")


def invalid_path(detail: str) -> ScimError:
    """A `path` that cannot be read."""
    return ScimError(400, detail, "invalidPath")


def not_found(kind: str, name: str) -> ScimError:
    """A resource that is not there."""
    return ScimError(404, f"There is no {kind} {name!r}.")
