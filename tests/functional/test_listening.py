"""The listeners: TLS and its certificate, proxies in front, and clients that take their time or come in crowds."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.functional import raw
from tests.functional.device import ANTHROPIC, Device
from tests.lab import certificates
from tests.lab.gateway import Gateway
from tests.lab.loopback import HOST, answers, free_port, opener
from tests.lab.process import POLL_SECONDS, run
from tests.lab.scripted import ScriptedBedrock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.lab.canaille import Canaille
    from tests.lab.certificates import ServerCertificate

OTHER = "127.0.0.2"
"""Another client on this machine."""
GET = "GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, canaille: Canaille
) -> Iterator[Callable[..., AbstractContextManager[Gateway]]]:
    """Starts a gateway with these keys in `[server]`; `prepare` changes it before that."""

    @contextlib.contextmanager
    def enter(prepare: Callable[[Gateway], None] = lambda _: None, **server: Any) -> Iterator[Gateway]:
        gateway = Gateway(
            tmp_path_factory.mktemp("listening") / "gateway",
            issuers=[canaille.issuer_section()],
            endpoint=cloud.endpoint,
            region=cloud.region,
            credentials=cloud.key.environment(),
        )
        gateway.document["server"] |= server
        prepare(gateway)
        with gateway:
            yield gateway

    with ScriptedBedrock() as cloud:
        yield enter


@pytest.fixture(scope="module")
def impatient(start: Callable[..., AbstractContextManager[Gateway]]) -> Iterator[Gateway]:
    """Waits a second for anything, and trusts two addresses of this machine to be proxies."""
    with start(head_seconds=1, body_seconds=1, idle_seconds=1, trusted_proxies=[f"{OTHER}/31"]) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return certificates.issue(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls(start: Callable[..., AbstractContextManager[Gateway]], certificate: ServerCertificate) -> Iterator[Gateway]:
    """Over TLS, with a listener that redirects to it."""

    def prepare(gateway: Gateway) -> None:
        gateway.url, gateway.ca_file = f"https://localhost:{gateway.port}", certificate.ca
        gateway.document["server"]["public_url"] = gateway.url

    files = {"certificate_file": str(certificate.certificate), "key_file": str(certificate.key)}
    with start(prepare, **files, redirect_listen=f"{HOST}:{free_port()}") as gateway:
        yield gateway


def test_tls_1_3_is_spoken_and_nothing_older(tls: Gateway) -> None:
    with raw.encrypted(tls) as connection:
        assert connection.version() == "TLSv1.3"
        connection.sendall(raw.HEALTH)
        assert raw.read_answer(connection)[0] == 200
    with pytest.raises(ssl.SSLError), raw.encrypted(tls, newest=ssl.TLSVersion.TLSv1_2):
        pass


def test_check_beside_a_gateway_with_tls_finds_no_fault(tls: Gateway) -> None:
    checked = run(tls.command("check"), env=tls.program.env, folder=tls.folder, seconds=raw.SECONDS)
    assert (checked.exit_code, checked.stderr) == (0, "")


def test_what_is_sent_in_clear_to_the_tls_listener_gets_no_answer(tls: Gateway) -> None:
    with raw.connected(tls) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(raw.HEALTH)
        assert b"HTTP" not in b"".join(iter(lambda: connection.recv(4096), b""))


def peer_certificate(connection: ssl.SSLSocket) -> bytes:
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    return der


def test_a_new_certificate_is_taken_and_open_connections_go_on(
    tls: Gateway, certificate: ServerCertificate, tmp_path: Path
) -> None:
    with raw.encrypted(tls) as before:
        old = peer_certificate(before)
        renewed = certificates.issue(tmp_path / "renewed")
        certificate.certificate.write_bytes(renewed.certificate.read_bytes())
        tls.program.send_signal(signal.SIGHUP)  # half replaced: chain and key do not fit together
        tls.program.wait_until(lambda: "not replaced" in tls.log.read_text(), "complaining")
        with raw.encrypted(tls) as meanwhile:
            assert peer_certificate(meanwhile) == old
        certificate.key.write_bytes(renewed.key.read_bytes())
        tls.program.send_signal(signal.SIGHUP)
        tls.program.wait_until(lambda: answers(f"{tls.url}/healthz", ca_file=renewed.ca), "using the new certificate")
        tls.ca_file = renewed.ca
        before.sendall(raw.HEALTH)
        assert raw.read_answer(before)[0] == 200


def test_http_is_redirected_and_a_credential_in_clear_is_named_as_such(tls: Gateway) -> None:
    port = int(tls.document["server"]["redirect_listen"].rpartition(":")[2])
    cases = {
        GET.format(path="/v1/me?a=b", fields=""): 308,
        GET.format(path="/v1/me", fields="Authorization: Bearer canary-55a1\r\n"): 400,
        GET.format(path="http://evil.example/", fields=""): 400,
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}": 400,
    }
    for sent, status in cases.items():
        with socket.create_connection((HOST, port), timeout=raw.SECONDS) as connection:
            connection.sendall(sent.replace("Host: x", "Host: x\r\nConnection: close").encode())
            got, headers, body = raw.read_to_end(connection)
        assert (got, headers["server"]) == (status, "llmgw")
        assert headers.get("location") == (f"{tls.url}/v1/me?a=b" if status == 308 else None)
        assert ("replace the credential" in body.decode()) == ("canary" in sent)
    assert "canary-55a1" not in tls.log.read_text()


SLOW = {
    "nothing at all": b"",
    "half a request line": b"GET /hea",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
}


@pytest.mark.parametrize("case", SLOW)
def test_a_head_that_does_not_come_ends_the_connection(impatient: Gateway, case: str) -> None:
    with raw.connected(impatient) as connection:
        connection.sendall(SLOW[case])
        assert connection.recv(1) == b"", "it ends; else the socket's own deadline fails the test"


def test_a_second_head_that_does_not_come_ends_the_connection(impatient: Gateway) -> None:
    with raw.connected(impatient) as connection:
        connection.sendall(raw.HEALTH)
        assert raw.read_answer(connection)[0] == 200
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert connection.recv(1) == b""


def test_a_head_that_drips_ends_the_connection(impatient: Gateway) -> None:
    with raw.connected(impatient) as connection:
        connection.settimeout(POLL_SECONDS)
        deadline = time.monotonic() + raw.SECONDS
        with pytest.raises(ConnectionError):  # noqa: PT012 -- drip, until the other end has had enough
            while time.monotonic() < deadline:
                connection.sendall(b"G")
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(1):
                        raise ConnectionError


def test_a_connection_that_rests_too_long_is_closed(impatient: Gateway) -> None:
    with raw.connected(impatient) as connection:
        connection.sendall(raw.HEALTH)
        assert raw.read_answer(connection)[0] == 200
        assert connection.recv(1) == b""


@pytest.mark.parametrize("fields", [f"Content-Length: {1000}", "Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come_is_refused(impatient: Gateway, sign_in: Callable[[str], str], fields: str) -> None:
    ada = Device(impatient.url)
    ada.exchange(sign_in("ada"))
    with raw.connected(impatient) as connection:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ada.token}\r\n{fields}\r\n\r\n"
        connection.sendall(head.encode() + b"4\r\n")
        status, _, body = raw.read_to_end(connection)
    assert (status, json.loads(body)["error"]["code"]) == (400, "request_malformed")


def test_connections_are_bounded_in_all_and_for_each_address(
    start: Callable[..., AbstractContextManager[Gateway]],
) -> None:
    """A proxy that is trusted may have all that there are."""
    bounds = {"most_connections": 4, "most_connections_per_address": 2, "trusted_proxies": ["127.0.0.3/32"]}
    with start(**bounds) as gateway, contextlib.ExitStack() as stack:

        def enter(source: str) -> bool:
            connection = stack.enter_context(raw.connected(gateway, source=source))
            return serves(connection)

        gateway.program.wait_until(lambda: not connections(gateway), "empty")
        assert [enter(HOST), enter(HOST), enter(HOST)] == [True, True, False]
        assert [enter("127.0.0.3"), enter("127.0.0.3"), enter(OTHER)] == [True, True, False]
        stack.close()
        gateway.program.wait_until(lambda: not connections(gateway), "empty again")
        assert [enter("127.0.0.3") for _ in range(4)] == [True] * 4
        assert "connections are refused" in gateway.log.read_text()


def connections(gateway: Gateway) -> int:
    """How many it has open, by its metrics."""
    with opener().open(f"{gateway.admin_url}/metrics") as answer:
        text: str = answer.read().decode()
    return int(float(text.partition("\nllmgw_connections_open ")[2].split()[0]))


def serves(connection: socket.socket) -> bool:
    try:
        connection.sendall(raw.HEALTH)
        return raw.read_answer(connection)[0] == 200
    except ConnectionError:
        return False


@pytest.mark.parametrize(
    ("source", "forwarded", "address"),
    [
        (OTHER, "X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7"),
        (OTHER, "X-Forwarded-For: 10.9.9.9, 198.51.100.7\r\nX-Forwarded-For: 127.0.0.3\r\n", "198.51.100.7"),
        (OTHER, "", OTHER),
        (HOST, "X-Forwarded-For: 198.51.100.7\r\n", HOST),
    ],
    ids=["by a proxy", "by two proxies", "a proxy for itself", "by a client"],
)
def test_only_a_trusted_proxy_says_for_whom_it_asks(
    impatient: Gateway, source: str, forwarded: str, address: str
) -> None:
    with raw.connected(impatient, source=source) as connection:
        connection.sendall(GET.format(path="/v1/models", fields=forwarded).encode())
        status, headers, _ = raw.read_answer(connection)
    assert status == 401
    assert impatient.audited("/v1/models", request_id=headers["request-id"])["address"] == address


def test_behind_a_proxy_nobody_else_is_served_in_clear(
    start: Callable[..., AbstractContextManager[Gateway]], own_address: str
) -> None:
    """On an address that other machines reach, what comes in clear comes from the proxy, or is refused unread."""

    def everywhere(gateway: Gateway) -> None:
        gateway.document["server"]["listen"] = f"0.0.0.0:{gateway.port}"

    body = json.dumps(ANTHROPIC).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\r\nContent-Length: {len(body)}\r\n"
    with (
        start(everywhere, trusted_proxies=["203.0.113.0/24"]) as gateway,
        socket.create_connection((own_address, gateway.port), timeout=raw.SECONDS) as connection,
    ):
        connection.sendall(raw.HEALTH)
        assert raw.read_answer(connection)[0] == 200, "a load balancer asks for our health itself"
        connection.sendall(f"{head}\r\n".encode() + body)
        status, _, answer = raw.read_answer(connection)
    assert status == 400
    assert "in clear" in json.loads(answer)["error"]["message"]


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not loopback; the test is skipped by name where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # nothing is sent: the system only chooses an address
        return str(probe.getsockname()[0])
    pytest.skip("this machine has no address but loopback")
