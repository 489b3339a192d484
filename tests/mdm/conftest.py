from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_mdm import organization

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_mdm.organization import Organization

EXAMPLE = Path(__file__).parents[2] / "mdm" / "org.example.toml"
Change = dict[str, dict[str, Any] | None]


def document(change: Change) -> dict[str, Any]:
    """The example with some keys of its tables changed; None takes a table away."""
    found: dict[str, Any] = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    for table, keys in change.items():
        if keys is None:
            del found[table]
        else:
            found[table] = found.get(table, {}) | keys
    return found


@pytest.fixture
def faults_of() -> Callable[..., list[str]]:
    def judge(**change: dict[str, Any] | None) -> list[str]:
        faults: list[str] = []
        organization.parse(document(change), faults)
        return faults

    return judge


@pytest.fixture
def org_with() -> Callable[..., Organization]:
    def read(**change: dict[str, Any] | None) -> Organization:
        faults: list[str] = []
        found = organization.parse(document(change), faults)
        assert faults == []
        return found

    return read
