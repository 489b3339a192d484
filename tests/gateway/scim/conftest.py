from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from llmgw_gateway.identity.service_keys import NewKey, ServiceKeys, fresh
from llmgw_gateway.listener import listen
from llmgw_gateway.observe.changes import operator
from llmgw_gateway.peers import Peers
from llmgw_gateway.scim.api import ROOT, Scim
from tests.lab.loopback import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from llmgw_gateway.store.database import Database
    from tests.gateway.columns import Column

HOME = "https://acme.okta.example"
DAY = 86_400_000


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    json: Any


class Client:
    """A provisioning client: its key in every request."""

    def __init__(self, session: ClientSession, base: str, secret: str, column: Column) -> None:
        self.session = session
        self.base = base
        self.secret = secret
        self.column = column

    async def __call__(
        self, method: str, path: str, body: Any = None, *, secret: str | None = None, **headers: str
    ) -> Reply:
        sent = {"authorization": f"Bearer {self.secret if secret is None else secret}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        async with self.session.request(method, self.base + path, data=data, headers=sent) as answer:
            text = await answer.read()
            if text:
                assert answer.headers["content-type"] == "application/scim+json"
            found = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, found, json.loads(text) if text else None)

    async def made(self, path: str, **attributes: Any) -> str:
        """The id of a new resource."""
        reply = await self("POST", path, attributes)
        assert reply.status == 201, reply.json
        name: str = reply.json["id"]
        return name

    async def patched(self, path: str, *operations: dict[str, Any]) -> Reply:
        schemas = ["urn:ietf:params:scim:api:messages:2.0:PatchOp"]
        return await self("PATCH", path, {"schemas": schemas, "Operations": list(operations)})


async def new_secret(keys: ServiceKeys, key_id: str, home: str | None) -> str:
    secret, digest = fresh()
    expires = int(time.time() * 1000) + DAY
    await keys.make(
        NewKey(f"sec_{key_id}", key_id, digest, "provisioning", "it", "", None, expires, operator("ada@host"), 0, home)
    )
    return secret.reveal()


@pytest.fixture
async def keys(both: Database) -> ServiceKeys:
    return ServiceKeys(both)


@pytest.fixture
async def client(both: Database, column: Column, keys: ServiceKeys) -> AsyncIterator[Client]:
    """SCIM as the gateway serves it, on a store of each kind in turn."""
    secret = await new_secret(keys, "key_1", HOME)
    scim = Scim(both, keys, Peers((), in_clear=False))

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return await scim(request, "req_1")

    address = f"{HOST}:{free_port()}"
    runner = await listen(address, serve)
    async with ClientSession() as session:
        yield Client(session, f"http://{address}{ROOT}", secret, column)
    await runner.cleanup()
