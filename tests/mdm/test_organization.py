"""`org.toml`: every fault is told, and all of them at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmgw_agent.errors import ConfigurationError
from llmgw_mdm import organization
from llmgw_mdm.organization import HELPERS, TESTED_VERSION
from llmgw_mdm.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmgw_mdm.organization import Organization

ROOT = Path(__file__).parents[2]


def test_the_example_is_without_a_fault() -> None:
    found = organization.load(ROOT / "mdm" / "org.example.toml")
    assert (found.name, found.platforms, found.claude.dialect) == ("Example Corp", ("linux", "macos"), "bedrock")


def test_little_has_to_be_said(org_with: Callable[..., Organization]) -> None:
    found = org_with(rollout=None, agent=None, claude_code=None)
    assert (found.helpers, found.claude.minimum_version, found.claude.life_seconds) == (HELPERS, TESTED_VERSION, 240)
    assert (found.telemetry, found.agent.forward_port) == (None, None)


@pytest.mark.parametrize(
    ("table", "key", "value", "fault"),
    [
        ("organization", "name", "", "organization.name is empty"),
        ("organization", "name", "two\nlines", "organization.name has to be one line"),
        ("organization", "name", 7, "organization.name is not a string"),
        ("organization", "identifier", "example", "has to be a domain in reverse"),
        ("organization", "nmae", "x", "organization.nmae is not known: is it 'name'?"),
        ("gateway", "url", "http://llm.corp.example", "gateway.url must begin with https://"),
        ("gateway", "ca_file", {"linux": "ca.pem"}, "gateway.ca_file.linux has to be a whole path"),
        ("gateway", "ca_file", {"freebsd": "/ca.pem"}, "gateway.ca_file.freebsd is not known"),
        ("rollout", "platforms", ["linux", "amiga"], "rollout.platforms names 'amiga'"),
        ("rollout", "platforms", [], "rollout.platforms is empty"),
        ("rollout", "platforms", ["linux", "linux"], "rollout.platforms names something twice"),
        ("rollout", "helper", {"linux": "~/bin/llmgw-token"}, "rollout.helper.linux has to be a whole path"),
        ("rollout", "helper", {"macos": "/opt/$X/llmgw-token"}, "rollout.helper.macos has to be a whole path"),
        ("rollout", "helper", {"windows": "llmgw-token.exe"}, "rollout.helper.windows has to be a whole path"),
        (
            "rollout",
            "helper",
            {"windows": r"%ProgramFiles%\llmgw.exe"},
            "rollout.helper.windows has to be a whole path",
        ),
        ("rollout", "tools", ["emacs"], "rollout.tools names 'emacs'"),
        ("rollout", "tools", ["gitlab-ci"], "ci.repository is missing"),
        ("ci", "repository", "http://pkg.corp.example", "ci.repository must begin with https://"),
        ("ci", "repository", "https://pkg.corp.example/$(id);id", "ci.repository has to be of letters, digits"),
        ("ci", "audience", "two words", "ci.audience has to be one word"),
        ("codex", "modle", "x", "codex.modle is not known: is it 'model'?"),
        ("agent", "sign_in_methods", ["telepathy"], "agent.sign_in_methods names 'telepathy'"),
        ("agent", "forward_port", 65536, "agent.forward_port is 65536"),
        ("agent", "forward_port", True, "agent.forward_port is not a whole number"),
        ("agent", "project_redirects", "ignore", "agent.project_redirects is 'ignore'"),
        ("claude_code", "dialect", "openai", "claude_code.dialect is 'openai'"),
        ("claude_code", "region", "EU Central", "claude_code.region is no region"),
        ("claude_code", "minimum_version", "2.1", "claude_code.minimum_version has to be three numbers"),
        ("claude_code", "minimum_version", "2.1.99", "claude_code.minimum_version has to be 2.1.227 or later"),
        ("claude_code", "helper_cache_seconds", 241, "claude_code.helper_cache_seconds is 241"),
        ("claude_code", "models", "sonnet", "claude_code.models is not a list of strings"),
        ("claude_code", "models", [7], "claude_code.models is not a list of strings"),
        ("claude_code", "presets", ["paranoid"], "claude_code.presets names 'paranoid'"),
        ("claude_code", "quiet", "yes", "claude_code.quiet is not true or false"),
        ("claude_code", "proxy", "http://user:word@proxy:3128", "claude_code.proxy has to be http://HOST:PORT"),
        ("claude_code", "no_proxy", ["corp.example"], "but there is no proxy"),
        ("claude_code", "settings", {"forceLoginMethod": "console"}, "stops the client beside an apiKeyHelper"),
        ("claude_code", "settings", {"apiKeyHelper": "mine"}, "'apiKeyHelper' is written by this tool"),
        ("claude_code", "settings", {"modle": "opus"}, "'modle' is no setting of Claude Code"),
        ("claude_code", "settings", {"env": {"HTTPS_PROXY": "x"}}, "env.HTTPS_PROXY is part of the pin"),
        ("claude_code", "settings", {"env": {"X": 1}}, "env is not a table of strings"),
        ("telemetry", "endpoint", "http://otel.corp.example", "telemetry.endpoint must begin with https://"),
        ("telemetry", "protocol", "carrier-pigeon", "telemetry.protocol is 'carrier-pigeon'"),
    ],
)
def test_a_fault_is_named(faults_of: Callable[..., list[str]], table: str, key: str, value: Any, fault: str) -> None:
    base = {"endpoint": "https://otel.corp.example"} if table == "telemetry" else {}
    (found,) = faults_of(**{table: base | {key: value}})
    assert fault in found


@pytest.mark.parametrize("table", ["organization", "gateway"])
def test_what_is_missing_is_named(faults_of: Callable[..., list[str]], table: str) -> None:
    assert all(" is missing" in fault and fault.startswith(f"{table}.") for fault in faults_of(**{table: None}))
    assert faults_of(**{table: None})


def test_a_table_that_is_none_and_one_that_nobody_knows_are_faults() -> None:
    faults: list[str] = []
    organization.parse({"organization": "Example", "gatway": {}}, faults)
    assert "organization is not a table" in faults
    assert any("gatway is not known: is it 'gateway'?" in fault for fault in faults)


def test_all_faults_are_told_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "org.toml"
    path.write_text('[organization]\nname = 1\n[gateway]\nurl = "ftp://x"\n[rollout]\nplatforms = ["amiga"]\n')
    with pytest.raises(ConfigurationError) as caught:
        organization.load(path)
    for part in (str(path), "organization.name", "organization.identifier", "gateway.url", "rollout.platforms"):
        assert part in caught.value.message


@pytest.mark.parametrize(("content", "says"), [(b"[", "is no TOML file"), (b"\xff", "is no TOML file")])
def test_a_file_that_is_no_toml_is_one_error(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "org.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=says):
        organization.load(tmp_path / "org.toml")


def test_a_file_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        organization.load(tmp_path / "org.toml")


def test_every_key_and_preset_is_documented_and_nothing_else() -> None:
    text = (ROOT / "docs" / "mdm.md").read_text(encoding="utf-8")
    source = (ROOT / "mdm" / "llmgw_mdm" / "organization.py").read_text(encoding="utf-8")
    rows = set(
        re.findall(
            r"^\| `((?:organization|gateway|rollout|agent|claude_code|codex|ci|telemetry)\.\w+)`", text, re.MULTILINE
        )
    )
    asked = set(
        re.findall(
            r'(?:table|about|gateway|rollout|codex)\.(?:text|texts|choice|number|flag|raw|table)\("(\w+)"', source
        )
    )
    assert {row.partition(".")[2] for row in rows} == asked
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == set(PRESETS)


def test_the_desktop_app_takes_no_gateway_without_tls(faults_of: Callable[..., list[str]]) -> None:
    loopback = {"url": "http://127.0.0.1:8080"}
    assert faults_of(gateway=loopback) == []
    assert faults_of(gateway=loopback, claude_desktop={}) == [
        "claude_desktop needs a gateway with https: the app takes no other"
    ]
