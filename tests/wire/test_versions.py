from __future__ import annotations

import pytest

from llmgw_wire.versions import is_older


@pytest.mark.parametrize(
    ("version", "minimum", "older"),
    [
        ("1.2.3", "1.2.3", False),
        ("1.2", "1.2.0", False),
        ("1.10", "1.9", False),
        ("1.9", "1.10", True),
        ("0.9.9", "1", True),
        ("2", "1.99.99", False),
        ("", "0", False),
        ("", "0.0.1", True),
        ("1.2.0rc1", "0.1", True),
        ("9" * 5000, "0.1", True),
        ("-1", "0.1", True),
    ],
)
def test_older_by_number_and_not_by_letter(version: str, minimum: str, older: bool) -> None:  # noqa: FBT001 -- a table
    assert is_older(version, minimum) is older
