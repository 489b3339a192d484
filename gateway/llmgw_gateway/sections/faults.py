"""What can be wrong with an address or a file that a configuration names, each as "key: what is wrong"."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING

from yarl import URL

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_wire.secret import Secret

MIN_SECRET_BYTES = 32
NOT_UNDERSTOOD = "is not a URL that PostgreSQL's library understands (encode signs in a password, such as %40 for @)"


def url_faults(place: str, text: str) -> list[str]:
    """Demand https everywhere; plain http only where it cannot leave the machine."""
    try:
        url = URL(text)
    except ValueError:
        return [f"{place}: {text!r} is not a URL"]
    if url.scheme not in {"http", "https"} or not url.host:
        return [f"{place}: {text!r} is not an http(s) URL"]
    if url.scheme == "http" and not is_loopback(url.host):
        return [f"{place}: plain http is accepted for loopback only; use https"]
    if url.user is not None or url.password is not None or "?" in text or "#" in text:
        return [f"{place}: must have no user, query or fragment"]
    return []


def postgres_faults(place: str, url: Secret, *, password: bool, unencrypted: bool) -> list[str]:
    """Demand a URL as libpq reads it, and encryption wherever it leaves the machine. The URL is never quoted.

    `password`: whether it may hold one. `unencrypted`: whether encryption may be missing.
    """
    from psycopg import ProgrammingError  # noqa: PLC0415 -- a gateway on a file does without the driver
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 -- the same

    if not url.reveal().startswith(("postgresql://", "postgres://")):
        return [f"{place}: is not a postgresql:// URL"]
    try:
        parameters = conninfo_to_dict(url.reveal())
    except ProgrammingError:  # its text quotes the URL
        return [f"{place}: {NOT_UNDERSTOOD}"]
    # A password whose signs are not encoded spills into the parts behind it, which are quoted here and in logs.
    spilt = any("@" in str(parameters.get(name, "")) for name in ("host", "dbname"))
    ports = str(parameters.get("port", "")).split(",")
    if spilt or not all(port.isdecimal() for port in ports if port):
        return [f"{place}: {NOT_UNDERSTOOD}"]
    found = []
    if not parameters.get("host"):
        found.append(f"{place}: names no host")
    if not parameters.get("dbname"):
        found.append(f"{place}: names no database, as in postgresql://user@host/database")
    if parameters.get("password") and not password:
        found.append(f"{place}: must have no password: write the URL into a file of mode 600, and its name as url_file")
    hosts = [*str(parameters.get("host", "")).split(","), *str(parameters.get("hostaddr", "")).split(",")]
    away = [host for host in hosts if host and not host.startswith("/") and not is_loopback(host)]
    if away and parameters.get("sslmode", "prefer") in {"disable", "allow", "prefer"} and not unencrypted:
        found.append(
            f"{place}: would talk to {away[0]} in clear: add ?sslmode=verify-full (or =require), or say "
            "unencrypted = true where the network between encrypts"
        )
    return found


def valkey_faults(place: str, url: Secret, *, password: bool, unencrypted: bool) -> list[str]:
    """Demand redis:// or rediss:// with a host, and TLS wherever it leaves the machine. The URL is never quoted.

    `password`: whether it may hold one. `unencrypted`: whether TLS may be missing.
    """
    try:
        parsed = URL(url.reveal())
        number = parsed.path.strip("/")
    except ValueError:  # its text quotes the URL
        return [f"{place}: is not a URL (encode signs in a password, such as %40 for @)"]
    if parsed.scheme not in {"redis", "rediss"} or not parsed.host:
        return [f"{place}: is not a rediss:// URL with a host"]
    if any("@" in part for part in (parsed.path, parsed.query_string, parsed.fragment)):  # a password that spilt
        return [f"{place}: is not a URL (encode signs in a password, such as %40 for @)"]
    found = []
    if number and not number.isdecimal():
        found.append(f"{place}: what follows the host is the number of a database, as in rediss://host:6380/0")
    if parsed.query_string or parsed.fragment:
        found.append(f"{place}: must have no query or fragment")
    if parsed.password and not password:
        found.append(f"{place}: must have no password: write the URL into a file of mode 600, and its name as url_file")
    if parsed.scheme == "redis" and not is_loopback(parsed.host) and not unencrypted:
        found.append(
            f"{place}: would talk to {parsed.host} in clear: use rediss://, or say unencrypted = true where the "
            "network between encrypts"
        )
    return found


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secret_file(key: str, path: Path, content: str) -> tuple[bytes | None, list[str]]:
    """What a file holds that only its owner may read; and what is wrong with it, without quoting it."""
    try:
        secret, mode = path.read_bytes().strip(), path.stat().st_mode
    except (OSError, ValueError) as error:
        return None, [f"{key}: {_why(error)}: {str(path)[:200]!r}; it needs {content}"]
    return secret, [f"{key}: {path} is open to others; run: chmod 600 {path}"] if mode & 0o077 else []


def secret_faults(key: str, path: Path) -> list[str]:
    """A secret that is missing, short, or open to others."""
    secret, found = secret_file(key, path, f"{MIN_SECRET_BYTES} random bytes")
    if secret is not None and len(secret) < MIN_SECRET_BYTES:
        found.append(f"{key}: holds {len(secret)} bytes, needs at least {MIN_SECRET_BYTES}")
    return found


def is_header_value(secret: bytes) -> bool:
    """Whether a credential can be sent in a header: visible ASCII characters alone."""
    return bool(secret) and all(0x21 <= byte <= 0x7E for byte in secret)  # noqa: PLR2004 -- "!" and "~"


def folder_faults(base: Path, name: str, key: str = "path") -> list[str]:
    """A file that is written into: it need not be there, its folder must."""
    path = base / name
    return path_faults(key, path, missing_ok=True) or path_faults(key, path.parent, kind="folder")


def certificate_faults(key: str, path: Path) -> list[str]:
    """A file of certificates (PEM) that is not there or holds none."""
    found = path_faults(key, path)
    if not found:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError among them
            found = [f"{key}: {path} holds no usable certificate in PEM form ({_why(error)})"]
    return found


def key_pair_faults(key: str, certificate: Path, private_key: Path) -> list[str]:
    """A certificate and a key (PEM) that do not belong together, or cannot be used."""
    from llmgw_gateway.tls import server_context  # noqa: PLC0415 -- only a listener with TLS needs it

    try:
        server_context(certificate, private_key)
    except OSError as error:  # ssl.SSLError among them
        return [f"{key}: {certificate} and {private_key} cannot be used together ({_why(error)})"]
    except ValueError as error:
        return [f"key_file: {error}"]
    return []


def path_faults(key: str, path: Path, *, kind: str = "file", missing_ok: bool = False) -> list[str]:
    """A file or folder that is not there, or a name that no disk can hold."""
    try:
        path.stat()
    except FileNotFoundError:
        return [] if missing_ok else [f"{key}: no such {kind}: {path}"]
    except (OSError, ValueError) as error:
        return [f"{key}: {_why(error)}: {str(path)[:200]!r}"]
    return []


def _why(error: OSError | ValueError) -> str:
    return (error.strerror or "cannot be used") if isinstance(error, OSError) else "is no path"


def listen_address(text: str) -> tuple[str, int]:
    """Split host:port (IPv6 in brackets); ValueError tells what is wrong."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 -- the highest port
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)
