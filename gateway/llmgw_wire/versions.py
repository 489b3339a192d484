"""Versions of the agent, and which of two is older."""

from __future__ import annotations

import re
from typing import Final

FORM: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
"""What stands in a setting and in a header: numbers and dots."""


def is_older(version: str, minimum: str) -> bool:
    """Whether a version is below a minimum. What is no version, or empty, is below every minimum but 0."""
    return _numbers(version) < _numbers(minimum)


def _numbers(text: str) -> tuple[int, ...]:
    """To compare by: 1.2 and 1.2.0 are the same."""
    numbers = [int(part) for part in text.split(".")] if FORM.fullmatch(text) else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
