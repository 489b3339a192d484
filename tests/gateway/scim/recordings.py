"""Requests as Okta and Entra ID send them, from their documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("recorded")


def recorded(provider: str, request: str, **names: str) -> Any:
    """The body of a request; `names` stand in the place of ids of the documentation."""
    text = json.dumps(json.loads((FOLDER / f"{provider}.json").read_text(encoding="utf-8"))[request])
    for name, value in names.items():
        text = text.replace(name.upper(), value)
    return json.loads(text)
