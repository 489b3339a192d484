"""Profiles: one gateway and one sign-in each, with a folder, a socket and an agent of its own.

There is no profile "in use" that a command switches: a token of one gateway would go to another as soon as a tool's
settings name the other. Who asks says for which profile, by `-p` or LLMGW_PROFILE; what `llmgw setup` writes does, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmgw_agent import settings, system
from llmgw_agent.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VARIABLE: Final = "LLMGW_PROFILE"
FIRST: Final = "default"
"""What the first profile is called; it has no folder below `profiles`."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One of them, as its files say."""

    name: str
    gateway_url: str
    """Empty if its settings are not right."""
    fault: str
    """What is wrong with its settings; empty if nothing is."""


def environment(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """The same environment, for this profile."""
    return {**environ, VARIABLE: name}


def listed(environ: Mapping[str, str]) -> list[Profile]:
    """All that there are, the first one first."""
    found = {path.name for folder in _folders(environ) if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
    return [_profile(environ, name) for name in (FIRST, *sorted(found - {FIRST}))]


def add(environ: Mapping[str, str], name: str, gateway_url: str, ca_file: str) -> Profile:
    """Make one, by writing its file of settings; UsageError if it is there or its name or address is none."""
    if name == FIRST:
        raise UsageError("the first profile is always there", "Set its gateway_url in config.toml, or as a variable")
    places = settings.places(environment(environ, name))
    if fault := settings.url_fault(gateway_url):
        raise UsageError(f"{gateway_url[:100]} {fault}", "Give the gateway's address")
    content = f"gateway_url = {json.dumps(gateway_url)}\n" + (f"ca_file = {json.dumps(ca_file)}\n" if ca_file else "")
    try:
        places.config.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = system.create(places.config)
    except FileExistsError:
        raise UsageError(f"there is a profile {name} already", "Run: llmgw profile list") from None
    except OSError as error:
        raise ConfigurationError(f"{places.config} cannot be written ({error.strerror})", "Check who owns it") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
    return _profile(environ, name)


def require(environ: Mapping[str, str], name: str) -> Profile:
    """The profile of this name; UsageError if there is none that could be removed."""
    for profile in listed(environ):
        if profile.name == name != FIRST:
            return profile
    raise UsageError(f"there is no profile {name[:40]!r} to remove", "Run: llmgw profile list")


def remove(environ: Mapping[str, str], name: str) -> None:
    """Delete its files. Whoever calls has signed it out and ended its agent."""
    places = settings.places(environment(environ, name))
    for folder in {places.home, places.config.parent, places.log.parent}:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _profile(environ: Mapping[str, str], name: str) -> Profile:
    try:
        given = settings.load(environment(environ, name))
    except ConfigurationError as error:
        return Profile(name, "", error.message)
    return Profile(name, given.gateway_url, "")


def _folders(environ: Mapping[str, str]) -> set[Path]:
    """Where named profiles have folders."""
    places = settings.places(environment(environ, "any"))
    return {places.home.parent, places.config.parent.parent}
