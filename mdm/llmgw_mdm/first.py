"""`llmgw mdm init`: a first `org.toml`, from what the gateway says of itself."""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from llmgw_agent.errors import ConfigurationError, TemporaryError, UsageError
from llmgw_agent.outgoing import Outgoing, trust
from llmgw_agent.settings import url_fault
from llmgw_mdm.organization import TESTED_VERSION
from llmgw_wire.headers import BOOTSTRAP_PATH
from llmgw_wire.messages import Bootstrap

if TYPE_CHECKING:
    from pathlib import Path

OK: Final = 200
LABELS: Final = 2
"""Of a domain that is somebody's: `corp.example`."""
TEMPLATE: Final = """\
# What an organisation wants on its laptops: `llmgw mdm render org.toml` writes every profile and policy from this file.
# All keys: docs/mdm.md. Written from what {gateway} says of itself; read it before you render.
# People sign in at: {issuers}

[organization]
name = {name} # shown in profiles: your company's name
identifier = {identifier} # your domain in reverse; keep it for ever: it names the profiles

[gateway]
url = {url}
{ca}
[rollout]
platforms = ["linux", "macos"]

[claude_code]
dialect = {dialect}
minimum_version = {version}
"""
CA: Final = """
# Where that file lies on laptops.
[gateway.ca_file]
linux = {path}
macos = {path}
"""


async def ask(url: str, ca_file: Path | None) -> Bootstrap:
    """What the gateway says. ConfigurationError if it is none of ours, TemporaryError if it is away."""
    if fault := url_fault(url):
        raise UsageError(f"the gateway's address {url!r} {fault}", "Write it as https://HOST")
    outgoing = Outgoing(trust(ca_file))
    try:
        answer = await outgoing.get(url + BOOTSTRAP_PATH)
    finally:
        await outgoing.close()
    if answer.status >= 500:  # noqa: PLR2004 -- the class of a server's own faults
        raise TemporaryError(f"{url} answered with {answer.status}", "Try again, or ask the gateway's operator")
    if answer.status != OK:
        raise ConfigurationError(f"{url} is not an llmgw gateway (status {answer.status})", "Correct the address")
    try:
        return Bootstrap.parse(answer.body)
    except ValueError as error:
        raise ConfigurationError(f"{url} is not an llmgw gateway ({error})", "Correct the address") from None


def text(found: Bootstrap, ca_file: Path | None) -> str:
    """The file. Addresses are the gateway's own words for itself, checked like any other when the file is read."""
    url = found.gateway.rstrip("/")
    domain = _domain(urlsplit(url).hostname or "")
    values = {
        "name": domain,
        "identifier": ".".join(reversed(domain.split("."))),
        "url": url,
        "dialect": "bedrock" if "bedrock" in found.dialects else "anthropic",
        "version": TESTED_VERSION,
    }
    quoted = {key: json.dumps(value) for key, value in values.items()}
    ca = CA.format(path=json.dumps(str(ca_file))) if ca_file else ""
    issuers = ", ".join(offer.issuer for offer in found.issuers)
    return TEMPLATE.format(gateway=_line(url), issuers=_line(issuers), ca=ca, **quoted)


def write(content: str, path: Path) -> None:
    """Write it; UsageError if there is such a file: nothing of somebody's is overwritten."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise UsageError(f"{path} exists", "Name another file with --out, or delete it") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written ({error.strerror})", "Name another with --out") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)


def _domain(host: str) -> str:
    """The organisation's domain as far as it shows in the gateway's name; one to be replaced, if it does not."""
    labels = host.split(".")
    try:
        ip_address(host)
    except ValueError:
        if len(labels) > LABELS:
            return ".".join(labels[1:])
        return host if len(labels) == LABELS else "corp.example"
    return "corp.example"


def _line(words: str) -> str:
    """For a comment: it ends where its line ends."""
    return "".join(letter if letter.isprintable() else " " for letter in words)
