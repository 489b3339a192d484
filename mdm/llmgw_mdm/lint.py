"""`llmgw mdm lint` and `llmgw mdm show`: managed settings in files, and as they are in force on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from llmgw_agent.checks import Check, failed, passed, warned
from llmgw_agent.errors import UsageError
from llmgw_agent.managed import DOMAIN as AGENT_DOMAIN
from llmgw_agent.managed import ROOT
from llmgw_agent.settings import document_faults
from llmgw_mdm import codex, effect, pin, places, reading, rules
from llmgw_mdm.reading import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmgw_mdm.places import Place
    from llmgw_mdm.reading import Document

BASE_FOLDER: Final = "a folder with managed-settings.json or managed-settings.d, or one file"


def lint(path: Path) -> list[Check]:
    """Every check for a file in any form, or for a folder as Claude Code reads it. UsageError if there is nothing."""
    if path.is_dir():
        found = [place for place in places.files(path) if place.path.exists()]
        if not found:
            raise UsageError(f"{path} has no managed settings in it", f"Name {BASE_FOLDER}")
        return _sources(found, owner=None)[0]
    documents, checks = _read(path, owner=None)
    for document in documents:
        if document.domain == AGENT_DOMAIN:
            checks += _agent(document)
        elif document.domain == codex.DOMAIN:
            checks += codex.judge(document.settings)
        else:
            checks += rules.judge(document.settings)
    return checks


def show(gateway_url: str = "") -> tuple[effect.Policy, list[Check]]:
    """What is in force on this machine, and every check of it; with a gateway, whether it is the one that is pinned."""
    found = [place for place in places.places() if os.path.lexists(place.path)]
    checks, policy = _sources(found, owner=ROOT)
    if gateway_url:
        checks.append(_gateway(policy, gateway_url.rstrip("/")))
    return policy, checks


def _gateway(policy: effect.Policy, gateway_url: str) -> Check:
    env = policy.settings.get("env")
    env = env if isinstance(env, dict) else {}
    dialect = pin.dialect_of(env)
    pinned = str(env[pin.ADDRESS[dialect]]).rstrip("/") if dialect else ""
    if pinned == (f"{gateway_url}/bedrock" if dialect == "bedrock" else gateway_url):
        return passed("gateway", f"{gateway_url} is pinned")
    fix = "Deliver what llmgw mdm render has written (docs/mdm.md)"
    return failed("gateway", f"{pinned or 'nothing'} is pinned", gateway_url, fix)


def _sources(found: Sequence[Place], owner: int | None) -> tuple[list[Check], effect.Policy]:
    checks: list[Check] = []
    known: list[tuple[Place, dict[str, Any]]] = []
    for place in found:
        documents, faults = _read(place.path, owner)
        checks += faults
        known += [(place, document.settings) for document in documents]
    policy = effect.of(known)
    for each in policy.passed_over:
        right = "one source for each key"
        checks.append(
            warned("passed over", f"{each.key} in {each.path}: {each.why}", right, "Say it in one place only")
        )
    if policy.settings:
        checks += rules.judge(policy.settings)
    return checks, policy


def _read(path: Path, owner: int | None) -> tuple[list[Document], list[Check]]:
    """What a file holds, and what is wrong with it as a file."""
    try:
        documents = reading.read(path)
    except UnreadableError as error:
        right = "settings that can be read: Claude Code does not start with a broken file"
        return [], [failed("file", f"{path}: {error}", right, f"Correct or remove {path}")]
    except FileNotFoundError:
        return [], [
            failed("file", f"there is no {path}", "a file of settings, or a folder of them", "Name another path")
        ]
    except OSError as error:
        return [], [
            failed("file", f"{path} cannot be read ({error.strerror})", "readable by everybody", "Check who owns it")
        ]
    first = documents[0]
    if first.is_writable_by_others:
        found, right = f"others than its owner can write {path}", "writable by its owner alone"
        return documents, [failed("file", found, right, f"chmod go-w '{path}'")]
    if owner is not None and first.owner != owner:
        return documents, [failed("file", f"{path} is not root's", "root's, and nobody else's", f"chown 0:0 '{path}'")]
    return documents, [passed("file", str(path))]


def _agent(document: Document) -> list[Check]:
    """The agent's own settings: what the agent itself would say. Files that they name lie on laptops, not here."""
    faults = document_faults(document.path, document.settings)
    right = "settings that the agent knows: it does not start with others"
    checks = [failed("agent", fault, right, f"Correct {document.path}") for fault in faults]
    return checks or [passed("agent", f"{len(document.settings)} settings of the agent")]
