"""What is rendered: a file, and what it is for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file, by its path below the output folder."""

    path: str
    content: bytes
    purpose: str
    """For the list that is rendered with it: what it is, and where it goes."""
    is_script: bool = False
