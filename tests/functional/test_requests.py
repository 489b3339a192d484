"""Bad requests, broken clients and a broken cloud: a clear error or a settled row, and the process lives on."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.functional import ledger
from tests.functional.device import ANTHROPIC, BEDROCK_MODEL, Device
from tests.lab.loopback import HOST, free_port
from tests.lab.scripted import Answer
from tests.lab.usage import Usage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.functional.shop import Shop
    from tests.lab.gateway import Gateway
    from tests.lab.scripted import ScriptedBedrock


def raw_post(device: Device, length: int) -> bytes:
    """The head of a prompt, for tests that hold the connection in their own hands."""
    fields = ["Host: x", f"Authorization: Bearer {device.token}", f"Content-Length: {length}"]
    return "\r\n".join(["POST /v1/messages HTTP/1.1", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", "JSON object"),
        (b"{", "JSON object"),
        (b"[1]", "JSON object"),
        (b'{"model": 1}', "'model'"),
        (b'{"messages": []}', "'model'"),
        (b'{"model": "claude-sonnet-4-5", "max_tokens": "many"}', "'max_tokens'"),
        (b'{"model": "claude-sonnet-4-5", "max_tokens": -1}', "'max_tokens'"),
        (b'{"model": "claude-sonnet-4-5", "max_tokens": 1e99}', "'max_tokens'"),
        (b'{"model": "claude-sonnet-4-5", "stream": "yes"}', "'stream'"),
        (b'{"model": "gpt-4", "max_tokens": 1}', "claude-sonnet-4-5"),
        (b'{"model": "../../x", "max_tokens": 1}', "claude-sonnet-4-5"),
        (b"\xff\xfe", "JSON object"),
        (b'{"model": "claude-sonnet-4-5", "a": ' + b"[" * 5000, "JSON object"),
    ],
)
def test_a_malformed_request_is_one_clear_refusal(shop: Shop, body: bytes, names: str) -> None:
    reply = shop.ada.request("POST", "/v1/messages", body)
    assert (reply.status, reply.error["type"]) == (400, "policy_blocked")
    assert names in reply.error["message"]
    assert reply.headers["x-should-retry"] == "false", "a plain 400 makes the client repeat the prompt with less"
    assert shop.cloud.calls == []
    assert shop.entries_as_they_are(0) == []


def test_an_oversize_body_is_refused_without_reading_it(shop: Shop) -> None:
    address = (HOST, urlsplit(shop.gateway.url).port)
    with socket.create_connection(address, timeout=10) as raw:
        raw.sendall(raw_post(shop.ada, 99_999_999))
        answer = raw.recv(65536)
    assert b" 400 " in answer.splitlines()[0]
    assert b"larger than 32768 KiB" in answer
    assert shop.ada.ask().status == 200


def test_a_body_of_the_largest_allowed_size_passes(ada: Device) -> None:
    words = "word " * 6_000_000
    assert ada.ask(messages=[{"role": "user", "content": words}]).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/bedrock/inference-profiles?type=SYSTEM_DEFINED", 404),
        ("GET", "/bedrock/inference-profiles/arn%3Aaws", 404),
        ("POST", f"/bedrock/model/{BEDROCK_MODEL}/count-tokens", 404),
        ("POST", f"/bedrock/model/{BEDROCK_MODEL}/invoke", 401),
        ("POST", "/v1/messages", 401),
        ("GET", "/v1/me", 401),
        ("GET", "/v1/models", 401),
        ("GET", "/v1/messages", 405),
        ("GET", "/metrics", 404),
        ("GET", "/admin", 404),
        ("POST", "/bedrock/model/../../guardrail/1/invoke", 401),
    ],
)
def test_what_a_stranger_gets(shop: Shop, method: str, path: str, status: int) -> None:
    reply = Device(shop.gateway.url).request(method, path, b"{}" if method == "POST" else None)
    assert reply.status == status
    assert reply.headers["request-id"].startswith("req_")
    assert reply.headers["server"] == "llmgw"


@pytest.mark.parametrize(
    "model", ["..", "%2e%2e", "x%2F..%2F..%2Fguardrail", "arn%3Aaws%3Abedrock%3A%3A1%3Ax", "a%0d%0ab", "@evil"]
)
def test_no_client_text_reaches_an_upstream_path(shop: Shop, model: str) -> None:
    assert shop.ada.ask_bedrock(model=model).status == 400
    assert shop.cloud.calls == []
    assert shop.cloud.refused == []


def test_the_provider_sees_only_allowed_headers(shop: Shop) -> None:
    hostile = {
        "x-api-key": shop.ada.token,
        "cookie": "a=b",
        "x-amz-security-token": "stolen",
        "x-forwarded-for": "1.2.3.4",
        "proxy-authorization": "Basic abc",
        "anthropic-version": "2023-06-01",
        "x-amzn-bedrock-guardrailidentifier": "mine",
    }
    assert shop.ada.request("POST", "/v1/messages", json.dumps(ANTHROPIC).encode(), hostile).status == 200
    seen = {name.lower() for name in shop.cloud.calls[0].request.headers}
    transport = {"host", "accept", "accept-encoding", "content-type", "content-length", "user-agent"}
    assert seen <= transport | {"authorization", "x-amz-date"}
    assert shop.ada.token not in str(shop.cloud.calls[0].request.headers)


def test_an_error_of_the_provider_is_passed_on_unmodified_and_costs_nothing(shop: Shop) -> None:
    shop.cloud.script(
        Answer(status=400, error="prompt is too long: 250000 tokens > 200000 maximum"),
        Answer(status=429, error="Too many requests", error_type="ThrottlingException"),
    )
    long, throttled = shop.ada.ask(), shop.ada.ask_bedrock(stream=True)
    assert (long.status, long.json["message"]) == (400, "prompt is too long: 250000 tokens > 200000 maximum")
    assert (throttled.status, throttled.headers["x-amzn-errortype"]) == (429, "ThrottlingException")
    entries = shop.entries_as_they_are(2)
    assert [entry.cost for entry in entries] == [0, 0]


def test_a_provider_that_refuses_our_role_does_not_look_like_a_bad_sign_in(shop: Shop) -> None:
    shop.cloud.script(Answer(status=403, error="not authorized", error_type="AccessDeniedException"))
    reply = shop.ada.ask()
    assert (reply.status, reply.error["code"]) == (400, "upstream_denied"), "403 makes the client repeat for minutes"


def test_a_failure_in_the_first_event_is_still_a_status(shop: Shop) -> None:
    shop.cloud.script(Answer(exception_after=0), Answer(exception_after=0))
    for reply in (shop.ada.ask(stream=True), shop.ada.ask_bedrock(stream=True)):
        assert reply.status == 429
        assert reply.json["message"] == "Too many tokens, please wait."
    assert [entry.cost for entry in shop.entries_as_they_are(2)] == [0, 0]


@pytest.mark.parametrize(
    "answer",
    [Answer(hold_after=2, exception_after=3), Answer(hold_after=2, break_after=3)],
    ids=["exception", "broken"],
)
def test_a_failure_after_the_first_event_ends_the_stream_in_the_clients_dialect(shop: Shop, answer: Answer) -> None:
    shop.cloud.script(answer, answer)
    for dialect, mark in (("anthropic", b"event: error"), ("bedrock", b":exception-type")):
        with shop.ada.streaming(dialect) as stream:
            assert stream.status == 200
            shop.cloud.release_all()
            assert mark in stream.read()
    for entry in shop.entries_as_they_are(2):
        assert entry.estimated, "how much was generated is unknown"
        assert entry.cost > 0, "unknown is never zero"


def test_an_answer_without_usage_is_charged_what_was_held(shop: Shop) -> None:
    shop.cloud.script(Answer(usage=None))
    assert shop.ada.ask().status == 200
    (entry,) = shop.entries_as_they_are(1)
    assert entry.estimated
    assert entry.cost > 0


def test_a_client_that_hangs_up_mid_stream_is_charged_exactly(shop: Shop) -> None:
    shop.cloud.script(Answer(text="word " * 400, usage=Usage(100, 400), hold_after=3))
    with shop.ada.streaming() as stream:
        assert stream.status == 200
    shop.cloud.release_all()
    (entry,) = shop.entries_as_they_are(1)
    assert ledger.usage_of(entry) == Usage(100, 400)
    assert not entry.estimated
    assert shop.ada.ask().status == 200


def test_a_cloud_that_is_not_there_costs_nothing_and_says_so(gateway: Gateway, ada: Device) -> None:
    gateway.document["bedrock"]["endpoint"] = f"http://{HOST}:{free_port()}"
    gateway.restart()
    reply = ada.ask()
    assert (reply.status, reply.error["code"]) == (502, "upstream_unreachable")
    (entry,) = ledger.settled(gateway.db, 1)
    assert (entry.cost, entry.outcome) == (0, "released")


def test_a_cloud_that_does_not_begin_to_answer_is_given_up_once_and_charged_as_unknown(
    gateway: Gateway, ada: Device, scripted: ScriptedBedrock
) -> None:
    gateway.document["bedrock"]["first_byte_seconds"] = 1
    gateway.restart()
    scripted.script(Answer(hold_after=0))
    reply = ada.ask()
    assert (reply.status, reply.error["code"]) == (529, "upstream_timeout")
    assert reply.headers["x-should-retry"] == "false", "a repeated prompt is paid twice"
    scripted.release_all()
    (entry,) = ledger.settled(gateway.db, 1)
    assert (entry.outcome, entry.estimated) == ("upstream_timeout", True)
    assert entry.cost > 0


def test_malformed_http_is_refused_and_its_header_is_in_no_log(shop: Shop) -> None:
    canary = "canary-4b1d"
    lines = [
        f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {canary}\x01\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: x\r\nX : {canary}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\nX-Api-Key: {canary}\r\n\r\nabcd",
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nX: {canary}\r\n\r\nabcd",
    ]
    for line in lines:
        with socket.create_connection((HOST, urlsplit(shop.gateway.url).port), timeout=10) as raw:
            raw.sendall(line.encode("latin-1"))
            with contextlib.suppress(ConnectionError):
                assert b" 400 " in raw.recv(4096).splitlines()[0]
    assert canary not in shop.gateway.log.read_text()
    assert shop.ada.ask().status == 200


def test_a_compressed_body_is_refused_not_inflated(shop: Shop) -> None:
    reply = shop.ada.request("POST", "/v1/messages", b"\x1f\x8b", {"content-encoding": "gzip"})
    assert reply.status == 400
    assert "Compressed" in reply.error["message"]


def test_a_faulty_configuration_is_refused_whole_with_all_faults(gateway: Gateway, tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    document = gateway.config.read_text().replace("limit_usd", "limt_usd").replace("us-east-1", "mars")
    config.write_text(document + "\n[surprise]\n")
    config.with_name("cluster.secret").write_text("short")
    refused = subprocess.run(
        [*gateway.command("check")[:-1], str(config)],
        capture_output=True,
        text=True,
        check=False,
        env=gateway.program.env,
    )
    assert refused.returncode == 2
    assert refused.stdout == ""
    for fault in ("limt_usd: unknown key", "region", "surprise: unknown key", "cluster_secret"):
        assert fault in refused.stderr
    assert "Traceback" not in refused.stderr
