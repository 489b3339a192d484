"""Framing that two parsers could read in two ways is refused, closed, and told nobody: one test for each known trick.

What is refused never reaches a handler: nothing is audited, nothing charged, and no log repeats the client's bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.functional import raw
from tests.functional.device import ANTHROPIC, Device
from tests.lab.gateway import Gateway
from tests.lab.scripted import ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.canaille import Canaille

CANARY = "canary-9e41"
BODY = json.dumps(ANTHROPIC).encode()
REFUSED = {
    "transfer-encoding and content-length": ("Transfer-Encoding: chunked\r\nContent-Length: 4", b"0\r\n\r\n"),
    "two equal lengths": ("Content-Length: 2\r\nContent-Length: 2", b"{}"),
    "two different lengths": ("Content-Length: 2\r\nContent-Length: 3", b"{}x"),
    "two lengths in one line": ("Content-Length: 2, 2", b"{}"),
    "a signed length": ("Content-Length: +2", b"{}"),
    "a negative length": ("Content-Length: -2", b"{}"),
    "a length with an underscore": ("Content-Length: 0_2", b"{}"),
    "a length in hexadecimal": ("Content-Length: 0x2", b"{}"),
    "an unknown transfer-encoding": ("Transfer-Encoding: xchunked", b"0\r\n\r\n"),
    "chunked, then identity": ("Transfer-Encoding: chunked, identity", b"0\r\n\r\n"),
    "chunked twice": ("Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"),
    "transfer-encoding in two lines": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
    "a folded header": ("Content-Length: 2\r\nX-A: a\r\n b", b"{}"),
    "a space before the colon": ("Content-Length : 2", b"{}"),
    "a space before the first header": (" Content-Length: 2", b"{}"),
    "a NUL in a header": ("Content-Length: 2\r\nX-A: a\x00b", b"{}"),
    "a carriage return in a header": ("Content-Length: 2\r\nX-A: a\rb", b"{}"),
    "a header without a name": ("Content-Length: 2\r\n: a", b"{}"),
    "a header without a colon": ("Content-Length: 2\r\nnonsense", b"{}"),
    "a chunk size that is none": ("Transfer-Encoding: chunked", b"zz\r\n"),
    "a signed chunk size": ("Transfer-Encoding: chunked", b"+2\r\n{}\r\n0\r\n\r\n"),
    "a chunk longer than its size": ("Transfer-Encoding: chunked", b"1\r\n{}\r\n0\r\n\r\n"),
    "a control character in a chunk's extension": ("Transfer-Encoding: chunked", b"2;a=\x01\r\n{}\r\n0\r\n\r\n"),
    "lines that end in a bare LF": ("Content-Length: 2\nX-A: a", b"{}"),
    "two hosts": ("Content-Length: 2\r\nHost: other", b"{}"),
    "a header of 20 KB": (f"Content-Length: 2\r\nX-A: {'a' * 20_000}", b"{}"),
    "a thousand headers": ("Content-Length: 2\r\n" + "\r\n".join(["X-A: a"] * 1000), b"{}"),
}


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedBedrock]:
    """For all tests here: none of them changes anything."""
    with ScriptedBedrock() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, canaille: Canaille, scripted: ScriptedBedrock
) -> Iterator[Gateway]:
    with Gateway(
        tmp_path_factory.mktemp("hostile") / "gateway",
        issuers=[canaille.issuer_section()],
        endpoint=scripted.endpoint,
        region=scripted.region,
        credentials=scripted.key.environment(),
    ) as running:
        yield running


@pytest.fixture(scope="module")
def ada(gateway: Gateway, sign_in: Callable[[str], str]) -> Device:
    device = Device(gateway.url)
    device.exchange(sign_in("ada"))
    return device


@pytest.fixture(autouse=True)
def forgotten(scripted: ScriptedBedrock) -> None:
    scripted.calls.clear()


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_framing_is_refused_and_its_connection_closed(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, case: str
) -> None:
    fields, body = REFUSED[case]
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ada.token}\r\nX-Canary: {CANARY}\r\n"
    with raw.connected(gateway) as connection:
        connection.sendall((head + fields + "\r\n\r\n").encode("latin-1") + body)
        status, headers, answer = raw.read_to_end(connection)
    assert status in {400, 431}
    refusal = json.loads(answer)
    assert refusal["error"]["code"] in {"request_malformed", "headers_too_large"}
    assert headers["server"] == "llmgw"
    assert scripted.calls == []
    log = gateway.log.read_text()
    for text in (CANARY, ada.token, "Traceback"):
        assert text not in log
    # What the parser refuses has no line; what breaks in the body was somebody's request, and was refused.
    lines = [line for line in gateway.audit_lines() if line["request_id"] == refusal["request_id"]]
    assert all(line["code"] == "request_malformed" for line in lines)


@pytest.mark.parametrize("line", ["GET /v1/models", "GET /v1/models HTTP/9.9", "GET"])
def test_a_request_line_that_is_none_is_refused(gateway: Gateway, line: str) -> None:
    with raw.connected(gateway) as connection:
        connection.sendall(f"{line}\r\nHost: x\r\n\r\n".encode())
        assert raw.read_to_end(connection)[0] == 400


def test_a_request_without_a_host_is_refused(gateway: Gateway) -> None:
    with raw.connected(gateway) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert raw.read_to_end(connection)[0] == 400


@pytest.mark.parametrize("target", ["http://evil.example/v1/messages", "http://evil.example/bedrock/model/x/invoke"])
def test_a_target_with_a_host_is_refused_and_never_followed(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, target: str
) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ada.token}\r\nContent-Length: {len(BODY)}\r\n"
    with raw.connected(gateway) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + BODY)
        status, _, answer = raw.read_to_end(connection)
    assert status == 400
    assert "must be a path" in json.loads(answer)["error"]["message"]
    assert scripted.calls == []


@pytest.mark.parametrize("names", [("Authorization", "Authorization"), ("x-api-key", "x-api-key")])
def test_a_credential_that_comes_twice_is_refused(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock, names: tuple[str, str]
) -> None:
    prefix = "Bearer " if names[0] == "Authorization" else ""
    fields = "".join(f"{name}: {prefix}{ada.token}\r\n" for name in names)
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n"
    with raw.connected(gateway) as connection:
        connection.sendall(head.encode() + BODY)
        status, _, answer = raw.read_to_end(connection)
    assert (status, json.loads(answer)["error"]["code"]) == (401, "credential_ambiguous")
    assert scripted.calls == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity"])
def test_no_body_is_inflated(ada: Device, scripted: ScriptedBedrock, encoding: str) -> None:
    reply = ada.request("POST", "/v1/messages", BODY, {"content-encoding": encoding})
    assert reply.status == 400
    assert "Compressed" in reply.error["message"]
    assert scripted.calls == []


def test_a_second_request_that_hides_behind_the_first_is_a_request_of_its_own(gateway: Gateway, ada: Device) -> None:
    """Pipelined requests are answered in their order, each by its own credential."""
    first = f"GET /v1/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ada.token}\r\n\r\n"
    second = "GET /v1/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with raw.connected(gateway) as connection:
        connection.sendall((first + second).encode())
        assert raw.read_to_end(connection)[0] == 200
    gateway.audited("/v1/me", code="credential_missing")
    codes = [line["code"] for line in gateway.audit_lines() if line["path"] == "/v1/me"]
    assert codes[-2:] == ["ok", "credential_missing"]


@pytest.mark.parametrize("path", ["/v1/v1/models", "/v1/v1/me"])
def test_a_base_url_that_ends_in_v1_works_with_clients_that_add_it(ada: Device, path: str) -> None:
    assert ada.request("GET", path).status == 200


def test_a_prompt_to_a_base_url_that_ends_in_v1_is_answered(ada: Device) -> None:
    reply = ada.request("POST", "/v1/v1/messages", BODY)
    assert reply.status == 200
    refused = ada.request("POST", "/v1/v1/messages", BODY, token="")
    assert refused.error["type"] == "authentication_error"
    assert ada.request("POST", "/v1/v1/v1/messages", BODY).status == 404


def test_the_client_sees_only_allowed_headers(ada: Device, scripted: ScriptedBedrock) -> None:
    """Headers of the provider stay behind the gateway: cookies, hops, and what its own software is called."""
    for reply in (ada.ask(), ada.ask(stream=True), ada.ask_bedrock(), ada.ask_bedrock(stream=True)):
        ours = {name for name in reply.headers if name.startswith(("x-llmgw-", "x-amzn-"))}
        transport = {"content-type", "content-length", "transfer-encoding", "date", "server", "cache-control"}
        assert set(reply.headers) <= ours | transport | {"request-id"}
        assert reply.headers["server"] == "llmgw"
    assert len(scripted.calls) == 4
