"""How the local API answers: one JSON object with `schema`, and errors as statuses with their exit codes."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from llmgw_agent.errors import AgentError, UsageError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

SCHEMA: Final = 1
"""Grows only when a change would break a reader; new members come without notice."""
STATUSES: Final = {
    "usage": 400,
    "sign_in_required": 401,
    "refused": 403,
    "temporary": 503,
    "daemon": 500,
    "configuration": 500,
}


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what was raised into an answer. Whatever is unexpected goes to the log, by its class and place only."""
    try:
        return await handler(request)
    except AgentError as error:
        failure = error
    except web.HTTPException as error:
        failure = UsageError(f"{request.method} {request.path} is not served ({error.status})", "Update llmgw")
    except Exception as error:  # noqa: BLE001 -- the last line of defence: a caller gets a sentence, never a trace
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
        log.error("unexpected %s at %s", type(error).__name__, where)  # noqa: TRY400 -- its text may hold a secret
        failure = AgentError(f"something unexpected happened ({type(error).__name__})", "See the agent's log file")
    headers = {"x-llmgw-exit-code": str(failure.exit_code)}
    status = STATUSES.get(failure.code, 500)
    if request.path == "/token" and request.headers.get("Accept") != "application/json":
        log.info("no token: %s", failure.line)
        return web.Response(status=status, text=failure.line + "\n", headers=headers)
    return json_answer({"error": error_document(failure)}, status=status, headers=headers)


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent; an empty body is an empty object."""
    text = await request.read()
    try:
        document = json.loads(text) if text else {}
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UsageError("the request is not a JSON object", "Update llmgw")
    return document


def json_answer(document: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """One object with `schema`."""
    return web.json_response({"schema": SCHEMA} | document, status=status, headers=headers)


def error_document(error: AgentError) -> dict[str, Any]:
    """An error as a member of an answer."""
    return {"code": error.code, "message": error.message, "hint": error.hint, "exit_code": error.exit_code}


def moment(seconds: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
