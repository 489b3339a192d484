"""The forwarder over real sockets: who is let in, what reaches the gateway, and what comes back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import jwt
import pytest
from aiohttp import web

from llmgw_agent.broker import Broker
from llmgw_agent.entrance import BROWSER_HEADERS, PREFIX, Entrance
from llmgw_agent.errors import ConfigurationError, RefusedError
from llmgw_agent.exchange import Gateway
from llmgw_agent.forward import MOST_KEPT, Forward, is_served
from llmgw_agent.outgoing import trust
from llmgw_agent.session.current import CurrentSession
from llmgw_agent.vault import Vault
from llmgw_wire import jwk
from llmgw_wire.errors import ErrorCode
from tests.agent.test_broker import ScriptedProvider, sign_in, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from llmgw_agent.outgoing import Outgoing
    from tests.agent.small_gateway import SmallGateway

ASK = "/v1/messages?beta=true"


class Machine:
    """A signed-in agent's forwarder, and a tool that talks to it."""

    def __init__(self, home: Path, gateway: SmallGateway, outgoing: Outgoing) -> None:
        vault = Vault(home / "vault.bin", "profile")
        self.session = CurrentSession(vault, {"oidc": ScriptedProvider()})
        self.broker = Broker(self.session, Gateway(gateway.url, outgoing, vault))
        self.forward = Forward(self.broker, gateway.url, trust(None))
        self.gateway = gateway
        self.home = home
        self.entrance = self.make()
        self.tool = aiohttp.ClientSession()

    def make(self, port: int | None = None) -> Entrance:
        file, path = self.home / "forward.json", self.home / "run" / "relay.sock"
        return Entrance(self.forward, gateway_url=self.gateway.url, file=file, socket=path, port=port)

    async def post(self, path: str = ASK, data: Any = b"{}", **headers: str) -> tuple[int, bytes, Any]:
        door = await self.entrance.open()
        given = {"Authorization": f"Bearer {door.secret}"} | headers
        async with self.tool.post(door.url + path, data=data, headers=given) as answer:
            return answer.status, await answer.read(), answer.headers


@pytest.fixture
async def machine(
    home: Path, gateway: SmallGateway, outgoing: Outgoing, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Machine]:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    made = Machine(home, gateway, outgoing)
    await made.session.begin(sign_in())
    await made.entrance.start()
    yield made
    await made.tool.close()
    await made.entrance.close()
    await made.forward.close()


async def test_a_request_arrives_with_the_token_and_nothing_else_is_changed(machine: Machine) -> None:
    status, body, headers = await machine.post(
        data=b'{ "a" :1}', **{"anthropic-beta": "x", "x-own": "1", "x-api-key": "y", "Connection": "x-own", "TE": "t"}
    )
    assert (status, body, headers["x-from"]) == (200, b"42", "the model")
    asked = machine.gateway.asked[0]
    assert (asked.method, asked.target, asked.body) == ("POST", ASK, b'{ "a" :1}')
    token = await machine.broker.token("")
    assert asked.headers.getall("Authorization") == [f"Bearer {token.value.reveal()}"]
    assert asked.headers["anthropic-beta"] == "x"
    assert not {"x-api-key", "x-own", "TE"} & set(asked.headers)
    assert PREFIX not in str(asked.headers)


async def test_where_the_gateway_binds_tokens_each_request_is_proven(machine: Machine) -> None:
    machine.gateway.binds_tokens = True
    for _ in range(2):
        assert (await machine.post())[0] == 200
    (first, second) = machine.gateway.asked
    scheme, _, token = first.headers["Authorization"].partition(" ")
    assert (scheme, second.headers["Authorization"]) == ("DPoP", f"DPoP {token}")
    assert (await machine.broker.token("")).value.reveal() != token, "a copy of it is worth nothing, so no tool gets it"
    proofs = []
    for asked in (first, second):
        key = jwt.PyJWK(jwt.get_unverified_header(asked.headers["DPoP"])["jwk"], algorithm="ES256")
        assert jwk.thumbprint(jwt.get_unverified_header(asked.headers["DPoP"])["jwk"]) == machine.gateway.devices[0]
        proofs.append(jwt.decode(asked.headers["DPoP"], key.key, algorithms=["ES256"]))
    for proof in proofs:
        assert (proof["htm"], proof["htu"]) == ("POST", f"{machine.gateway.url}/v1/messages")
        assert proof["ath"] == jwk.b64url(hashlib.sha256(token.encode()).digest())
    assert proofs[0]["jti"] != proofs[1]["jti"]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"Authorization": "Bearer {secret}"}, 200),
        ({"Authorization": "bearer {secret}"}, 200),
        ({"Authorization": "", "x-api-key": "{secret}"}, 200),
        ({"Authorization": "Bearer of-another-tool", "x-api-key": "{secret}"}, 200),
        ({"Authorization": ""}, 401),
        ({"Authorization": "{secret}"}, 401),
        ({"Authorization": "Bearer {secret}x"}, 401),
        ({"Authorization": "Bearer gw.a-gateway-token"}, 401),
        ({"Authorization": "Bearer s\u00e9cret"}, 401),
    ],
)
async def test_the_port_wants_the_local_secret(machine: Machine, given: dict[str, str], status: int) -> None:
    secret = (await machine.entrance.open()).secret
    headers = {name: value.replace("{secret}", secret) for name, value in given.items()}
    found, body, answered = await machine.post(**headers)
    assert found == status
    assert len(machine.gateway.asked) == (status == 200)
    if status == 401:
        assert json.loads(body)["error"]["message"].endswith("To see it: llmgw forward")
        assert answered["x-should-retry"] == "false"


@pytest.mark.parametrize("name", BROWSER_HEADERS)
async def test_a_browser_is_let_in_by_neither_door(machine: Machine, name: str) -> None:
    assert (await machine.post(**{name: "http://evil.example"}))[0] == 401
    async with unix(machine) as tool, tool.post(f"http://localhost{ASK}", headers={name: "x"}) as answer:
        assert answer.status == 401
    assert machine.gateway.asked == []


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1", "evil.example", "127.0.0.1:{port}.evil.example", ""])
async def test_another_host_is_not_ours(machine: Machine, host: str) -> None:
    """A page whose name is rebound to 127.0.0.1 has its own name in Host."""
    door = await machine.entrance.open()
    assert (await machine.post(Host=host.format(port=door.port)))[0] in {400, 401}
    assert machine.gateway.asked == []


async def test_there_is_one_host(machine: Machine) -> None:
    door = await machine.entrance.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    head = f"POST {ASK} HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\nHost: evil\r\nx-api-key: {door.secret}\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readline()).split()[1] in {b"400", b"401"}
    writer.close()
    assert machine.gateway.asked == []


async def test_the_socket_wants_no_secret_and_takes_the_gateway_s_own_name(machine: Machine) -> None:
    assert stat.S_IMODE(machine.entrance.socket.stat().st_mode) == 0o600
    async with unix(machine) as tool:
        for host in ("localhost", "llmgw.local", machine.gateway.url.removeprefix("http://")):
            async with tool.post(f"http://{host}{ASK}") as answer:
                assert answer.status == 200
        async with tool.post(f"http://evil.example{ASK}") as answer:
            assert answer.status == 401
    assert len(machine.gateway.asked) == 3


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/v1/messages", True),
        ("/v1/messages/count_tokens?x=1", True),
        ("/v1/models", True),
        ("/bedrock/model/us.anthropic.claude-x%3A0/invoke", True),
        ("/openai/v1/chat/completions", True),
        ("/v1/me", False),
        ("/oauth/token", False),
        ("/.well-known/llmgw", False),
        ("/bedrock/../oauth/revoke", False),
        ("/bedrock/%2e%2E/oauth/revoke", False),
        ("/bedrock//oauth", False),
        ("/bedrock/a%2f..%2fb", True),
        ("//evil.example/v1/messages", False),
        ("http://evil.example/v1/messages", False),
    ],
)
async def test_only_what_models_are_asked_with_is_served(path: str, served: bool) -> None:  # noqa: FBT001 -- the table
    assert is_served(path) is served


async def test_what_is_not_served_does_not_reach_the_gateway(machine: Machine) -> None:
    assert (await machine.post("/v1/me"))[0] == 404
    assert machine.gateway.asked == []


async def test_a_refused_token_is_replaced_once(machine: Machine) -> None:
    machine.gateway.blocks = [ErrorCode.TOKEN_EXPIRED]
    assert (await machine.post(data=b"the prompt"))[:2] == (200, b"42")
    first, second = machine.gateway.asked
    assert first.body == second.body == b"the prompt"
    assert first.headers["Authorization"] != second.headers["Authorization"]
    machine.gateway.blocks = [ErrorCode.TOKEN_EXPIRED]
    status, body, _ = await machine.post()
    assert (status, json.loads(body)["error"]["message"]) == (401, "Said no.")
    assert len(machine.gateway.asked) == 3, "a token that was replaced a moment ago is not replaced again"
    assert len(machine.gateway.exchanges) == 2


async def test_fifty_refusals_cost_one_exchange(machine: Machine) -> None:
    first = await machine.broker.token("")
    machine.gateway.unwelcome.add(first.value.reveal())
    results = await asyncio.gather(*(machine.post() for _ in range(50)))
    assert {status for status, _, _ in results} == {200}
    assert len(machine.gateway.exchanges) == 2
    assert (await machine.broker.token("")) is not first


@pytest.mark.parametrize(
    "code", [ErrorCode.BUDGET_EXCEEDED, ErrorCode.PERSON_DISABLED, ErrorCode.DRAINING, ErrorCode.CREDENTIAL_AMBIGUOUS]
)
async def test_every_other_refusal_is_the_gateway_s_own(machine: Machine, code: ErrorCode) -> None:
    machine.gateway.blocks = [code]
    status, body, _ = await machine.post()
    assert (status, json.loads(body)["error"]["code"]) == (code.wire.status, code.value)
    assert len(machine.gateway.asked) == 1


async def test_a_long_body_passes_and_is_not_repeated(machine: Machine) -> None:
    long = os.urandom(MOST_KEPT + 5)
    assert (await machine.post(data=chunks(long)))[0] == 200
    machine.gateway.blocks = [ErrorCode.TOKEN_EXPIRED]
    assert (await machine.post(data=chunks(long)))[0] == 401, "what is gone cannot be sent again"
    assert [asked.body == long for asked in machine.gateway.asked] == [True, True]


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 50_000):
        yield body[start : start + 50_000]


async def test_nobody_is_signed_in(machine: Machine) -> None:
    await machine.session.end()
    for path, kind in ((ASK, "authentication_error"), ("/openai/v1/chat/completions", "authentication_error")):
        status, body, headers = await machine.post(path)
        error = json.loads(body)["error"]
        assert (status, error["type"], headers["x-should-retry"]) == (401, kind, "false")
        assert error["message"] == "llmgw: you are not signed in. Run: llmgw login"
    _, _, headers = await machine.post("/bedrock/model/x/invoke")
    assert headers["x-amzn-errortype"] == ErrorCode.SIGN_IN_INVALID.wire.aws_type


async def test_a_gateway_that_is_gone_is_an_error_that_clients_repeat(machine: Machine) -> None:
    await machine.broker.token("")
    await machine.gateway._runner.cleanup()
    status, body, headers = await machine.post()
    assert (status, "x-should-retry" in headers) == (502, False)
    assert "lost the gateway" in json.loads(body)["error"]["message"]


async def test_bytes_pass_as_they_come(machine: Machine) -> None:
    go_on = asyncio.Event()

    async def model(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"one")
        await go_on.wait()
        await response.write(b"two")
        return response

    machine.gateway.model = model
    door = await machine.entrance.open()
    async with machine.tool.post(door.url + ASK, headers={"x-api-key": door.secret}) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert await answer.content.readany() == b"one"
        go_on.set()
        assert await answer.content.read() == b"two"


async def test_an_answer_that_breaks_off_is_no_whole_answer(machine: Machine) -> None:
    async def model(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    machine.gateway.model = model
    door = await machine.entrance.open()
    async with machine.tool.post(door.url + ASK, headers={"x-api-key": door.secret}) as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()


async def test_a_tool_that_leaves_ends_the_request_at_the_gateway(machine: Machine) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def model(request: web.Request) -> web.StreamResponse:
        asked.set()
        await until(lambda: request.transport is None or request.transport.is_closing())
        left.set()
        return web.Response()

    machine.gateway.model = model
    waiting = asyncio.create_task(machine.post())
    await asked.wait()
    waiting.cancel()
    async with asyncio.timeout(10):
        await left.wait()


async def test_a_reader_that_pauses_pauses_the_gateway(machine: Machine) -> None:
    """However much a model says, what lies here in between is bounded."""
    written = 0
    enough = 256 * 1024 * 1024

    async def model(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionResetError):
            while written < enough:
                await response.write(bytes(1024 * 1024))
                written += 1024 * 1024
        return response

    machine.gateway.model = model
    door = await machine.entrance.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1024)
    writer.write(f"POST {ASK} HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\nx-api-key: {door.secret}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"200"
    before = -1
    while written != before:  # until nothing moves any more
        before = written
        await asyncio.sleep(0.3)
    assert written < enough / 4
    writer.close()


async def test_the_door_is_remembered_and_its_file_is_ours_alone(machine: Machine) -> None:
    door = await machine.entrance.open()
    assert await machine.entrance.open() is door
    file = machine.home / "forward.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await machine.entrance.close()
    again = machine.make()
    await again.start()
    assert again.door == door
    await again.close()


async def test_a_port_that_somebody_took_costs_the_secret_too(machine: Machine) -> None:
    door = await machine.entrance.open()
    await machine.entrance.close()
    thief = await asyncio.start_server(lambda *_: None, "127.0.0.1", door.port)
    again = machine.make()
    await again.start()
    assert again.door is not None
    assert (again.door.port != door.port, again.door.secret != door.secret) == (True, True)
    await again.close()
    named = machine.make(port=door.port)
    await named.start()
    assert (named.door, named.socket.exists()) == (None, True), "the agent works without its port"
    with pytest.raises(ConfigurationError, match=f"port {door.port}"):
        await named.open()
    await named.close()
    thief.close()


async def test_no_port_is_opened_before_it_is_asked_for_or_where_it_is_switched_off(machine: Machine) -> None:
    assert machine.entrance.door is None
    with pytest.raises(RefusedError, match="switched off"):
        await machine.make(port=0).open()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": "1", "secret": "x"}', '{"port": 1, "secret": "other"}'])
async def test_a_file_that_is_no_door_is_replaced(machine: Machine, text: str) -> None:
    (machine.home / "forward.json").write_text(text)
    assert (await machine.entrance.open()).secret.startswith(PREFIX)


@asynccontextmanager
async def unix(machine: Machine) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(machine.entrance.socket))
    async with aiohttp.ClientSession(connector=connector) as tool:
        yield tool
