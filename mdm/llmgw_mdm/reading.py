"""Reads managed settings in whatever form they are: ours, or somebody else's. Reads files, no more."""

from __future__ import annotations

import base64
import json
import os
import plistlib
import re
import stat
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.parsers.expat import ExpatError

from llmgw_agent import system
from llmgw_agent.managed import DOMAIN as AGENT_DOMAIN
from llmgw_agent.settings import FOR_COMPANIES, VARIABLES
from llmgw_mdm import codex
from llmgw_mdm.places import CLAUDE_DOMAIN
from llmgw_mdm.shapes import REGISTRY_HEAD, REGISTRY_KEY, REGISTRY_VALUE

if TYPE_CHECKING:
    from pathlib import Path

DOMAINS: Final = (CLAUDE_DOMAIN, AGENT_DOMAIN, codex.DOMAIN)
MOST_BYTES: Final = 4 * 1024 * 1024
OTHERS_WRITE: Final = 0o022
DER_SEQUENCE: Final = 0x30
STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


class UnreadableError(ValueError):
    """Claude Code, or an MDM, would not understand it. The text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Document:
    """One set of settings. A profile can hold several."""

    path: Path
    domain: str
    """The preference domain of whom they are for: Claude Code's or the agent's, also for files that name none."""
    settings: dict[str, Any]
    mode: int
    owner: int

    @property
    def is_writable_by_others(self) -> bool:
        """Whether somebody else than its owner can change it."""
        return bool(self.mode & OTHERS_WRITE)


def read(path: Path) -> list[Document]:
    """Everything in a file; OSError if it cannot be read, UnreadableError if that is no settings."""
    handle = os.open(path, system.READING)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("it is no file")
        content = file.read(MOST_BYTES)
    found = _parse(content, path.suffix)
    return [Document(path, domain, each, status.st_mode, status.st_uid) for domain, each in found]


def _parse(content: bytes, suffix: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        if content.startswith((b"\xff\xfe", REGISTRY_HEAD.encode(), b"\xef\xbb\xbf" + REGISTRY_HEAD.encode())):
            return [(CLAUDE_DOMAIN, _registry(content))]
        if content.startswith((b"<?xml", b"bplist")) or (content[:1] == bytes([DER_SEQUENCE]) and b"<?xml" in content):
            return _property_list(content)
        if suffix == ".toml":
            return [_toml(content)]
        return [(CLAUDE_DOMAIN, _json(content.decode("utf-8-sig")))]
    except UnreadableError:
        raise
    except (ValueError, ExpatError, RecursionError, KeyError, TypeError) as error:
        raise UnreadableError(f"it cannot be parsed ({error})") from None


def _toml(content: bytes) -> tuple[str, dict[str, Any]]:
    document = tomllib.loads(content.decode())
    return (codex.DOMAIN if any(key.startswith("model_provider") for key in document) else AGENT_DOMAIN), document


def _preferences(domain: str, settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Codex's are a whole file within one value."""
    if domain != codex.DOMAIN:
        return domain, settings
    return domain, tomllib.loads(base64.b64decode(settings[codex.KEY], validate=True).decode())


def _json(text: str) -> dict[str, Any]:
    document = json.loads(text, object_pairs_hook=_once)
    if not isinstance(document, dict):
        raise UnreadableError("it is no JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The client takes the last of two equal names; whoever wrote both meant something else."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise UnreadableError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return found


def _registry(content: bytes) -> dict[str, Any]:
    """The policy in a `.reg` file, as regedit would import it."""
    text = content.decode("utf-16" if content.startswith(b"\xff\xfe") else "utf-8-sig")
    key = ""
    for line in text.splitlines():
        if line.startswith("["):
            key = line.strip("[]").upper()
        name, equals, value = line.partition("=")
        if key != REGISTRY_KEY.upper() or not equals or name.strip('"').lower() != REGISTRY_VALUE.lower():
            continue
        if not STRING.fullmatch(value):
            raise UnreadableError(f"{REGISTRY_VALUE} is no string of one line")
        return _json(re.sub(r"\\(.)", r"\1", value[1:-1]))
    raise UnreadableError(f"it sets no {REGISTRY_VALUE} under {REGISTRY_KEY}")


def _property_list(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    if not content.startswith((b"<?xml", b"bplist")):
        # Signed: the profile lies as it is between the signature's parts.
        content = content[content.index(b"<?xml") : content.rindex(b"</plist>") + len(b"</plist>")]
    document = plistlib.loads(content)
    if not isinstance(document, dict):
        raise UnreadableError("it is no dictionary")
    if "PayloadContent" not in document:
        if codex.KEY in document:
            return [_preferences(codex.DOMAIN, document)]
        is_agent = bool(document) and document.keys() <= VARIABLES.keys() | FOR_COMPANIES.keys()
        return [(AGENT_DOMAIN if is_agent else CLAUDE_DOMAIN, document)]
    found: list[tuple[str, dict[str, Any]]] = []
    for payload in document["PayloadContent"]:
        kind = payload["PayloadType"]
        if kind in {CLAUDE_DOMAIN, AGENT_DOMAIN}:
            found.append((kind, {key: value for key, value in payload.items() if not key.startswith("Payload")}))
        elif kind == "com.apple.ManagedClient.preferences":
            for domain, content_of in payload["PayloadContent"].items():
                forced = [part["mcx_preference_settings"] for part in content_of.get("Forced", [])]
                found += [_preferences(domain, part) for part in forced if domain in DOMAINS]
    if not found:
        raise UnreadableError("this profile holds no settings of Claude Code, the agent or Codex")
    return found
