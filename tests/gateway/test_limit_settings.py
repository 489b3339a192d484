"""The sections [[limits]] and [valkey]: what they take, and every fault with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmgw_gateway import settings
from llmgw_gateway.errors import ConfigurationError
from tests.gateway import configuration

if TYPE_CHECKING:
    from pathlib import Path

    from llmgw_gateway.settings import Settings

LIMIT = {"level": "user", "requests_per_minute": 60}


def load(tmp_path: Path, **sections: Any) -> Settings:
    document = configuration.good() | sections
    return settings.load(configuration.write(configuration.folder(tmp_path), document))


def faults(tmp_path: Path, **sections: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, **sections)
    return caught.value.faults


def test_limits_of_all_kinds_and_levels_are_read(tmp_path: Path) -> None:
    read = load(
        tmp_path,
        teams=[{"name": "analysis"}],
        limits=[
            LIMIT,
            {"level": "user", "team": "analysis", "concurrent": 4, "when_unavailable": "refuse"},
            {"level": "team", "of": "analysis", "tokens_per_minute": 1_000, "hold": "max_tokens"},
            {"level": "provider", "model": "claude-sonnet-4-5", "tokens_per_minute": 10**9},
        ],
    )
    assert [limit.level for limit in read.limits] == ["user", "user", "team", "provider"]
    assert not read.valkey.address(tmp_path)


@pytest.mark.parametrize(
    ("limit", "fault"),
    [
        ({"level": "user"}, "requests_per_minute: give at least one of"),
        ({"level": "user", "requests_per_minute": 0}, "requests_per_minute: Expected `int` >= 1"),
        ({"level": "user", "requests_per_minute": 1.5}, "requests_per_minute: Expected `int"),
        ({"level": "user", "tokens_per_minute": 10**9 + 1}, "tokens_per_minute: Expected `int` <="),
        ({"level": "user", "concurrent": 0}, "concurrent: Expected `int` >= 1"),
        ({"level": "everybody", "concurrent": 1}, "level: Invalid enum value"),
        ({"level": "user", "concurrent": 1, "hold": "expected"}, "hold: goes with tokens_per_minute"),
        ({"level": "provider", "concurrent": 1}, "model: is needed with level provider"),
        ({"level": "provider", "concurrent": 1, "model": "claude-sonnet-4-5", "of": "x"}, "of: there is one provider"),
        ({"level": "organisation", "concurrent": 1, "of": "x"}, "of: there is one organisation only"),
        ({"level": "team", "concurrent": 1, "team": "analysis"}, 'team: goes with level = "user"'),
        ({"level": "team", "concurrent": 1, "of": "navy"}, "of: there is no team 'navy'"),
        ({"level": "user", "concurrent": 1, "team": "navy"}, "team: there is no team 'navy'"),
        ({"level": "project", "concurrent": 1, "of": "apollo"}, "of: there is no project 'apollo'"),
        ({"level": "user", "concurrent": 1, "model": "gpt"}, "model: 'gpt' is not served here"),
        ({"level": "user", "concurent": 1}, "concurent: unknown key"),
    ],
)
def test_a_faulty_limit_is_named(tmp_path: Path, limit: dict[str, Any], fault: str) -> None:
    said = faults(tmp_path, limits=[limit], teams=[{"name": "analysis"}])
    assert any(each.startswith(f"limits[0].{fault}") for each in said), said


def test_two_limits_for_the_same_calls_are_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, limits=[LIMIT, LIMIT | {"concurrent": 3}]) == ["limits: 'user///' stands there twice"]


@pytest.mark.parametrize(
    "url",
    ["rediss://valkey.example:6380/0", "redis://127.0.0.1:6379", "rediss://user@valkey.example", "redis://[::1]/3"],
)
def test_an_address_is_taken(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, valkey={"url": url}).valkey.address(tmp_path).reveal() == url


def test_clear_text_is_taken_when_the_network_encrypts(tmp_path: Path) -> None:
    load(tmp_path, valkey={"url": "redis://valkey.example", "unencrypted": True})


SECRET = "canary-9"


@pytest.mark.parametrize(
    ("valkey", "fault"),
    [
        ({"url": "redis://valkey.example"}, "url: would talk to valkey.example in clear"),
        ({"url": f"rediss://:{SECRET}@valkey.example"}, "url: must have no password"),
        ({"url": "http://valkey.example"}, "url: is not a rediss:// URL"),
        ({"url": "rediss://"}, "url: is not a rediss:// URL"),
        ({"url": "rediss://valkey.example/zero"}, "url: what follows the host"),
        ({"url": "rediss://valkey.example?ssl_cert_reqs=none"}, "url: must have no query"),
        ({"url": f"rediss://:a/{SECRET}@valkey.example"}, "url: is not a"),
        ({"url": f"rediss://:a#{SECRET}@valkey.example"}, "url: is not a"),
        ({"url": f"rediss://:a?{SECRET}@valkey.example"}, "url: is not a"),
        ({"url": "rediss://valkey.example", "url_file": "x"}, "url: goes without url_file"),
        ({"url_file": "nowhere"}, "url_file: No such file"),
        ({"ca_file": "nowhere"}, "ca_file: no such file"),
        ({"prefix": "{x}"}, "prefix:"),
        ({"timeout_ms": 5}, "timeout_ms:"),
    ],
)
def test_a_faulty_server_is_named_and_no_password_is_quoted(tmp_path: Path, valkey: dict[str, Any], fault: str) -> None:
    said = faults(tmp_path, valkey=valkey)
    assert any(each.startswith(f"valkey.{fault}") for each in said), said
    assert not any(SECRET in each for each in said)


def test_a_password_stands_in_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "valkey.url"
    path.touch(mode=0o644)
    path.write_text(f"redis://:{SECRET}@valkey.example\n", encoding="ascii")
    said = faults(tmp_path, valkey={"url_file": path.name})
    assert said[0].startswith("valkey.url_file:")
    assert "chmod 600" in said[0]
    path.chmod(0o600)
    said = faults(tmp_path, valkey={"url_file": path.name})
    assert said[0].startswith("valkey.url_file: would talk to valkey.example in clear")
    path.write_text(f"rediss://:{SECRET}@valkey.example\n", encoding="ascii")
    read = load(tmp_path, valkey={"url_file": path.name})
    assert read.valkey.address(tmp_path).reveal() == f"rediss://:{SECRET}@valkey.example"
    assert SECRET not in repr(read.valkey)


def test_limits_that_several_gateways_would_not_share_are_a_fault(tmp_path: Path) -> None:
    shared = {"store": {"url": "postgresql://127.0.0.1/llmgw"}, "limits": [LIMIT]}
    (said,) = faults(tmp_path, **shared)
    assert said.startswith("valkey.url: is needed for limits")
    load(tmp_path, **shared, valkey={"alone": True})
    load(tmp_path, **shared, valkey={"url": "redis://127.0.0.1"})
    load(tmp_path, **shared | {"limits": []})
    assert faults(tmp_path, valkey={"url": "redis://127.0.0.1", "alone": True}) == [
        "valkey.alone: goes without url and url_file"
    ]
