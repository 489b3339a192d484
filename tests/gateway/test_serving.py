"""The section `[server]`: what may be listened on, and what would send credentials in clear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import settings
from llmgw_gateway.errors import ConfigurationError
from tests.gateway import configuration
from tests.lab import certificates

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.certificates import ServerCertificate


@pytest.fixture
def files(tmp_path: Path) -> ServerCertificate:
    return certificates.issue(tmp_path)


def faults(tmp_path: Path, **server: Any) -> list[str]:
    document = configuration.good()
    document["server"] |= server
    try:
        settings.load(configuration.write(configuration.folder(tmp_path), document))
    except ConfigurationError as error:
        return error.faults
    return []


def test_a_certificate_a_redirect_and_proxies_are_taken(tmp_path: Path, files: ServerCertificate) -> None:
    tls = {"certificate_file": files.certificate.name, "key_file": files.key.name}
    assert faults(tmp_path, **tls, listen="0.0.0.0:443", redirect_listen="0.0.0.0:80") == []
    assert faults(tmp_path, listen="[::]:80", trusted_proxies=["10.0.0.0/8", "fd00::/8", "192.0.2.1"]) == []


@pytest.mark.parametrize("listen", ["0.0.0.0:80", "[::]:80", "gateway.example:80", "10.0.0.1:80"])
def test_credentials_are_not_taken_in_clear_from_everybody(tmp_path: Path, listen: str) -> None:
    (fault,) = faults(tmp_path, listen=listen)
    assert fault.startswith("server.listen: would take credentials in clear")


@pytest.mark.parametrize(
    ("server", "fault"),
    [
        ({"certificate_file": "server.pem"}, "server.key_file: certificate_file and key_file are needed together"),
        ({"key_file": "server.key"}, "server.key_file: certificate_file and key_file are needed together"),
        ({"redirect_listen": "127.0.0.1:80"}, "server.redirect_listen: needs certificate_file and key_file"),
        ({"redirect_listen": "80"}, "server.redirect_listen: '80' is not host:port"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "server.trusted_proxies: '10.0.0.1/8' is not a network"),
        ({"trusted_proxies": ["proxy.example"]}, "server.trusted_proxies: 'proxy.example' is not a network"),
        ({"certificate_file": "no.pem", "key_file": "server.key"}, "server.certificate_file: no such file"),
        ({"certificate_file": "server.pem", "key_file": "no.key"}, "server.key_file: "),
        ({"certificate_file": "ca.pem", "key_file": "server.key"}, "server.certificate_file: "),
        ({"head_seconds": 0}, "server.head_seconds: "),
        ({"most_connections": 0}, "server.most_connections: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: ServerCertificate, server: dict[str, Any], fault: str) -> None:
    assert files.key.is_file()
    assert any(each.startswith(fault) for each in faults(tmp_path, **server))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, files: ServerCertificate) -> None:
    files.key.chmod(0o644)
    (fault,) = faults(tmp_path, certificate_file=files.certificate.name, key_file=files.key.name)
    assert "is open to others" in fault


def test_with_a_certificate_the_public_url_is_https(tmp_path: Path, files: ServerCertificate) -> None:
    tls = {"certificate_file": files.certificate.name, "key_file": files.key.name}
    assert faults(tmp_path, **tls, public_url="http://127.0.0.1:8080") == [
        "server.public_url: must be https, because certificate_file is given"
    ]
