"""What the gateway does before it knows who asks: no HTTP, half a request, a client that leaves; and what it notes."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.functional import ledger
from tests.lab.loopback import HOST, opener
from tests.lab.scripted import Answer, ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.functional.device import Device
    from tests.functional.shop import Shop
    from tests.lab.gateway import Gateway

CANARY = "canary-7c20"
CHUNKED = "POST /v1/messages HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer {token}\r\n\r\n"


@contextmanager
def connected(gateway: Gateway) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, urlsplit(gateway.url).port), timeout=30) as raw:
        yield raw


def read_to_end(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer whose connection is closed behind it."""
    data = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    named = (field.partition(": ") for field in fields)
    return int(status.split()[1]), {name.lower(): value for name, _, value in named}, body


MALFORMED = {
    "no HTTP": (f"{CANARY}\r\n\r\n", 400, "request_malformed"),
    "TLS": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "request_malformed"),
    "a control character": (
        f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {CANARY}\x01\r\n\r\n",
        400,
        "request_malformed",
    ),
    "a space before the colon": (f"GET / HTTP/1.1\r\nHost: x\r\nX : {CANARY}\r\n\r\n", 400, "request_malformed"),
    "two lengths": (
        f"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\nX: {CANARY}\r\n\r\nab",
        400,
        "request_malformed",
    ),
    "a long header": (f"GET / HTTP/1.1\r\nHost: x\r\nX: {CANARY * 2000}\r\n\r\n", 431, "headers_too_large"),
    "many headers": ("GET / HTTP/1.1\r\n" + f"X: {CANARY}\r\n" * 500 + "\r\n", 431, "headers_too_large"),
    "a long target": (f"GET /{CANARY * 2000} HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers_too_large"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_http_gets_our_envelope_and_no_word_of_our_software(shop: Shop, case: str) -> None:
    sent, status, code = MALFORMED[case]
    with connected(shop.gateway) as raw:
        raw.sendall(sent.encode("latin-1"))
        got, headers, body = read_to_end(raw)
    assert (got, json.loads(body)["error"]["code"]) == (status, code)
    assert headers["server"] == "llmgw"
    assert headers["request-id"].startswith("req_")
    assert headers["x-should-retry"] == "false"
    for text in (body.decode(), json.dumps(headers), shop.gateway.log.read_text()):
        assert CANARY not in text
        assert "aiohttp" not in text.lower()
    assert "Traceback" not in shop.gateway.log.read_text()


@pytest.mark.parametrize("body", ["zz\r\n", "5\r\nabcdefgh\r\n", "-1\r\n", "5;x=\x01\r\nabcde\r\n0\r\n\r\n"])
def test_a_body_in_bad_chunks_is_refused_in_our_envelope(shop: Shop, body: str) -> None:
    with connected(shop.gateway) as raw:
        raw.sendall(CHUNKED.format(token=shop.ada.token).encode() + body.encode())
        status, headers, answer = read_to_end(raw)
    assert (status, json.loads(answer)["error"]["code"]) == (400, "request_malformed")
    assert headers["server"] == "llmgw"
    assert "Traceback" not in shop.gateway.log.read_text()
    assert shop.entries_as_they_are(0) == []
    assert shop.ada.ask().status == 200


@pytest.mark.parametrize(
    ("path", "head"),
    [
        ("/v1/messages", "Content-Length: 1000"),
        ("/v1/messages", "Transfer-Encoding: chunked"),
        ("/oauth/token", "Content-Length: 99"),
    ],
)
def test_a_client_that_hangs_up_while_it_sends_is_noted_and_nothing_more(
    gateway: Gateway, ada: Device, path: str, head: str
) -> None:
    with connected(gateway) as raw:
        raw.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\nAuthorization: Bearer {ada.token}\r\n\r\n4\r\n".encode()
        )
        raw.shutdown(socket.SHUT_WR)
    line = gateway.audited(path, code="client_gone")
    assert line["status"] == 499
    for trace in ("Traceback", "failed"):
        assert trace not in gateway.log.read_text()
    assert ledger.rows(gateway.db) == []


def test_every_request_that_is_somebodys_leaves_one_line_and_no_secret(gateway: Gateway, ada: Device) -> None:
    me = ada.me()
    form = {"content-type": "application/x-www-form-urlencoded"}
    for path in ("/v1/models", "/healthz", "/readyz", "/nothing", "/.well-known/jwks.json"):
        ada.request("GET", path)
    assert ada.request("DELETE", "/v1/me").status == 405
    ada.request("POST", "/v1/messages/count_tokens", b"{}", {"content-encoding": "gzip"})
    ada.request("GET", "/v1/models", token="")
    ada.request("POST", "/oauth/revoke", b"token=nonsense", form, token="")
    ada.request("POST", "/oauth/revoke", f"token={ada.token}".encode(), form, token="")
    revoked = gateway.audited("/oauth/revoke", code="ok", person_id=me["person"])
    assert revoked["session"] == me["session"]
    lines = [(each["method"], each["path"], each["status"], each["code"]) for each in gateway.audit_lines()]
    assert lines == [
        ("POST", "/oauth/token", 200, "ok"),
        ("GET", "/v1/me", 200, "ok"),
        ("GET", "/v1/models", 200, "ok"),
        ("POST", "/v1/messages/count_tokens", 400, "request_malformed"),
        ("GET", "/v1/models", 401, "credential_missing"),
        ("POST", "/oauth/revoke", 200, "ok"),
        ("POST", "/oauth/revoke", 200, "ok"),
    ]
    mine = [each["person_id"] == me["person"] for each in gateway.audit_lines()]
    assert mine == [True, True, True, False, False, False, True]
    assert ada.token.split(".")[1] not in gateway.audit.read_text()


def results(gateway: Gateway) -> dict[str, float]:
    """How many model requests ended how, by the operators' metrics."""
    with opener().open(f"{gateway.admin_url}/metrics") as answer:
        text: str = answer.read().decode()
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("llmgw_requests_total{"):
            code = line.partition('code="')[2].partition('"')[0]
            found[code] = found.get(code, 0) + float(line.rpartition(" ")[2])
    return found


def test_the_metrics_tell_success_from_every_kind_of_failure(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    throttled: dict[str, Any] = {"status": 429, "error": "slow down", "error_type": "ThrottlingException"}
    scripted.script(
        Answer(),
        Answer(**throttled),
        Answer(status=403, error="not yours"),
        Answer(exception_after=0),
        Answer(exception_after=2),
        Answer(break_after=2),
    )
    for _ in range(3):
        ada.ask()
    for _ in range(3):
        ada.ask(stream=True)
    ada.request("POST", "/v1/messages/count_tokens", json.dumps({"model": "claude-sonnet-4-5"}).encode())
    ada.ask(model="gpt-4")
    assert results(gateway) == {
        "ok": 1,
        "upstream_429": 1,
        "upstream_denied": 1,
        "upstream_throttlingException": 2,
        "upstream_broken": 1,
        "upstream_404": 1,
        "model_not_allowed": 1,
    }
