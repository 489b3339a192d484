"""The HTTP front door: routes, limits, and the one place where an error becomes a response.

Routes are matched on the parsed path and nothing else; what is not in the table is a 404. No handler takes an upstream
address from a client. Bodies are never inflated: a compressed one is refused.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from aiohttp import HttpVersion10, web

from llmgw_gateway import embedding, intake, listing, questions
from llmgw_gateway.bodies import read_body
from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_gateway.listener import address_of
from llmgw_gateway.observe.audit import CLIENT_CLOSED, new_request_id
from llmgw_gateway.observe.entry import Entry, printable
from llmgw_gateway.peers import FORWARDED_FOR
from llmgw_wire import errors, headers
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from llmgw_gateway.call import Operation
    from llmgw_gateway.identity.exchange import Exchange
    from llmgw_gateway.identity.ring import Ring
    from llmgw_gateway.peers import Peers
    from llmgw_gateway.pipeline import Dialect, Pipeline
    from llmgw_wire.messages import Bootstrap

    Handler = Callable[[web.BaseRequest, Entry], Awaitable[web.StreamResponse]]

MOST_BODY: Final = 32 * 1024 * 1024
"""Claude Code's own limit for a request."""
MOST_FORM: Final = 64 * 1024
BEDROCK_MODEL: Final = "/bedrock/model/"
OPENAI: Final = "/openai/v1/"
BEDROCK_ACTIONS: Final[dict[str, tuple[Operation, bool]]] = {
    "invoke": ("invoke", False),
    "invoke-with-response-stream": ("invoke", True),
    "converse": ("converse", False),
    "converse-stream": ("converse", True),
    "count-tokens": ("count", False),
}
"""What is asked for, and whether the answer streams."""
_ENVELOPES: Final = {"openai": errors.openai_body, "bedrock": errors.bedrock_body}
log: Final = logging.getLogger("llmgw.edge")


class Edge:
    """The handler of the public listener."""

    def __init__(
        self,
        pipeline: Pipeline,
        exchange: Exchange,
        ring: Ring,
        bootstrap: Bootstrap,
        body_seconds: int,
        peers: Peers,
        unready: Sequence[Callable[[], str]],
    ) -> None:
        self._peers = peers
        self._unready = unready
        """Each says why this replica should get no requests, or nothing."""
        self._pipeline = pipeline
        self._exchange = exchange
        self._ring = ring
        self._bootstrap = bootstrap
        self._body_seconds = body_seconds
        self.draining = False
        self._cut_off = False
        self.idle = asyncio.Event()
        """Set while no request is being served."""
        self.idle.set()
        self._running: set[asyncio.Task[Any]] = set()
        pipeline.metrics.open.set_function(lambda: len(self._running))
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "/healthz"): self._health,
            ("GET", "/readyz"): self._ready,
            ("HEAD", "/"): self._greet,
            ("GET", headers.BOOTSTRAP_PATH): self._show_bootstrap,
            ("GET", headers.METADATA_PATH): self._show_metadata,
            ("GET", headers.JWKS_PATH): self._show_jwks,
            ("POST", headers.TOKEN_PATH): self._token,
            ("POST", headers.REVOKE_PATH): self._revoke,
            ("GET", headers.ME_PATH): self._me,
            ("GET", headers.USAGE_PATH): self._usage,
            ("POST", "/v1/messages"): self._messages,
            ("POST", "/v1/messages/count_tokens"): self._count_tokens,
            ("POST", "/openai/v1/chat/completions"): self._chat,
            ("POST", "/openai/v1/responses"): self._responses,
            ("POST", "/openai/v1/embeddings"): self._embeddings,
        }
        self._anthropic = intake.Anthropic(self._body)
        self._paths = frozenset(path for _, path in self._routes)

    def follow(self, bootstrap: Bootstrap, body_seconds: int) -> None:
        """Take another configuration into use."""
        self._bootstrap, self._body_seconds = bootstrap, body_seconds

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request; whatever happens, the client gets an answer it can read."""
        path = _path(request)
        entry = Entry(new_request_id(), request.method, printable(request.path), _dialect(path))
        entry.client_session, entry.client_agent = intake.session_of(request), intake.agent_of(request)
        entry.address = self._peers.client(address_of(request), request.headers.getall(FORWARDED_FOR, ()))
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
        self.idle.clear()
        try:
            return _signed(await self._serve(request, entry), entry)
        except GatewayError as error:
            return _signed(self._refuse(request, entry, error), entry)
        except ClientGoneError:
            return _unread()
        except asyncio.CancelledError:
            if not self._cut_off:
                raise
            late = GatewayError(ErrorCode.DRAINING, "This gateway was shut down before an answer came.", retry_after=2)
            return _signed(self._refuse(request, entry, late), entry)
        except Exception:
            log.exception("request %s failed", entry.request_id)
            message = f"The gateway failed, not your request. Quote {entry.request_id} to the platform team."
            return _signed(self._refuse(request, entry, GatewayError(ErrorCode.INTERNAL, message)), entry)
        finally:
            if task is not None:
                self._running.discard(task)
            if not self._running:
                self.idle.set()

    def cut_off(self) -> None:
        """End what still runs: streams with a terminal event, the rest with 503; everything is settled on the way."""
        self._cut_off = True
        for task in self._running:
            task.cancel()

    async def _serve(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        handler = self._match(request)
        refusal = self._refusal(request, handler)
        if refusal is None:
            return await handler(request, entry)
        async with self._pipeline.audit.entry(entry):
            raise refusal

    def _refusal(self, request: web.BaseRequest, handler: Handler) -> GatewayError | None:
        """What a request is refused for whatever it asks."""
        if self.draining and handler not in {self._health, self._ready}:
            return GatewayError(ErrorCode.DRAINING, "This gateway is shutting down; try again.", retry_after=2)
        if not self._peers.admits(address_of(request)) and handler not in {self._health, self._ready}:
            return GatewayError(
                ErrorCode.REQUEST_MALFORMED,
                f"What is sent here in clear is taken from the proxies in front only. Use {self._bootstrap.gateway}.",
            )
        if "content-encoding" in request.headers:
            return GatewayError(ErrorCode.REQUEST_MALFORMED, "Compressed request bodies are not accepted.")
        return None

    def _match(self, request: web.BaseRequest) -> Handler:
        if not request.raw_path.startswith("/"):  # http://elsewhere/: a form for proxies
            raise GatewayError(ErrorCode.REQUEST_MALFORMED, "The request's target must be a path.")
        if request.version < HttpVersion10:  # a request line without a version is parsed as 0.9
            raise GatewayError(ErrorCode.REQUEST_MALFORMED, "The request is not well-formed HTTP/1.1.")
        handler = self._routes.get((request.method, _path(request)))
        if handler is not None:
            return handler
        raw = request.raw_path.partition("?")[0]
        if raw.startswith(BEDROCK_MODEL) and request.method == "POST":
            return self._bedrock
        listed = listing.is_listed(raw)
        if listed and request.method == "GET":
            return self._listing
        if listed or _path(request) in self._paths:
            method = printable(request.method, 20)
            raise GatewayError(ErrorCode.METHOD_NOT_ALLOWED, f"{method} is not served at {printable(request.path)}.")
        raise GatewayError(ErrorCode.NOT_FOUND, f"There is nothing at {printable(request.path)}.")

    async def _bedrock(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        encoded, _, action = request.raw_path.partition("?")[0].removeprefix(BEDROCK_MODEL).rpartition("/")
        if action not in BEDROCK_ACTIONS:
            raise GatewayError(ErrorCode.NOT_FOUND, f"Bedrock's {printable(action)!r} is not served here.")
        operation, stream = BEDROCK_ACTIONS[action]
        dialect = intake.Bedrock(self._body, unquote(encoded), operation, stream)
        if operation != "count":
            return await self._invoke(request, entry, dialect)
        if "authorization" not in request.headers and "x-api-key" not in request.headers:
            # Claude Code asks without a credential, some 25 times at once, and is content with its own estimate.
            raise GatewayError(ErrorCode.NOT_FOUND, "Tokens are counted only for who is signed in.")
        return await self._count(request, entry, dialect)

    async def _messages(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        return await self._invoke(request, entry, self._anthropic)

    async def _chat(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        return await self._invoke(request, entry, intake.OpenAIChat(self._body))

    async def _responses(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        return await self._invoke(request, entry, intake.OpenAIResponses(self._body))

    async def _embeddings(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        try:
            return await embedding.embed(self._pipeline, request, entry, self._body)
        finally:
            self._pipeline.metrics.count(entry)

    async def _invoke(self, request: web.BaseRequest, entry: Entry, dialect: Dialect) -> web.StreamResponse:
        try:
            return await self._pipeline.invoke(request, entry, dialect)
        finally:
            self._pipeline.metrics.count(entry)

    async def _count_tokens(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        return await self._count(request, entry, self._anthropic)

    async def _count(self, request: web.BaseRequest, entry: Entry, dialect: Dialect) -> web.StreamResponse:
        try:
            return await self._pipeline.count_tokens(request, entry, dialect)
        finally:
            self._pipeline.metrics.count(entry)

    async def _listing(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        return await listing.answer(self._pipeline, request, entry)

    async def _me(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        return _json((await questions.me(self._pipeline, request, entry)).dump())

    async def _usage(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        async with self._pipeline.audit.entry(entry):
            caller = self._pipeline.authenticator.authenticate(request.headers, request.method, request.raw_path)
            entry.caller(caller)
            self._pipeline.rates.question(caller.person_id)
            report = await self._pipeline.money.usage_of(caller.person_id)
            entry.status = 200
        return _json(report.dump())

    async def _token(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        try:
            async with self._pipeline.audit.entry(entry):
                form = await self._form(request)
                proofs = request.headers.getall(headers.DPOP, [])
                version = request.headers.get(headers.AGENT_VERSION, "")
                answer, enrolled = await self._exchange.exchange(form, proofs, version)
                entry.person_id, entry.session, entry.status = enrolled.person_id, enrolled.session, 200
                self._pipeline.directory.forget(enrolled.person_id)
        finally:
            self._pipeline.metrics.exchanges.labels(entry.code).inc()
        response = _json(answer.dump())
        response.headers["cache-control"] = "no-store"  # RFC 6749 section 5.1
        return response

    async def _revoke(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        async with self._pipeline.audit.entry(entry):
            form = await self._form(request)
            caller = self._pipeline.authenticator.caller_of(Secret(form.get("token", "")))
            if caller is not None:
                entry.caller(caller)
                await self._pipeline.authenticator.end(caller)
                await self._pipeline.relay.end_revoked()
            entry.status = 200
        return web.Response(status=200)  # RFC 7009 section 2.2: also for a token that was not good

    async def _body(self, request: web.BaseRequest) -> bytes:
        return await read_body(request, MOST_BODY, self._body_seconds)

    async def _form(self, request: web.BaseRequest) -> dict[str, str]:
        body = await read_body(request, MOST_FORM, self._body_seconds)
        return dict(parse_qsl(body.decode("utf-8", "replace")))

    async def _show_bootstrap(self, _request: web.BaseRequest, _entry: Entry) -> web.StreamResponse:
        return _json(self._bootstrap.dump())

    async def _show_metadata(self, _request: web.BaseRequest, _entry: Entry) -> web.StreamResponse:
        issuer = self._bootstrap.gateway
        document = {
            "issuer": issuer,
            "token_endpoint": self._bootstrap.token_endpoint,
            "revocation_endpoint": issuer + headers.REVOKE_PATH,
            "jwks_uri": issuer + headers.JWKS_PATH,
            "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "token_endpoint_auth_methods_supported": ["none"],
            "dpop_signing_alg_values_supported": ["ES256"],
            "response_types_supported": [],
        }
        return _json(json.dumps(document).encode())

    async def _show_jwks(self, _request: web.BaseRequest, _entry: Entry) -> web.StreamResponse:
        return _json(json.dumps(self._ring.jwks).encode())

    async def _greet(self, _request: web.BaseRequest, _entry: Entry) -> web.StreamResponse:
        return web.Response(status=200)

    async def _health(self, _request: web.BaseRequest, _entry: Entry) -> web.StreamResponse:
        return web.Response(text="alive\n")

    def unready(self) -> str:
        """Why this replica should get no requests; empty when there is no reason."""
        return "draining" if self.draining else next(filter(None, (each() for each in self._unready)), "")

    async def _ready(self, _request: web.BaseRequest, _entry: Entry) -> web.StreamResponse:
        why = self.unready()
        return web.Response(status=503, text=f"{why}\n") if why else web.Response(text="ready\n")

    def _refuse(self, request: web.BaseRequest, entry: Entry, error: GatewayError) -> web.Response:
        """An error as its reader expects it: OAuth's form at the token endpoint, the dialect's envelope elsewhere."""
        write = _ENVELOPES.get(entry.dialect, errors.anthropic_body)
        write = errors.oauth_body if request.path == headers.TOKEN_PATH else write
        wire = error.code.wire
        status = errors.status_in(entry.dialect, error.code)
        response = _json(write(error.code, error.message, entry.request_id), status=status)
        if wire.retry == "never":
            response.headers[headers.SHOULD_RETRY] = "false"
        if error.retry_after is not None:
            response.headers["retry-after"] = str(error.retry_after)
        if entry.dialect == "bedrock":
            response.headers[headers.AMZN_ERROR_TYPE] = wire.aws_type
        if not request.content.is_eof():
            response.force_close()  # the rest of the body is not worth reading
        return response


def _path(request: web.BaseRequest) -> str:
    """The path that is routed by. Some clients add `/v1` to a base URL that ends in it."""
    return request.path.removeprefix("/v1") if request.path.startswith("/v1/v1/") else request.path


def _dialect(path: str) -> str:
    if path.startswith("/bedrock/"):
        return "bedrock"
    if path.startswith(OPENAI):
        return "openai"
    return "anthropic" if path.startswith("/v1/messages") else ""


def _unread() -> web.Response:
    """For aiohttp, which wants an answer even where nobody is left to read it."""
    response = web.Response(status=CLIENT_CLOSED)
    response.force_close()
    return response


def _signed(response: web.StreamResponse, entry: Entry) -> web.StreamResponse:
    """Every answer carries the request's id, and none the server's software and version."""
    if not response.prepared:
        response.headers[headers.REQUEST_ID] = response.headers[headers.LLMGW_REQUEST_ID] = entry.request_id
        response.headers["server"] = "llmgw"
    return response


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
