"""SCIM over HTTP, on the administrators' listener under /scim/v2: who asks, for what, and the answer."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from llmgw_gateway.bodies import read_body
from llmgw_gateway.errors import ClientGoneError, GatewayError
from llmgw_gateway.identity.provisioning import Writing, new_person_id, new_team_id
from llmgw_gateway.listener import address_of
from llmgw_gateway.observe.audit import CLIENT_CLOSED, new_request_id
from llmgw_gateway.observe.changes import Author, Change, new_change_id, record
from llmgw_gateway.scim import discovery, documents, filters, listing, refusals, resources, writing
from llmgw_gateway.scim.attributes import GROUPS, KINDS, USERS
from llmgw_gateway.scim.listing import Query
from llmgw_gateway.scim.refusals import ScimError, not_found
from llmgw_wire.errors import ErrorCode
from llmgw_wire.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy import Connection

    from llmgw_gateway.identity.service_keys import ServiceKeys
    from llmgw_gateway.listener import Handler
    from llmgw_gateway.peers import Peers
    from llmgw_gateway.scim.attributes import Kind
    from llmgw_gateway.store.database import Database

ROOT: Final = "/scim/v2"
ROLE: Final = "scim"
MOST_BODY: Final = 8 * 1024 * 1024
"""A team of 50,000 people fits."""
MOST_START: Final = 10**9
"""Beyond it there is nothing; and databases count to some number only."""
BODY_SECONDS: Final = 30
DENIAL_SECONDS: Final = 60
"""How often a refused credential is written down, at most: whoever knows none must not fill the store."""
SEARCH: Final = ".search"
EXCLUDED: Final = "excludedAttributes"
JSON: Final = "application/scim+json"
log = logging.getLogger("llmgw.scim")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a provisioning client whose key is good."""

    method: str
    path: tuple[str, ...]
    """Below the root."""
    query: dict[str, str]
    body: Any
    home: str
    key: str
    base: str
    match: str
    """`If-Match`."""
    none_match: str
    request_id: str

    def as_search(self) -> Asked:
        """A search whose parameters came as a body (RFC 7644 section 3.4.3): names in a URL would stand in logs."""
        if not isinstance(self.body, dict):
            raise ScimError(400, "A search is a JSON object.", "invalidSyntax")
        words = {
            name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in self.body.items()
            if name != "schemas" and value is not None
        }
        return replace(self, method="GET", query=words, path=self.path[:1])

    def names(self, parameter: str) -> list[str]:
        """A list of attributes in the query."""
        return [name.strip() for name in self.query.get(parameter, "").split(",") if name.strip()]

    def number(self, parameter: str, otherwise: int) -> int:
        """A number in the query: a wrong one is an error, not a guess."""
        text = self.query.get(parameter, str(otherwise))
        try:
            return int(text)
        except ValueError:
            raise ScimError(400, f"{parameter} must be a number.", "invalidValue") from None


class Scim:
    """Serves provisioning clients."""

    def __init__(
        self,
        database: Database,
        keys: ServiceKeys,
        peers: Peers,
        told: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`peers`: who may send a key over a connection.

        `told` is awaited after each change of a person: this replica need not wait for its poll of ended sessions.
        """
        self._database = database
        self._keys = keys
        self._peers = peers
        self._told = told
        self._denied_at = float("-inf")

    async def __call__(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        """One request; every refusal is a SCIM error."""
        try:
            return await self._serve(request, request_id)
        except ScimError as error:
            return _answer(error.status, refusals.body(error.status, error.message, error.kind))
        except GatewayError as error:
            status = error.code.wire.status
            headers = {"retry-after": str(error.retry_after)} if error.retry_after else {}
            headers |= {"www-authenticate": "Bearer"} if status == web.HTTPUnauthorized.status_code else {}
            return _answer(status, refusals.body(status, error.message), headers)
        except ClientGoneError:
            gone = web.Response(status=CLIENT_CLOSED)
            gone.force_close()
            return gone

    async def _serve(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        if not self._peers.admits(address_of(request)):
            raise GatewayError(
                ErrorCode.REQUEST_MALFORMED, "What is sent here in clear is taken from the proxies in front only."
            )
        try:
            key, home = self._keys.directory_of(_credential(request))
        except GatewayError as error:
            await self._denied(request, request_id, error)
            raise
        given = await read_body(request, MOST_BODY, BODY_SECONDS)
        asked = Asked(
            method=request.method,
            path=_path(path[len(ROOT) :]),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            body=documents.decoded(given) if given else None,
            home=home,
            key=key,
            base=f"{request.scheme}://{request.host}{ROOT}",
            match=request.headers.get("If-Match", ""),
            none_match=request.headers.get("If-None-Match", ""),
            request_id=request_id,
        )
        if (asked.method, asked.path) == ("POST", (SEARCH,)):
            return await self._found(asked.as_search(), KINDS)
        kind = next((each for each in KINDS if asked.path and asked.path[0].lower() == each.endpoint.lower()), None)
        if kind is None:
            return _answer(200, _discovered(asked))
        if len(asked.path) > 2:  # noqa: PLR2004 -- kind and id
            raise not_found("endpoint", "/".join(asked.path))
        if asked.method == "POST" and asked.path[1:] == (SEARCH,):
            return await self._found(asked.as_search(), (kind,))
        if len(asked.path) == 1:
            return await self._all(asked, kind)
        return await self._one(asked, kind, asked.path[1])

    async def _all(self, asked: Asked, kind: Kind) -> web.StreamResponse:
        if asked.method == "POST":
            create = writing.CreateUser if kind is USERS else writing.CreateGroup
            name = new_person_id() if kind is USERS else new_team_id()
            order: writing.Order = create(self._writing(asked), asked.base, name, asked.body)
            made = await self._carry_out(order)
            return _resource(201, made, asked, {"location": made["meta"]["location"]})
        if asked.method != "GET":
            raise _not_allowed(asked)
        return await self._found(asked, (kind,))

    async def _found(self, asked: Asked, kinds: Sequence[Kind]) -> web.StreamResponse:
        """A page of what a filter finds among resources of one kind, or of all: one kind after the other."""
        text, wanted, unwanted = asked.query.get("filter", ""), asked.names("attributes"), asked.names(EXCLUDED)
        start = max(1, min(asked.number("startIndex", 1), MOST_START))
        count = max(0, min(asked.number("count", discovery.MOST_RESULTS), discovery.MOST_RESULTS))
        total, shown = 0, list[dict[str, Any]]()
        for kind in kinds:
            query = Query(
                home=asked.home,
                base=asked.base,
                found=filters.parse(text, kind) if text.strip() else None,
                start=max(1, start - total),
                count=count - len(shown),
                members="members" not in unwanted and (not wanted or "members" in wanted),
            )
            find = listing.people if kind is USERS else listing.groups
            there, page = await self._database.read(partial(find, query=query))
            total += there
            shown += [resources.chosen(each, wanted, unwanted) for each in page]
        return _answer(200, discovery.listed(shown, total, start))

    async def _one(self, asked: Asked, kind: Kind, name: str) -> web.StreamResponse:
        if asked.method == "GET":
            return await self._get(asked, kind, name)
        common = (self._writing(asked), asked.base, name, asked.body, asked.match)
        order: writing.Order
        if asked.method == "DELETE":
            order = writing.DeleteUser(*common) if kind is USERS else writing.DeleteGroup(*common)
        elif asked.method in {"PUT", "PATCH"}:
            change = writing.ChangeUser if kind is USERS else writing.ChangeGroup
            order = change(*common, asked.method == "PATCH")
        else:
            raise _not_allowed(asked)
        changed = await self._carry_out(order)
        if asked.method == "DELETE" or (kind is GROUPS and asked.method == "PATCH"):
            return web.Response(status=204)  # of a group's members nobody wants to read all
        return _resource(200, changed, asked)

    async def _get(self, asked: Asked, kind: Kind, name: str) -> web.StreamResponse:
        found = filters.Comparison(filters.Path("id"), "eq", name)
        members = "members" not in asked.names(EXCLUDED)
        query = Query(asked.home, asked.base, found, members=members)
        find = listing.people if kind is USERS else listing.groups
        _, page = await self._database.read(lambda connection: find(connection, query))
        if not page:
            raise not_found(kind.name.lower(), name)
        version = page[0]["meta"]["version"]
        if version in {each.strip() for each in asked.none_match.split(",")}:
            return web.Response(status=304, headers={"etag": version})
        return _resource(200, page[0], asked)

    async def _carry_out(self, order: writing.Order) -> dict[str, Any]:
        changed = await self._database.submit(writing.carry_out, order)
        if self._told is not None and isinstance(order, writing.ChangeUser | writing.DeleteUser):
            with contextlib.suppress(GatewayError):  # it is written: it counts here with the next round
                await self._told()
        return changed

    def _writing(self, asked: Asked) -> Writing:
        now = int(self._database.now() * 1000)
        author = Author(asked.key, ROLE, new_change_id(), asked.request_id)
        return Writing(author, "scim", asked.home, now)

    async def _denied(self, request: web.BaseRequest, request_id: str, error: GatewayError) -> None:
        """Write down that somebody without a good key was here; seldom, and never at the cost of the answer."""
        now = self._database.now()
        if now - self._denied_at < DENIAL_SECONDS:
            return
        self._denied_at = now
        author = Author("unknown", ROLE, new_change_id(), request_id)
        asked = {"method": request.method, "why": error.code.value}
        change = Change(author, int(now * 1000), "scim.request", "directory", "", None, asked, "denied")
        log.warning("a SCIM request was refused: %s", error.message)
        try:
            await self._database.submit(_recorded, change)
        except GatewayError:
            log.warning("that could not be written down: the store is away")


def beside(other: Handler, scim: Scim) -> Handler:
    """SCIM under its root, and everything else as before."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == ROOT or request.path.startswith(f"{ROOT}/"):
            return await scim(request, new_request_id())
        return await other(request)

    return serve


def _path(raw: str) -> tuple[str, ...]:
    """The parts of a path; ScimError(404) for one that nothing is called by."""
    parts = tuple(unquote(part) for part in raw.split("/") if part)
    if any(filters.has_controls(part) for part in parts):
        raise not_found("resource", "of a name with control characters")
    return parts


def _credential(request: web.BaseRequest) -> Secret:
    """The key as both clients send it; GatewayError (401) when there is none."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise GatewayError(ErrorCode.CREDENTIAL_MISSING, "Send a service key for SCIM as: Authorization: Bearer ...")
    return Secret(secret.strip())


def _recorded(connection: Connection, batch: list[Change]) -> list[None]:
    for change in batch:
        record(connection, change)
    return [None] * len(batch)


def _discovered(asked: Asked) -> dict[str, Any]:
    """What is served, as the gateway describes itself."""
    if asked.method != "GET":
        raise not_found("endpoint", "/".join(asked.path)) if not asked.path else _not_allowed(asked)
    what, *names = asked.path or ("",)
    if what.lower() == "serviceproviderconfig" and not names:
        return discovery.configuration(asked.base)
    lists = {"resourcetypes": discovery.resource_types, "schemas": discovery.schemas}
    if what.lower() not in lists or len(names) > 1:
        raise not_found("endpoint", "/".join(asked.path))
    found = lists[what.lower()](asked.base)
    if not names:
        return discovery.listed(found, len(found))
    one = next((each for each in found if each["id"].lower() == names[0].lower()), None)
    if one is None:
        raise not_found(what, names[0])
    return one


def _resource(
    status: int, resource: dict[str, Any], asked: Asked, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    shown = resources.chosen(resource, asked.names("attributes"), asked.names(EXCLUDED))
    return _answer(status, shown, {"etag": resource["meta"]["version"]} | (headers or {}))


def _answer(status: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(document),
        headers={"content-type": JSON, "server": "llmgw"} | (headers or {}),
    )


def _not_allowed(asked: Asked) -> ScimError:
    return ScimError(405, f"{asked.method} is not served here.")
