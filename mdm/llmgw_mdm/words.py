"""What `llmgw mdm` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def rendered(count: int, folder: Path) -> str:
    """Where everything is, and what to read next."""
    return f"Wrote {count} files to {folder}. What each is for: {folder / 'README.md'}"
