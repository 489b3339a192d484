"""Writes TOML: Python reads it, but has no writer. Only what a gateway configuration needs."""

from __future__ import annotations

import json
from typing import Any


def dump(document: dict[str, Any]) -> str:
    """Tables and lists of tables at the top level, plain values and tables of these inside them."""
    parts = []
    for name, value in document.items():
        if isinstance(value, dict):
            parts.append(f"[{name}]\n" + table(value))
        else:
            parts += [f"[[{name}]]\n" + table(each) for each in value]
    return "\n".join(parts)


def table(values: dict[str, Any]) -> str:
    """The lines of one table."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in values.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(name)} = {_value(each)}" for name, each in value.items()) + "}"
    # A JSON string, number, boolean or list of these is also a TOML one (DEL is the only exception, and not used).
    return json.dumps(value, ensure_ascii=False)
