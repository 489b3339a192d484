"""Runs canaille in a process of its own: `python canaille_server.py CONFIG.json`.

canaille's memory backend lives and dies with its process, so the accounts are put in where the server starts. The
password rules, forms, consent, tokens and keys are canaille's own.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from hypercorn.asyncio import serve
from hypercorn.config import Config

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def without_loopback_port(uri: str) -> str:
    """The URI as RFC 8252 section 7.3 wants native apps compared: any port, if the host is this machine."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.hostname or "").geturl() if parts.hostname in LOOPBACK else uri


def check_redirect_uri(client: Any, redirect_uri: str) -> bool:
    """canaille compares redirect URIs to the letter; every corporate provider follows the RFC for native apps."""
    wanted = without_loopback_port(redirect_uri)
    return wanted in {without_loopback_port(uri) for uri in client.redirect_uris}


def populate(config: dict[str, Any]) -> None:
    """Create the people, their groups and the one public client."""
    people = {}
    for person in config["people"]:
        people[person["user_name"]] = models.User(
            user_name=person["user_name"],
            formatted_name=f"{person['given_name']} {person['family_name']}",
            given_name=person["given_name"],
            family_name=person["family_name"],
            emails=[person["email"]],
            password=person["password"],
        )
        Backend.instance.save(people[person["user_name"]])
    for name, members in config["groups"].items():
        Backend.instance.save(models.Group(display_name=name, members=[people[member] for member in members]))
    client = models.Client(**config["client"])
    Backend.instance.save(client)
    client.audience = [client]
    Backend.instance.save(client)


async def run(config: dict[str, Any]) -> None:
    app = create_app(config=config["settings"])
    with app.app_context(), Backend.instance.session():
        models.Client.check_redirect_uri = check_redirect_uri
        populate(config)
    server = Config()
    server.bind = [config["bind"]]
    server.graceful_timeout = 1
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await serve(app, server, mode="wsgi", shutdown_trigger=ended.wait)


if __name__ == "__main__":
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
