"""What one check of `llmgw doctor` says: what was found, what is right, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """One check. No text of it may hold a credential."""

    name: str
    state: State
    found: str
    right: str = ""
    fix: str = ""


def passed(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, State.OK, found)


def warned(name: str, found: str, right: str, fix: str) -> Check:
    """It works, but not as well or as safely as it could."""
    return Check(name, State.WARN, found, right, fix)


def failed(name: str, found: str, right: str, fix: str) -> Check:
    """Something will not work, or is not safe."""
    return Check(name, State.FAIL, found, right, fix)


def skipped(name: str, found: str, fix: str = "") -> Check:
    """It cannot be told, or does not apply."""
    return Check(name, State.SKIP, found, "", fix)
