"""`llmgw-policy`: Claude Code's `policyHelper`. Managed settings as this machine's files say, for the models of today.

Observed of 2.1.329: it is run without arguments in `/` when the client starts and every `refreshIntervalMs`. The object
that it prints takes the place of every managed setting; an empty one leaves them as they are; any exit code but 0, or
anything but an object, stops the client. So every failure prints the empty one, and what is printed otherwise are the
whole settings of this machine, only ever narrowed: whoever writes the cache, or the environment, gains nothing by it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.client import Client
from llmgw_agent.errors import AgentError
from llmgw_agent.settings import places
from llmgw_mdm import effect, reading
from llmgw_mdm.places import places as managed_places

if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILIES: Final = ("opus", "sonnet", "haiku", "fable", "mythos")
"""What Claude Code's own short names stand for."""
CACHE: Final = "models.json"
CACHE_SECONDS: Final = 30 * 86400
MOST_BYTES: Final = 64 * 1024
ANSWER_SECONDS: Final = 2.0
"""How long the agent is waited for: it may have to start. A client whose helper is slow does not start at all."""


def main() -> None:
    """Print the policy; exit code 0, whatever happens."""
    try:
        answer = policy(os.environ)
    except Exception:  # noqa: BLE001 -- anything else than an object stops everybody's client
        answer = {}
    os.write(1, json.dumps(answer).encode() + b"\n")


def policy(environ: Mapping[str, str]) -> dict[str, Any]:
    """What to print: the machine's settings narrowed to the models of whoever is signed in; nothing if that is no news.

    OSError or reading.UnreadableError if a managed file cannot be read.
    """
    found = [place for place in managed_places() if os.path.lexists(place.path)]
    sources = [(place, document.settings) for place in found for document in reading.read(place.path)]
    settings = effect.of(sources).settings
    models = _models(environ)
    if not settings or not models:
        return {}
    narrowed = narrow(settings, models)
    return {"managedSettings": narrowed} if narrowed != settings else {}


def narrow(settings: dict[str, Any], models: tuple[str, ...]) -> dict[str, Any]:
    """The same settings, without the families of models that these do not include. Pure.

    Where nothing would be left, what the company has listed stays: the gateway refuses, and says why.
    """
    refused = [family for family in FAMILIES if not any(family in model for model in models)]
    listed = settings.get("availableModels")
    if not isinstance(listed, list):
        listed = [*FAMILIES, *(model for model in models if not any(family in model for family in FAMILIES))]
    kept = [each for each in listed if not any(family in str(each) for family in refused)]
    if not kept or not refused:
        return settings
    return settings | {"availableModels": kept, "enforceAvailableModels": True}


@dataclass(frozen=True, slots=True)
class Known:
    """What the gateway let an account use when it was last asked."""

    account: str
    models: tuple[str, ...]
    at: float
    """Seconds since the epoch, this machine's clock."""

    @classmethod
    def read(cls, path: Path) -> Known | None:
        """What was kept; None if there is nothing, or nothing that is any good."""
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(MOST_BYTES))
            return cls(str(document["account"]), tuple(map(str, document["models"])), float(document["at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, path: Path) -> None:
        """Write it beside the agent's own files, whole or not at all."""
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"account": self.account, "models": self.models, "at": self.at}, file)
        Path(name).replace(path)


def _glance(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What a running agent sees at a glance; None if there is none, or it is slow."""
    found: list[dict[str, Any] | None] = []

    def ask() -> None:
        with contextlib.suppress(AgentError, OSError, ValueError):
            found.append(Client(environ).glance())

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return found[0] if found else None


def _models(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What whoever is signed in may use, from the agent or from what it said before; empty if nobody knows."""
    path, now = places(environ).home / CACHE, time.time()
    kept = Known.read(path)
    glance = _glance(environ)
    if glance is None:
        return kept.models if kept is not None and 0 <= now - kept.at < CACHE_SECONDS else ()
    if glance["account"] is None:
        return ()
    account = str(glance["account"]["email"])
    if models := tuple(map(str, glance.get("models", ()))):
        if kept is None or kept.models != models or kept.account != account or now - kept.at > CACHE_SECONDS / 2:
            Known(account, models, now).keep(path)
        return models
    return kept.models if kept is not None and kept.account == account else ()
