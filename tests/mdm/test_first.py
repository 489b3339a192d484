"""`llmgw mdm init`: what a gateway's words become. The real gateway is asked in tests/functional/test_managed.py."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from llmgw_agent.errors import UsageError
from llmgw_mdm import first, organization
from llmgw_wire.messages import Bootstrap, IssuerOffer

if TYPE_CHECKING:
    from pathlib import Path


def bootstrap(
    gateway: str, dialects: tuple[str, ...] = ("anthropic", "bedrock"), issuer: str = "https://id"
) -> Bootstrap:
    offers = (IssuerOffer(issuer=issuer, client_id="llmgw"),)
    return Bootstrap(gateway, f"{gateway}/oauth/token", "llmgw", offers, dialects=dialects)


@pytest.mark.parametrize(
    ("gateway", "identifier"),
    [
        ("https://llm.corp.example", "example.corp"),
        ("https://llm.eu.corp.example/gateway", "example.corp.eu"),
        ("https://corp.example:8443", "example.corp"),
        ("https://gateway", "example.corp"),
        ("http://127.0.0.1:8080", "example.corp"),
    ],
)
def test_the_first_file_is_without_a_fault(tmp_path: Path, gateway: str, identifier: str) -> None:
    path = tmp_path / "org.toml"
    first.write(first.text(bootstrap(gateway), tmp_path / "ca.pem"), path)
    found = organization.load(path)
    assert (found.gateway_url, found.identifier, found.claude.dialect) == (gateway, identifier, "bedrock")
    assert found.ca_files["linux"] == str(tmp_path / "ca.pem")


def test_a_gateway_without_bedrock_s_dialect_is_spoken_to_in_the_other() -> None:
    text = first.text(bootstrap("https://llm.corp.example", ("anthropic",)), None)
    assert tomllib.loads(text)["claude_code"]["dialect"] == "anthropic"
    assert "ca_file" not in text


def test_what_a_gateway_says_cannot_become_more_than_a_value() -> None:
    text = first.text(
        bootstrap('https://llm.corp.example/"\nx = "', issuer="https://id\n[agent]\nforward_port = 1"), None
    )
    assert set(tomllib.loads(text)) == {"organization", "gateway", "rollout", "claude_code"}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "org.toml"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        first.write("ours", path)
    assert path.read_text() == "mine"
