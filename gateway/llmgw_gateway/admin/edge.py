"""The HTTP side of the Admin API: who asks, what is asked, and errors as answers.

A bearer token or service key, and nothing else: no cookie, no `x-api-key`, no header that would let a browser's page of
another origin in. Routes are matched on the path as it came.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from llmgw_gateway.admin import openapi
from llmgw_gateway.admin.asking import Asking, Nothing, Route
from llmgw_gateway.admin.deciding import decide
from llmgw_gateway.admin.table import ROUTES
from llmgw_gateway.bodies import read_body
from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_gateway.identity.roles import Standing
from llmgw_gateway.identity.service_keys import fresh
from llmgw_gateway.listener import address_of
from llmgw_gateway.observe.audit import CLIENT_CLOSED, new_request_id
from llmgw_gateway.observe.changes import Author, new_change_id
from llmgw_gateway.observe.entry import Entry, printable
from llmgw_gateway.peers import FORWARDED_FOR
from llmgw_wire import errors, headers
from llmgw_wire.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from llmgw_gateway.admin.asking import Reloading
    from llmgw_gateway.call import Caller
    from llmgw_gateway.peers import Peers
    from llmgw_gateway.pipeline import Pipeline
    from llmgw_gateway.settings import Settings
    from llmgw_gateway.store.database import Database

MOST_BODY: Final = 64 * 1024
MOST_FIELDS: Final = 20
LONGEST_QUERY: Final = 4096
LONGEST_PART: Final = 200
ROOT: Final = "/admin/v1"
IDEMPOTENCY_KEY: Final = "idempotency-key"
IDEMPOTENCY_KEYS: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
NOBODY: Final = Standing("", service=False, roles=frozenset(), teams=frozenset())
log = logging.getLogger("llmgw.admin")


@dataclass(slots=True)
class AdminEdge:
    """The handler of the listener."""

    database: Database
    pipeline: Pipeline
    peers: Peers
    settings: Settings
    """Replaced whole when the configuration changes."""
    reloading: Callable[[], Reloading]
    told: Sequence[Callable[[], Awaitable[None]]]
    """Awaited after a change, so that this replica need not wait for its next poll."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request; whatever happens, the client gets an answer it can read."""
        entry = Entry(new_request_id(), request.method, printable(request.path))
        entry.address = self.peers.client(address_of(request), request.headers.getall(FORWARDED_FOR, ()))
        try:
            response = await self._serve(request, entry)
        except GatewayError as error:
            response = _refuse(entry, error)
        except ClientGoneError:
            response = web.Response(status=CLIENT_CLOSED)
            response.force_close()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("request %s failed", entry.request_id)
            message = f"The gateway failed, not your request. Quote {entry.request_id} to the platform team."
            response = _refuse(entry, GatewayError(ErrorCode.INTERNAL, message))
        if not request.content.is_eof():
            response.force_close()  # the rest of the body is not worth reading
        response.headers[headers.REQUEST_ID] = response.headers[headers.LLMGW_REQUEST_ID] = entry.request_id
        response.headers["server"], response.headers["cache-control"] = "llmgw", "no-store"
        return response

    async def _serve(self, request: web.BaseRequest, entry: Entry) -> web.Response:
        if (request.method, request.raw_path) == ("GET", f"{ROOT}/openapi.json"):
            return web.Response(body=openapi.document(), content_type="application/json")
        async with self.pipeline.audit.entry(entry):
            route, places = _match(request)
            caller = self._caller(request)
            entry.caller(caller)
            self.pipeline.rates.question(caller.person_id)
            body = await read_body(request, MOST_BODY, self.settings.server.body_seconds)
            given = _given(route, request, body)
            asking = self._asking(request, route, caller, places, body, entry)
            answer = await decide(self.database, route, asking, given)
            if route.writes:
                await self._tell()
            entry.status = 200
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    def _caller(self, request: web.BaseRequest) -> Caller:
        """Who asks; GatewayError (401) names what is wrong with the credential."""
        if not self.peers.admits(address_of(request)):
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED, "What is sent here in clear is taken from the proxies in front only."
            )
        if "x-api-key" in request.headers or "authorization" not in request.headers:
            raise GatewayError(
                ErrorCode.CREDENTIAL_MISSING,
                "The Admin API takes `Authorization: Bearer` with a gateway token (`llmgw token`) or a service key, "
                "and no other credential.",
            )
        return self.pipeline.authenticator.authenticate(request.headers)

    def _asking(
        self,
        request: web.BaseRequest,
        route: Route,
        caller: Caller,
        places: Mapping[str, str],
        body: bytes,
        entry: Entry,
    ) -> Asking:
        change_id = _change_id(request, route, caller, body)
        return Asking(
            settings=self.settings,
            policy=self.pipeline.policy,
            reloading=self.reloading(),
            caller=caller,
            standing=NOBODY,  # until the store has been asked
            by=Author(caller.person_id, "", change_id, entry.request_id),
            now=int(self.database.now() * 1000),
            places=places,
            fresh=fresh(),
        )

    async def _tell(self) -> None:
        """What was written is written: when it cannot be read now, it counts with the next round."""
        for each in self.told:
            try:
                await each()
            except GatewayError as error:
                log.info("a change counts with the next round: %s", error.message)


def _match(request: web.BaseRequest) -> tuple[Route, dict[str, str]]:
    raw = request.raw_path.partition("?")[0]
    parts = [unquote(part, errors="replace") for part in raw.split("/")]
    there = False
    for route in ROUTES:
        places = route.match(parts)
        if places is None:
            continue
        there = True
        if route.method == request.method:
            if not all(0 < len(each) <= LONGEST_PART and each.isprintable() for each in places.values()):
                raise GatewayError(ErrorCode.NOT_FOUND, "There is no such thing: the path has a name that nothing has.")
            return route, places
    if there:
        raise GatewayError(ErrorCode.METHOD_NOT_ALLOWED, "This method is not served here.")
    raise GatewayError(ErrorCode.NOT_FOUND, f"There is nothing at {printable(request.path)}.")


def _given(route: Route, request: web.BaseRequest, body: bytes) -> Any:  # noqa: ANN401 -- a Document of the route's own
    """What the route takes, checked; GatewayError(REQUEST_MALFORMED) says what is wrong with it."""
    query = _query(request)
    if route.method != "POST":
        if body:
            raise GatewayError(ErrorCode.REQUEST_MALFORMED, "A body is taken with POST only.")
        return _checked(lambda: msgspec.convert(query, route.given, strict=False))
    if query:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "A query is taken with GET only.")
    if route.given is Nothing and not body:
        return Nothing()
    if request.content_type != "application/json":
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "The body has to be application/json.")
    return _checked(lambda: msgspec.json.decode(body, type=route.given))


def _query(request: web.BaseRequest) -> dict[str, str]:
    raw = request.raw_path.partition("?")[2]
    if len(raw) > LONGEST_QUERY:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "The query is too long.")
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "The query cannot be read.") from None
    if len(dict(pairs)) != len(pairs):
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, "The query has a name more than once.")
    return dict(pairs)


def _checked(convert: Callable[[], Any]) -> Any:  # noqa: ANN401 -- a Document
    try:
        return convert()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error) if isinstance(error, msgspec.DecodeError) else "it is not UTF-8 text"
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, f"The request cannot be used: {printable(text)}.") from None


def _change_id(request: web.BaseRequest, route: Route, caller: Caller, body: bytes) -> str:
    """The same for the same request under one `Idempotency-Key`, so that repeating it changes nothing more."""
    key = request.headers.get(IDEMPOTENCY_KEY, "")
    if not route.writes or IDEMPOTENCY_KEY not in request.headers:
        return new_change_id()
    if not IDEMPOTENCY_KEYS.fullmatch(key):
        text = "An `Idempotency-Key` has 1 to 255 letters, digits, hyphens and underscores."
        raise GatewayError(ErrorCode.REQUEST_MALFORMED, text)
    parts = (caller.person_id, key, route.method, request.raw_path)
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass") + b"\0" + body)
    return f"chg_{digest.hexdigest()[:24]}"


def _refuse(entry: Entry, error: GatewayError) -> web.Response:
    wire = error.code.wire
    body = errors.anthropic_body(error.code, error.message, entry.request_id)
    response = web.Response(status=wire.status, body=body, content_type="application/json")
    if wire.status == ErrorCode.TOKEN_INVALID.wire.status:
        response.headers["www-authenticate"] = "Bearer"  # RFC 6750 section 3
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    return response
