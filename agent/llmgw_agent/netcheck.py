"""`llmgw netcheck`: the way to the gateway and to where people sign in, step by step, from this machine.

Names, connections, certificates with the issuer that is really seen, proxies, clock. It needs no agent and no sign-in,
and sends nothing but requests for public documents.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from llmgw_agent.checks import Check, failed, passed, skipped, warned
from llmgw_agent.errors import AgentError
from llmgw_wire.headers import BOOTSTRAP_PATH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmgw_agent.settings import Settings

SECONDS: Final = 4.0
MOST_SKEW: Final = 60.0
"""Seconds. The agent allows for the offset; other programs of this machine do not."""
MOST_BYTES: Final = 64 * 1024
OK: Final = 200
OIDC_PATH: Final = "/.well-known/openid-configuration"
PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
LOOPBACK: Final = ("127.0.0.1", "localhost")
NETWORK: Final = "Check the network (VPN?)"


def examine(given: Settings, environ: Mapping[str, str]) -> list[Check]:
    """The steps to the gateway, then to each identity provider that it names."""
    checks, document = _way("gateway", given.gateway_url, BOOTSTRAP_PATH, given)
    checks += proxy(environ)
    issuers = [offer.get("issuer") for offer in document.get("issuers", []) if isinstance(offer, dict)]
    for issuer in issuers:
        if isinstance(issuer, str):
            checks += _way("sign-in", issuer.rstrip("/"), OIDC_PATH, given)[0]
    if not issuers:
        checks.append(skipped("sign-in", "the gateway did not say where people sign in"))
    return checks


def _way(name: str, url: str, path: str, given: Settings) -> tuple[list[Check], dict[str, Any]]:
    """Every step to one server, up to the first that fails, and the document that it serves."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    try:
        began = time.monotonic()
        found = sorted({str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
        took = (time.monotonic() - began) * 1000
    except OSError as error:
        return [failed(f"{name} name", f"{host} is not known ({error.strerror})", "an address", NETWORK)], {}
    checks = [passed(f"{name} name", f"{host} is {', '.join(found)} ({took:.0f} ms)")]
    try:
        began = time.monotonic()
        with socket.create_connection((host, port), SECONDS) as sock:
            reached = sock.getpeername()[0]
        took = (time.monotonic() - began) * 1000
    except OSError as error:
        told = f"{host}:{port} cannot be reached ({error.strerror or type(error).__name__})"
        return [*checks, failed(f"{name} port", told, "a connection", NETWORK)], {}
    checks.append(passed(f"{name} port", f"{reached}:{port} ({took:.0f} ms)"))
    if parts.scheme == "https":
        secured = _certificate(f"{name} TLS", host, port, given)
        checks.append(secured)
        if secured.right:
            return checks, {}
    answered, document = _answer(name, url, path, given)
    return [*checks, *answered], document


def _answer(name: str, url: str, path: str, given: Settings) -> tuple[list[Check], dict[str, Any]]:
    """Ask for the public document; the answer also tells the time."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=SECONDS)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, timeout=SECONDS, context=_trust(given))
    try:
        began, sent = time.monotonic(), time.time()
        connection.request("GET", parts.path + path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES)
        took = (time.monotonic() - began) * 1000
        middle = (sent + time.time()) / 2
    except (OSError, http.client.HTTPException) as error:
        return [failed(f"{name} answer", f"none ({type(error).__name__})", "an answer", NETWORK)], {}
    finally:
        connection.close()
    try:
        document = json.loads(body) if answer.status == OK else None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        told = f"{answer.status}, and not what stands at {path}"
        fix = "Look whether this network wants a sign-in of its own, and at gateway_url"
        return [failed(f"{name} answer", told, "200 with a JSON object", fix)], {}
    return [passed(f"{name} answer", f"in {took:.0f} ms"), _clock(name, answer.getheader("Date", ""), middle)], document


def _clock(name: str, date: str, at: float) -> Check:
    try:
        # The header is cut to whole seconds: half of one is the best guess for the rest.
        skew = at - parsedate_to_datetime(date).timestamp() - 0.5
    except (ValueError, TypeError):
        return skipped(f"{name} clock", "it did not tell the time")
    told = f"this machine's is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"
    if abs(skew) <= MOST_SKEW:
        return passed(f"{name} clock", told)
    return warned(f"{name} clock", told, f"within {MOST_SKEW:g} s", "Set the clock by the network")


def _trust(given: Settings) -> ssl.SSLContext:
    from llmgw_agent.outgoing import trust  # noqa: PLC0415 -- brings aiohttp, which only these checks need

    return trust(given.ca_file)


def certificate(given: Settings) -> Iterator[Check]:
    """Who issued what the gateway shows: a company's inspecting proxy has a name of its own there."""
    parts = urlsplit(given.gateway_url)
    if parts.scheme != "https":
        yield skipped("certificate", f"{given.gateway_url} stays on this machine")
    else:
        yield _certificate("certificate", str(parts.hostname), parts.port or 443, given)


def _certificate(name: str, host: str, port: int, given: Settings) -> Check:
    right = "an issuer that this machine, or ca_file, trusts"
    try:
        return passed(name, _shown(host, port, _trust(given)))
    except ssl.SSLError as error:
        # Only to name who is in between: nothing is sent over this connection.
        unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unchecked.check_hostname = False
        unchecked.verify_mode = ssl.CERT_NONE
        try:
            seen = _shown(host, port, unchecked)
        except OSError:
            seen = "issued by nobody that can be read"
        why = getattr(error, "verify_message", "") or error.reason or type(error).__name__
        fix = "Ask IT for the authority's PEM file and set ca_file to it"
        return failed(name, f"{seen}, and not trusted ({why})", right, fix)
    except AgentError as error:
        return failed(name, error.message, right, error.hint)
    except OSError as error:
        return failed(name, f"{host}:{port} cannot be reached ({type(error).__name__})", right, NETWORK)


def _shown(host: str, port: int, context: ssl.SSLContext) -> str:
    """What a server shows: who issued it, how long it is good, over which protocol."""
    from cryptography import x509  # noqa: PLC0415 -- only this check needs it

    with (
        socket.create_connection((host, port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        shown, version = secured.getpeercert(binary_form=True) or b"", secured.version()
    found = x509.load_der_x509_certificate(shown)
    issuer = "".join(letter for letter in found.issuer.rfc4514_string() if letter.isprintable())[:200]
    days = (found.not_valid_after_utc.timestamp() - time.time()) / 86_400
    return f"issued by {issuer}, good for {days:.0f} days, {version}"


def proxy(environ: Mapping[str, str]) -> Iterator[Check]:
    """Values are not told: proxy addresses hold passwords."""
    used = next((name for name in PROXIES if environ.get(name)), "")
    spared = {host.strip() for host in (environ.get("NO_PROXY") or environ.get("no_proxy") or "").split(",")}
    if not used:
        yield passed("proxy", "no proxy in your environment")
    elif spared.issuperset(LOOPBACK):
        yield passed("proxy", f"{used} is set, and spares this machine; the agent itself uses no proxy")
    else:
        yield warned(
            "proxy",
            f"{used} is set, also for this machine; the agent itself uses no proxy",
            f"NO_PROXY with {','.join(LOOPBACK)}",
            f"export NO_PROXY={','.join(LOOPBACK)}",
        )
